// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <segmed/data/decathlon.hpp>
#include <segmed/data/pairs.hpp>
#include <segmed/data/totalsegmentator.hpp>

namespace segmed {

/// Takes the patients' names from a table "id,patient" (or with semicolons) in the data set.
inline void apply_patients(FolderCohort& cohort) {
  const std::string path = (std::filesystem::path(cohort.folder) / "patients.csv").string();
  if (!std::filesystem::exists(path)) return;
  std::map<std::string, std::string> patient_of;
  for (const char separator : {',', ';'})
    for (const auto& row : read_table(path, separator))
      if (row.size() >= 2) patient_of[row[0]] = row[1];
  for (CaseFiles& one : cohort.files) {
    const auto found = patient_of.find(one.info.id);
    if (found != patient_of.end()) one.info.patient = found->second;
  }
}

/// Opens a data set, whatever its layout: TotalSegmentator (v1, v2), Medical Segmentation
/// Decathlon, nnU-Net, or plain folders of scans and label maps. A folder that holds nothing but
/// the data set's folder will do. No voxel is read but where the classes have no names.
///
///   throws   FileError when there is no such folder or no scan in it, ConfigError for a class that
///            the data set does not have
inline FolderCohort open_folder(const std::string& folder, const FolderOptions& options = {}) {
  namespace fs = std::filesystem;
  require<FileError>(fs::is_directory(folder), "data", folder, ": is no folder");
  const auto known = [](const fs::path& root) {
    return is_totalsegmentator(root) || fs::is_directory(root / "imagesTr") ||
           !pair_folders(root).first.empty() || !nifti_files(root).empty();
  };
  fs::path root = folder;
  for (int depth = 0; depth < 3 && !known(root) && folders_in(root).size() == 1; ++depth)
    root = folders_in(root).front();
  FolderCohort cohort = is_totalsegmentator(root) ? list_totalsegmentator(root.string(), options)
                        : fs::is_directory(root / "imagesTr")
                            ? list_decathlon(root.string(), options)
                            : list_pairs(root.string(), options);
  require<FileError>(!cohort.files.empty(), "data", folder,
                     ": holds no scan; expected <case>/ct.nii.gz with segmentations/, imagesTr/ "
                     "with labelsTr/, or images/ with labels/");
  apply_patients(cohort);
  if (!options.annotated_file.empty()) apply_annotated_file(cohort, options.annotated_file);
  return cohort;
}

/// The cases that a file of ids names, in a cohort of their own.
///
///   throws   DataError for an id that is not there
inline FolderCohort chosen_cases(FolderCohort cohort, const std::vector<std::string>& ids) {
  std::vector<CaseFiles> files;
  for (const std::string& id : ids) {
    const auto found = std::find_if(cohort.files.begin(), cohort.files.end(),
                                    [&](const CaseFiles& one) { return one.info.id == id; });
    require<DataError>(found != cohort.files.end(), "cases", "case ", id, " is not in ",
                       cohort.folder);
    files.push_back(*found);
  }
  cohort.files = std::move(files);
  return cohort;
}

}  // namespace segmed
