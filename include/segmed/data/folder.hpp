// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <segmed/data/example.hpp>
#include <segmed/data/hide.hpp>
#include <segmed/image/nifti.hpp>
#include <segmed/image/orient.hpp>

namespace segmed {

/// How a data set lies on disk.
enum class Layout { totalsegmentator_v1, totalsegmentator_v2, decathlon, nnunet, pairs };

/// The layout's name in JSON.
inline const char* name_of(Layout layout) {
  constexpr const char* names[] = {"totalsegmentator_v1", "totalsegmentator_v2", "decathlon",
                                   "nnunet", "pairs"};
  return names[std::size_t(layout)];
}

/// What the user says about a data set.
struct FolderOptions {
  std::vector<std::string> classes = {};  // the ones to use, in this order; empty: all
  std::vector<std::string> class_names =
      {};                           // names of the values 1, 2, ... where no file has them
  std::string annotated_file = {};  // lines "id: class class": what is annotated in each case
};

/// A file with labels: a map of class numbers, or the mask of one class.
struct LabelFile {
  std::string path;
  Index mask_of = -1;  // the class, or -1 for a map
};

/// Where a case lies on disk.
struct CaseFiles {
  CaseInfo info;
  std::vector<std::string> images;  // one file, or one for each channel
  std::vector<LabelFile> labels;
  std::string problem;  // why the case cannot be used, seen from the file names alone
  std::string remark;   // what is odd about it
};

/// A data set in a folder, of any layout. Voxels are read when they are asked for, and nothing is
/// ever written to it.
struct FolderCohort {
  Layout layout = Layout::pairs;
  std::string folder;
  ClassTable classes;
  std::array<int, 256> class_of{};  // of a label map's value; -1 for a value that no class has
  std::vector<CaseFiles> files;

  const ClassTable& class_table() const { return classes; }
  Index size() const { return Index(files.size()); }
  CaseInfo info(Index i) const { return files.at(std::size_t(i)).info; }
  /// Reads a case and checks it.
  ///
  ///   throws   FileError for a file that is no sound NIfTI, DataError for what does not fit
  ///            together: grids, values, names, a scan without content
  Example load(Index i, std::vector<std::string>* warnings = nullptr) const;
  /// Keeps the cases for which keep(files) is true.
  template <class Keep>
  void filter(const Keep& keep) {
    files.erase(std::remove_if(files.begin(), files.end(),
                               [&](const CaseFiles& one) { return !keep(one); }),
                files.end());
  }
};

/// A file's name without folder and without .nii, .nii.gz, .hdr, .img.
inline std::string stem_of(const std::string& path) {
  std::string name = std::filesystem::path(path).filename().string();
  for (const char* ending : {".gz", ".nii", ".hdr", ".img"})
    if (has_ending(name, ending)) name.resize(name.size() - std::string(ending).size());
  return name;
}
/// True for the name of a NIfTI image, of which a pair counts once; ._files of macOS are none.
inline bool is_nifti_name(const std::string& path) {
  const std::string name = std::filesystem::path(path).filename().string();
  if (name.empty() || name[0] == '.') return false;
  for (const char* ending : {".nii", ".nii.gz", ".hdr", ".hdr.gz"})
    if (has_ending(name, ending)) return true;
  return false;
}
/// The NIfTI images of a folder, sorted by name; empty where there is no such folder.
inline std::vector<std::string> nifti_files(const std::filesystem::path& folder) {
  std::vector<std::string> found;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none))
    if (is_nifti_name(entry.path().string()) && !entry.is_directory(none))
      found.push_back(entry.path().string());
  std::sort(found.begin(), found.end());
  return found;
}
/// The folders in a folder, sorted by name, without hidden ones.
inline std::vector<std::filesystem::path> folders_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> found;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none))
    if (entry.is_directory(none) && entry.path().filename().string()[0] != '.')
      found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

