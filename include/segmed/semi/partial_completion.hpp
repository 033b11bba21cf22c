// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/semi/complete.hpp>
#include <segmed/semi/mean_teacher.hpp>
#include <segmed/semi/partly_labelled.hpp>

namespace segmed {

/// Partly annotated scans, used in full: where classes were annotated, the marginal loss and the
/// exclusion of the others; where they were not, the confident answers of a slow average of the
/// student.
///
///   source   marginal and exclusion loss: Shi et al., 2021, arXiv:2007.03868, with probabilities
///            merged instead of logits; completion: Tarvainen & Valpola, 2017, arXiv:1703.01780,
///            and Sohn et al., FixMatch, 2020, arXiv:2001.07685, doubtful voxels ignored
template <Network Net>
struct PartialCompletion {
  Frozen<Net> teacher;
  float keep = 0.99f;       // of the teacher, per step
  float weight = 0.1f;      // of the completed labels after their warm-up
  float exclusion = 0.1f;   // of the exclusion term
  float after = 0.5f;       // the fraction of the budget from which the teacher is asked
  float confidence = 0.9f;  // of the teacher, below which a voxel stays without a label

  template <class Now>
  typename Now::Value supervised(Now& now) {
    if constexpr (user_takes_partial_labels<Now>())
      return labelled_marginally(now);
    else
      return labelled_marginally(now, exclusion);
  }
  template <class Now>
  typename Now::Value loss(Now& now) {
    if (now.partial.empty() || weight <= 0 || now.clock.host().progress < after) return {};
    const auto answer = evaluating([&] { return teacher(now.partial.image); });
    const auto labels = complete(now.partial.labels, answer, confidence);
    return now.clock.ramp(weight) * now.criterion(now.logits_partial(), labels);
  }
  void after_step(auto& now) {
    ema(teacher, now.student, MeanTeacher<Net>::average_keep(keep, now.clock.host().step));
  }
  static void members(auto& self, auto&& visit) { visit("teacher", self.teacher); }
};

}  // namespace segmed
