// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <segmed/data/decathlon.hpp>

namespace segmed {

/// The names that plain data sets give to their folders of scans and of label maps.
inline std::pair<std::string, std::string> pair_folders(const std::filesystem::path& root) {
  const auto first_of = [&](const std::vector<const char*>& names) -> std::string {
    for (const char* name : names)
      if (std::filesystem::is_directory(root / name)) return (root / name).string();
    return {};
  };
  return {first_of({"images", "image", "imgs", "scans", "volumes"}),
          first_of({"labels", "label", "masks", "segmentations", "segs", "annotations"})};
}

/// A label map's stem without the ending that tells it from its scan: case_seg is of case.
inline std::string without_label_ending(const std::string& stem) {
  for (const char* ending : {"_seg", "_label", "_labels", "_mask", "-seg", "-label", "_gt"})
    if (has_ending(stem, ending)) return stem.substr(0, stem.size() - std::string(ending).size());
  return stem;
}

/// Lists plain scans and label maps: the folders images/ and labels/ (or masks/, segmentations/),
/// or one folder in which case.nii.gz has its labels in case_seg.nii.gz (or _label, _mask, _gt).
/// A file patients.csv with lines "id,patient" says which cases are of one patient.
inline FolderCohort list_pairs(const std::string& root, const FolderOptions& options) {
  FolderCohort cohort;
  cohort.folder = root;
  cohort.layout = Layout::pairs;
  const auto [scans, maps] = pair_folders(root);
  std::vector<std::string> images, labels;
  const auto own_name = [](const std::string& stem) { return stem; };
  if (!scans.empty()) {
    images = nifti_files(scans), labels = nifti_files(maps);
  } else {
    for (const std::string& path : nifti_files(root))
      (without_label_ending(stem_of(path)) == stem_of(path) ? images : labels).push_back(path);
  }
  cohort.files = pair_files(images, labels, Part::full, own_name);
  // Label maps that carry an ending go to the scan without it.
  for (std::size_t i = 0; i < cohort.files.size(); ++i) {
    CaseFiles& one = cohort.files[i];
    const std::string stem = without_label_ending(one.info.id);
    if (!one.images.empty() || stem == one.info.id) continue;
    for (CaseFiles& other : cohort.files)
      if (other.info.id == stem && !other.images.empty() && other.labels.empty()) {
        other.labels = std::move(one.labels);
        other.remark.clear();
        one.labels.clear();
        break;
      }
  }
  cohort.filter([](const CaseFiles& one) { return !one.images.empty() || !one.labels.empty(); });
  settle_classes(cohort, {}, options);
  return cohort;
}

}  // namespace segmed