/// Reads a list of case ids: one a line, with or without a file's ending; # begins a remark.
inline std::vector<std::string> read_ids(const std::string& path) {
  std::ifstream file(path);
  require<FileError>(file.good(), "cases", path, ": cannot be read");
  std::vector<std::string> ids;
  for (std::string line; std::getline(file, line);) {
    line = line.substr(0, line.find('#'));
    const std::size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string::npos) continue;
    ids.push_back(stem_of(line.substr(begin, line.find_last_not_of(" \t\r") + 1 - begin)));
  }
  require<DataError>(!ids.empty(), "cases", path, ": names no case");
  return ids;
}

/// Puts a label volume on a scan's grid: as it is, or turned where it only runs along other axes.
///
///   throws   DataError when it lies elsewhere
template <class T>
Volume<T> on_grid_of(const Volume<float>& image, Volume<T> labels, const std::string& path,
                     std::vector<std::string>& warnings) {
  const double voxel = image.spacing().minCoeff();
  const auto off = [&] { return image.geometry.distance(labels.geometry, image.extent); };
  if (labels.extent != image.extent || off() > 0.5 * voxel) {
    const std::string own = labels.geometry.orientation(), wanted = image.geometry.orientation();
    if (own != wanted) {
      labels = reorient(labels, wanted);
      if (labels.extent == image.extent && off() <= 0.5 * voxel)
        warnings.push_back(path + ": runs along " + own + ", its scan along " + wanted +
                           "; it was turned");
    }
  }
  require<DataError>(labels.extent == image.extent, "case", path, ": extent ", labels.extent[0],
                     "x", labels.extent[1], "x", labels.extent[2], " where its scan has ",
                     image.extent[0], "x", image.extent[1], "x", image.extent[2],
                     "; resample it onto the scan's grid");
  const double distance = off();
  require<DataError>(distance <= 0.5 * voxel, "case", path, ": affine puts a corner ", distance,
                     " mm from its scan's corner; resample it onto the scan's grid");
  if (distance > 0.01 * voxel) {
    char text[96];
    std::snprintf(text, sizeof text, ": affine differs from its scan's by %.3g mm; ignored",
                  distance);
    warnings.push_back(path + text);
  }
  labels.geometry = image.geometry;
  return labels;
}

/// Reads a scan from one file, or from one for each channel.
inline Volume<float> read_scan(const std::vector<std::string>& paths,
                               std::vector<std::string>& warnings) {
  const auto read = [&](const std::string& path) {
    std::vector<std::string> said;
    Volume<float> volume = read_nifti<float>(path, {}, &said);
    for (const std::string& line : said) warnings.push_back(path + ": " + line);
    return volume;
  };
  Volume<float> image = read(paths.front());
  if (paths.size() > 1) {
    const Index channels = Index(paths.size());
    Volume<float> joined = make_volume_like<float>(image, channels);
    for (Index c = 0; c < channels; ++c) {
      const std::string& path = paths[std::size_t(c)];
      const Volume<float> one = c == 0 ? image : on_grid_of(image, read(path), path, warnings);
      require<DataError>(one.channels == 1, "case", path, ": holds ", one.channels,
                         " channels where one file a channel is expected");
      for (Index v = 0; v < one.size(); ++v)
        joined.voxels[std::size_t(v * channels + c)] = one.voxels[std::size_t(v)];
    }
    image = std::move(joined);
  }
  for (Index c = 0; c < image.channels; ++c) {
    Index finite = 0;
    bool constant = true;
    float first = 0;
    for (Index v = 0; v < image.grid_size(); ++v) {
      const float value = image.voxels[std::size_t(v * image.channels + c)];
      if (!std::isfinite(value)) continue;
      if (finite++ == 0) first = value;
      constant = constant && value == first;
    }
    const std::string& path = paths[paths.size() > 1 ? std::size_t(c) : 0];
    require<DataError>(finite > 0, "case", path, ": no voxel of channel ", c,
                       " is finite; export the scan again");
    require<DataError>(!constant, "case", path, ": every voxel of channel ", c, " is ", first,
                       ": the scan is empty; export it again");
  }
  return image;
}

