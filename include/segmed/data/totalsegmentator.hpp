// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <segmed/data/folder.hpp>

namespace segmed {

/// A table of text, first row first.
using TextTable = std::vector<std::vector<std::string>>;

/// Reads a table with one row a line. A byte order mark, carriage returns and quotes are tolerated.
inline TextTable read_table(const std::string& path, char separator) {
  std::ifstream file(path);
  require<FileError>(file.good(), "table", path, ": cannot be read");
  TextTable rows;
  for (std::string line; std::getline(file, line);) {
    if (rows.empty() && line.rfind("\xEF\xBB\xBF", 0) == 0) line = line.substr(3);
    if (line.empty() || line == "\r") continue;
    std::vector<std::string> row(1);
    bool quoted = false;
    for (const char c : line) {
      if (c == '"')
        quoted = !quoted;
      else if (c == separator && !quoted)
        row.emplace_back();
      else if (c != '\r')
        row.back() += c;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

/// The scan of a case's folder in the TotalSegmentator layout, or "".
inline std::string totalsegmentator_scan(const std::filesystem::path& folder) {
  for (const char* name : {"ct.nii.gz", "ct.nii", "mri.nii.gz", "mri.nii"})
    if (std::filesystem::exists(folder / name)) return (folder / name).string();
  return {};
}

/// True for a folder that holds cases as TotalSegmentator's data sets do.
inline bool is_totalsegmentator(const std::filesystem::path& root) {
  for (const auto& folder : folders_in(root))
    if (std::filesystem::is_directory(folder / "segmentations") &&
        (!totalsegmentator_scan(folder).empty() || std::filesystem::exists(root / "meta.csv")))
      return true;
  return false;
}

/// Lists a data set in the layout of TotalSegmentator: <id>/ct.nii.gz, <id>/segmentations/
/// <class>.nii.gz and meta.csv. A class without a file is not annotated in that case; an empty mask
/// says that it is absent. The split column of meta.csv is kept: its test cases stay apart.
///
///   throws   ConfigError when a wanted class has no file in any case
///   source   Wasserthal et al. 2023, zenodo.org/records/6802614 (v1) and 10047292 (v2)
inline FolderCohort list_totalsegmentator(const std::string& root, const FolderOptions& options) {
  FolderCohort cohort;
  cohort.folder = root;
  cohort.class_of.fill(-1);
  struct Found {
    std::string scan;
    std::map<std::string, std::string> masks;
  };
  std::map<std::string, Found> found;
  std::set<std::string> names;
  for (const auto& folder : folders_in(root)) {
    Found one{totalsegmentator_scan(folder), {}};
    for (const std::string& path : nifti_files(folder / "segmentations")) {
      one.masks[stem_of(path)] = path;
      names.insert(stem_of(path));
    }
    if (!one.scan.empty() || !one.masks.empty()) found[folder.filename().string()] = one;
  }
  bool old = false;
  for (const char* name : {"face", "heart_myocardium", "heart_atrium_left", "pulmonary_artery"})
    old = old || names.count(name) > 0;
  cohort.layout = old ? Layout::totalsegmentator_v1 : Layout::totalsegmentator_v2;
  for (const std::string& name : options.classes)
    require<ConfigError>(names.count(name) > 0, "totalsegmentator", "no case of ", root,
                         " has a mask of class ", name, " among its ", names.size(), " classes");
  cohort.classes =
      ClassTable::of(options.classes.empty() ? std::vector<std::string>(names.begin(), names.end())
                                             : options.classes);

  std::map<std::string, std::string> split_of_case;
  const std::string table = (std::filesystem::path(root) / "meta.csv").string();
  if (std::filesystem::exists(table)) {
    const TextTable rows = read_table(table, ';');
    const auto column = [&](const char* name) {
      const auto& head = rows.front();
      return std::size_t(std::find(head.begin(), head.end(), name) - head.begin());
    };
    require<DataError>(!rows.empty() && column("image_id") < rows.front().size(),
                       "totalsegmentator", table,
                       ": has no column image_id; are its columns separated by semicolons?");
    const std::size_t id = column("image_id"), split = column("split");
    for (std::size_t r = 1; r < rows.size(); ++r)
      if (id < rows[r].size()) {
        split_of_case[rows[r][id]] = split < rows[r].size() ? rows[r][split] : "";
        found[rows[r][id]];
      }
  }
  for (const auto& [id, one] : found) {
    CaseFiles files;
    files.info.id = files.info.patient = id;
    if (!one.scan.empty()) files.images.push_back(one.scan);
    for (Index c = 1; c < cohort.classes.size(); ++c) {
      const auto mask = one.masks.find(cohort.classes.names[std::size_t(c)]);
      if (mask == one.masks.end()) continue;
      files.labels.push_back({mask->second, c});
      files.info.annotated = files.info.annotated.with(c);
    }
    files.info.has_labels = !files.labels.empty();
    files.info.part = part_of(files.info.annotated, cohort.classes.size());
    const auto split = split_of_case.find(id);
    if (split != split_of_case.end() && split->second == "test") files.info.part = Part::test;
    if (split != split_of_case.end() && split->second == "val") files.info.part = Part::validation;
    const std::string place = (std::filesystem::path(root) / id).string();
    if (one.scan.empty())
      files.problem =
          place + (one.masks.empty() ? ": is in meta.csv but not on disk; unpack it again"
                                     : ": has labels but no ct.nii.gz");
    else if (!files.info.has_labels)
      files.remark = place + ": has no mask of the classes: an unlabelled case";
    else if (split == split_of_case.end() && !split_of_case.empty())
      files.remark = place + ": is not in meta.csv";
    cohort.files.push_back(std::move(files));
  }
  return cohort;
}

/// Writes a cohort in the layout of TotalSegmentator: every annotated class is a mask, the empty
/// ones too; validation and test cases are marked in meta.csv.
///
///   throws   FileError when the folder cannot be written
template <Cohort C>
void write_totalsegmentator(const C& cohort, const std::string& root) {
  namespace fs = std::filesystem;
  const ClassTable& classes = cohort.class_table();
  const auto make = [](const fs::path& folder) {
    std::error_code failed;
    fs::create_directories(folder, failed);
    require<FileError>(!failed, "totalsegmentator", folder.string(),
                       ": cannot be made: ", failed.message());
  };
  make(root);
  std::string table = "image_id;age;gender;institute;study_type;split\n";
  for (Index i = 0; i < cohort.size(); ++i) {
    const CaseInfo info = cohort.info(i);
    const Example& example = cohort.load(i);
    const fs::path folder = fs::path(root) / info.id;
    make(folder / "segmentations");
    write_nifti((folder / "ct.nii.gz").string(), converted<std::int16_t>(example.image));
    for (Index c = 1; c < classes.size(); ++c) {
      if (!info.annotated.has(c)) continue;
      Volume<std::uint8_t> mask = make_volume_like<std::uint8_t>(example.image);
      for (std::size_t v = 0; v < example.labels.voxels.size(); ++v)
        mask.voxels[v] = example.labels.voxels[v] == c ? 1 : 0;
      const std::string name = classes.names[std::size_t(c)] + ".nii.gz";
      write_nifti((folder / "segmentations" / name).string(), mask);
    }
    const char* split = info.part == Part::test         ? "test"
                        : info.part == Part::validation ? "val"
                                                        : "train";
    table += info.id + ";;;generated;abdomen;" + split + "\n";
  }
  FileWriter file((fs::path(root) / "meta.csv").string());
  file.write(table.data(), Index(table.size()));
  file.commit();
}

}  // namespace segmed
