// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <segmed/core/json.hpp>
#include <segmed/data/folder.hpp>

namespace segmed {

/// What the values of a data set's label maps mean.
struct LabelValues {
  std::vector<std::pair<int, std::string>> names;  // without background, by value
  int ignore = -1;                                 // the value of voxels without a label
};

/// Which values label maps hold: for each value, in how many maps it is. Maps that cannot be read
/// count for nothing here; loading them says why.
inline std::array<Index, 256> count_label_values(const std::vector<CaseFiles>& files) {
  std::array<std::atomic<Index>, 256> count{};
  parallel_for(Index(files.size()), 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i)
      for (const LabelFile& file : files[std::size_t(i)].labels) try {
          std::array<bool, 256> seen{};
          for (const std::uint8_t value : read_labels(file.path).voxels) seen[value] = true;
          for (std::size_t v = 0; v < 256; ++v)
            if (seen[v]) ++count[v];
        } catch (const Error&) {
        }
  });
  std::array<Index, 256> counted{};
  for (std::size_t v = 0; v < 256; ++v) counted[v] = count[v];
  return counted;
}

/// Settles the classes of a data set of label maps and sets what its cases annotate. Names come
/// from `known`, else from --class-names for the values 1, 2, ..., else they are class_1, class_2,
/// ... up to the largest value that is no outlier: it is in two maps at least when there are five.
inline void settle_classes(FolderCohort& cohort, LabelValues known, const FolderOptions& options) {
  if (!options.class_names.empty()) {
    known.names.clear();
    for (const std::string& name : options.class_names)
      known.names.emplace_back(int(known.names.size()) + 1, name);
  }
  if (known.names.empty()) {
    const auto count = count_label_values(cohort.files);
    Index maps = 0, largest = 0;
    for (const CaseFiles& one : cohort.files) maps += Index(one.labels.size());
    for (Index v = 1; v < 255; ++v)
      if (count[std::size_t(v)] >= (maps >= 5 ? 2 : 1)) largest = v;
    for (Index v = 1; v <= largest; ++v)
      known.names.emplace_back(int(v), "class_" + std::to_string(v));
  }
  std::vector<std::string> names = options.classes;
  if (names.empty())
    for (const auto& [value, name] : known.names) names.push_back(name);
  cohort.classes = ClassTable::of(names);
  cohort.class_of.fill(-1);
  cohort.class_of[0] = 0;
  std::string all;
  for (const auto& [value, name] : known.names) {
    cohort.class_of[std::size_t(value)] = int(std::max<Index>(0, cohort.classes.find(name)));
    all += (all.empty() ? "" : ", ") + name;
  }
  if (known.ignore >= 0) cohort.class_of[std::size_t(known.ignore)] = ignored;
  for (const std::string& name : options.classes)
    require<ConfigError>(std::any_of(known.names.begin(), known.names.end(),
                                     [&](const auto& one) { return one.second == name; }),
                         "classes", cohort.folder, " has no class ", name, "; it has ", all);
  for (CaseFiles& one : cohort.files) {
    one.info.has_labels = !one.labels.empty();
    if (one.info.has_labels) one.info.annotated = cohort.classes.all();
    if (one.info.part != Part::test)
      one.info.part = part_of(one.info.annotated, cohort.classes.size());
  }
}

/// Joins scans and label maps of the same name into cases.
///
///   names    `case_of` turns a scan's stem into a case id; several scans of one id are channels
template <class CaseOf>
std::vector<CaseFiles> pair_files(const std::vector<std::string>& scans,
                                  const std::vector<std::string>& maps, Part part,
                                  const CaseOf& case_of) {
  std::map<std::string, CaseFiles> cases;
  for (const std::string& path : scans) cases[case_of(stem_of(path))].images.push_back(path);
  for (const std::string& path : maps) {
    CaseFiles& one = cases[stem_of(path)];
    if (!one.labels.empty() && one.problem.empty())
      one.problem = path + ": is a second label map of the same name; keep one of them";
    one.labels.push_back({path, -1});
  }
  std::vector<CaseFiles> files;
  for (auto& [id, one] : cases) {
    one.info.id = one.info.patient = id;
    one.info.part = part;
    if (one.images.empty())
      one.problem = one.labels.front().path + ": is a label map without a scan of the name " + id +
                    "; add the scan or remove the labels";
    else if (one.labels.empty() && part != Part::test)
      one.remark = one.images.front() + ": has no label map: an unlabelled case";
    files.push_back(std::move(one));
  }
  return files;
}

