// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <segmed/backend/parallel.hpp>
#include <segmed/core/json.hpp>
#include <segmed/data/folder.hpp>

namespace segmed {

/// What came of looking at a case.
enum class Verdict { ok, warn, quarantined };

inline const char* name_of(Verdict verdict) {
  constexpr const char* names[] = {"ok", "warn", "quarantined"};
  return names[std::size_t(verdict)];
}

/// A case's verdict with its reasons: file, field, value, remedy.
struct CaseReport {
  std::string id;
  Verdict verdict = Verdict::ok;
  std::vector<std::string> reasons;
  std::uint64_t hash = 0;  // of the scan's voxels; 0 for a quarantined case
};

/// A number that two scans share when their voxels are the same.
inline std::uint64_t hash_of(const Volume<float>& image) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  const auto add = [&](std::uint64_t word) {
    hash = (hash ^ word) * 0x100000001B3u;
    hash ^= hash >> 29;
  };
  for (const Index n : image.extent) add(std::uint64_t(n));
  for (const float value : image.voxels) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    add(bits);
  }
  return hash == 0 ? 1 : hash;
}

/// Reads every case and judges it. Cases that cannot be used are quarantined: unreadable,
/// truncated, damaged, on another grid than their labels, empty, without a finite voxel, or with
/// labels that no class names. Scans that are there twice are warned of.
inline std::vector<CaseReport> inspect(const FolderCohort& cohort) {
  std::vector<CaseReport> reports(static_cast<std::size_t>(cohort.size()));
  parallel_for(cohort.size(), 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      CaseReport& report = reports[std::size_t(i)];
      const CaseFiles& files = cohort.files[std::size_t(i)];
      report.id = files.info.id;
      try {
        const Example example = cohort.load(i, &report.reasons);
        if (!files.remark.empty()) report.reasons.push_back(files.remark);
        report.hash = hash_of(example.image);
        const auto& labels = example.labels.voxels;
        if (!labels.empty() && std::all_of(labels.begin(), labels.end(),
                                           [](std::uint8_t label) { return label == 0; }))
          report.reasons.push_back(files.labels.front().path +
                                   ": no voxel belongs to any annotated class");
        if (!report.reasons.empty()) report.verdict = Verdict::warn;
      } catch (const Error& error) {
        report.verdict = Verdict::quarantined;
        report.reasons.push_back(error.what());
      }
    }
  });
  std::map<std::uint64_t, std::vector<std::size_t>> same;
  for (std::size_t i = 0; i < reports.size(); ++i)
    if (reports[i].hash != 0) same[reports[i].hash].push_back(i);
  for (const auto& [hash, twins] : same)
    for (const std::size_t i : twins)
      for (const std::size_t other : twins)
        if (i != other) {
          reports[i].verdict = Verdict::warn;
          reports[i].reasons.push_back(cohort.files[i].images.front() +
                                       ": has the same voxels as case " + reports[other].id +
                                       "; keep both on one side of every split");
        }
  return reports;
}

/// The cohort without the cases that were quarantined.
inline FolderCohort usable(FolderCohort cohort, const std::vector<CaseReport>& reports) {
  cohort.filter([&](const CaseFiles& files) {
    return std::none_of(reports.begin(), reports.end(), [&](const CaseReport& report) {
      return report.verdict == Verdict::quarantined && report.id == files.info.id;
    });
  });
  return cohort;
}

/// {"layout", "cases": [{"id", "verdict", "reasons": [...]}]}.
inline Json to_json(const std::vector<CaseReport>& reports, Layout layout) {
  Json json;
  json["layout"] = name_of(layout);
  json["cases"] = Json::Array{};
  for (const CaseReport& report : reports) {
    Json entry;
    entry["id"] = report.id;
    entry["verdict"] = name_of(report.verdict);
    entry["reasons"] = Json::list(report.reasons);
    json["cases"].push_back(entry);
  }
  return json;
}

}  // namespace segmed
