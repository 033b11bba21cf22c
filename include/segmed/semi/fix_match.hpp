// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/semi/complete.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// What the student is sure of in the weak view of D_1 is the label of the strong view. Uses D_1's
/// partial labels in full: what people drew stays as it is, and only classes that nobody looked for
/// are filled in.
///
///   source   Sohn et al., 2020, arXiv:2001.07685, eq. 4, with the run's own loss in place of
///            cross-entropy. Doubtful voxels are ignored, by the probability itself; SSL4MIS
///            stretches it to [0, 1] per image, and adds a term against the least probable class
struct FixMatch {
  static constexpr Needs needs{.strong_view = true};
  float weight = 0.1f;      // of the strong view's loss after its warm-up
  float confidence = 0.8f;  // of the student, below which a voxel stays without a label

  template <class Now>
  typename Now::Value loss(Now& now) {
    if (now.partial.empty()) return {};
    const auto labels = complete(now.partial.labels, now.logits_partial(), confidence);
    return now.clock.ramp(weight) * now.criterion(now.student(now.partial.strong), labels);
  }
  static void options(auto& self, auto&& visit) {
    visit("weight", self.weight, at_least(0));
    visit("confidence", self.confidence, between(0, 1));
  }
};

}  // namespace segmed