/// The values of dataset.json: MSD has {"0": "background", "1": NAME}, nnU-Net {"background": 0,
/// NAME: 1} and perhaps "ignore".
///
///   throws   DataError for entries that are neither
inline LabelValues label_values_of(const Json& labels, const std::string& path) {
  LabelValues values;
  for (const auto& [name, value] : labels.as_object()) {
    require<DataError>(!value.is_array(), "decathlon", path, ": label ", name,
                       " is a region of several values, which is not supported");
    const bool msd = value.is_string();
    std::string label = msd ? value.as_string() : name;
    double number = -1;
    if (msd) {
      char* end = nullptr;
      number = std::strtod(name.c_str(), &end);
      if (name.empty() || *end != 0) number = -1;
    } else if (value.is_number()) {
      number = value.as_number();
    }
    require<DataError>(number >= 0 && number <= 255 && number == std::floor(number), "decathlon",
                       path, ": label ", name, " has no value from 0 to 255");
    if (!msd && label == "ignore")
      values.ignore = int(number);
    else if (number > 0)
      values.names.emplace_back(int(number), label);
  }
  std::sort(values.names.begin(), values.names.end());
  return values;
}

/// Lists a data set of the Medical Segmentation Decathlon or of nnU-Net: imagesTr, labelsTr,
/// imagesTs (a test split, with labelsTs where there is one), and dataset.json, which may be
/// missing. The channels of MSD are volumes of a 4-D file, those of nnU-Net files with _0000,
/// _0001, ... at the end of their names.
inline FolderCohort list_decathlon(const std::string& root, const FolderOptions& options) {
  namespace fs = std::filesystem;
  FolderCohort cohort;
  cohort.folder = root;
  cohort.layout = Layout::decathlon;
  const fs::path base = root;
  const std::string about = (base / "dataset.json").string();
  const bool described = fs::exists(about);
  const Json json = described ? read_json(about) : Json();

  const auto scans = nifti_files(base / "imagesTr");
  const auto numbered = [](const std::string& stem) {
    const std::size_t n = stem.size();
    return n > 5 && stem[n - 5] == '_' &&
           std::all_of(stem.end() - 4, stem.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  const auto maps = nifti_files(base / "labelsTr");
  const auto has_map = [&](const std::string& stem) {
    return std::any_of(maps.begin(), maps.end(),
                       [&](const std::string& path) { return stem_of(path) == stem; });
  };
  if (described && json.has("channel_names")) {
    cohort.layout = Layout::nnunet;
  } else if (!scans.empty()) {
    cohort.layout = Layout::nnunet;
    for (const std::string& path : scans)
      if (!numbered(stem_of(path)) || has_map(stem_of(path))) cohort.layout = Layout::decathlon;
  }
  const auto case_of = [&](const std::string& stem) {
    return cohort.layout == Layout::nnunet && numbered(stem) ? stem.substr(0, stem.size() - 5)
                                                             : stem;
  };
  cohort.files = pair_files(scans, maps, Part::full, case_of);
  for (CaseFiles& one : pair_files(nifti_files(base / "imagesTs"), nifti_files(base / "labelsTs"),
                                   Part::test, case_of)) {
    const bool twice =
        std::any_of(cohort.files.begin(), cohort.files.end(),
                    [&](const CaseFiles& other) { return other.info.id == one.info.id; });
    if (twice) one.info.id += "_test";
    cohort.files.push_back(std::move(one));
  }
  if (described && json.has("training") && json.at("training").is_array())
    for (const Json& entry : json.at("training").as_array()) {
      const Json* image = entry.find("image");
      if (!image || !image->is_string()) continue;
      const std::string id = stem_of(image->as_string());
      const bool there =
          std::any_of(cohort.files.begin(), cohort.files.end(),
                      [&](const CaseFiles& one) { return one.info.id == case_of(id); });
      if (there || id.empty() || id[0] == '.') continue;
      CaseFiles missing;
      missing.info.id = missing.info.patient = id;
      missing.problem = (base / image->as_string()).lexically_normal().string() +
                        ": is listed in dataset.json but not on disk; unpack it again";
      cohort.files.push_back(missing);
    }
  LabelValues known;
  if (described && json.has("labels")) known = label_values_of(json.at("labels"), about);
  settle_classes(cohort, known, options);
  return cohort;
}

}  // namespace segmed