inline Example FolderCohort::load(Index i, std::vector<std::string>* said) const {
  require<DataError>(i >= 0 && i < size(), "cohort", "case ", i, " of ", size());
  const CaseFiles& own = files[std::size_t(i)];
  require<DataError>(own.problem.empty(), "case", own.problem);
  std::vector<std::string> warnings;
  Example example{own.info.id, own.info.patient, read_scan(own.images, warnings), {}, {}};
  if (!own.labels.empty()) {
    example.labels = make_volume_like<std::uint8_t>(example.image);
    example.annotated = own.info.annotated;
  }
  Index overlap = 0;
  for (const LabelFile& file : own.labels) {
    std::vector<std::string> lines;
    Volume<std::uint8_t> values = read_labels(file.path, {}, &lines);
    for (const std::string& line : lines) warnings.push_back(file.path + ": " + line);
    values = on_grid_of(example.image, std::move(values), file.path, warnings);
    if (file.mask_of >= 0) {
      std::uint8_t full = 0;
      for (std::size_t v = 0; v < values.voxels.size(); ++v) {
        const std::uint8_t value = values.voxels[v];
        if (value == 0) continue;
        if (full == 0) full = value;
        require<DataError>(value == full && (full == 1 || full == 255), "case", file.path,
                           ": holds the value ", int(value),
                           " where a mask has 0 and 1; is it a label map?");
        overlap += example.labels.voxels[v] != 0 ? 1 : 0;
        example.labels.voxels[v] = std::uint8_t(file.mask_of);
      }
      continue;
    }
    for (std::size_t v = 0; v < values.voxels.size(); ++v) {
      const int found = class_of[values.voxels[v]];
      require<DataError>(found >= 0, "case", file.path, ": holds the label ", int(values.voxels[v]),
                         ", which no class names (", classes.size() - 1,
                         " classes); name it or correct the file");
      example.labels.voxels[v] =
          found == ignored || example.annotated.has(found) ? std::uint8_t(found) : std::uint8_t(0);
    }
  }
  if (overlap > 0)
    warnings.push_back("case " + example.id + ": " + std::to_string(overlap) +
                       " voxels are in two masks; the later class has them");
  if (said) said->insert(said->end(), warnings.begin(), warnings.end());
  return example;
}

/// Applies a file that states what is annotated in each case: the labels of other classes are not
/// used. Cases that it does not name stay as they are.
///
///   throws   DataError for a case that is not there or a class that it has no labels of
inline void apply_annotated_file(FolderCohort& cohort, const std::string& path) {
  for (const ClassList& list : read_class_lists(path, cohort.classes)) {
    const auto own = std::find_if(cohort.files.begin(), cohort.files.end(),
                                  [&](const CaseFiles& one) { return one.info.id == list.name; });
    require<DataError>(own != cohort.files.end(), "class lists", path, ": case ", list.name,
                       " is not in ", cohort.folder);
    for (Index c = 1; c < cohort.classes.size(); ++c) {
      if (list.annotated.has(c)) {
        require<DataError>(own->info.annotated.has(c), "class lists", path, ": case ", list.name,
                           " has no labels of ", cohort.classes.names[std::size_t(c)]);
        continue;
      }
      own->info.annotated = own->info.annotated.without(c);
      own->labels.erase(std::remove_if(own->labels.begin(), own->labels.end(),
                                       [&](const LabelFile& file) { return file.mask_of == c; }),
                        own->labels.end());
    }
    if (own->info.annotated.none()) own->labels.clear();
    own->info.has_labels = !own->labels.empty();
    if (own->info.part != Part::test && own->info.part != Part::validation)
      own->info.part = part_of(own->info.annotated, cohort.classes.size());
  }
}

}  // namespace segmed
