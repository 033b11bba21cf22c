// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/perturb.hpp>
#include <segmed/semi/complete.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// What the student is sure of on D_1 teaches it the same under a strong change of intensity, and
/// with half of its features dropped; where it is not sure, nothing is asked. Uses D_1's partial
/// labels: in the usual term of the labels, and here drawn voxels keep their label and annotated
/// classes appear nowhere else.
///
///   source   Yang et al., UniMatch, 2023, arXiv:2208.09910. One strong view instead of two, with
///            the weight of both, and without CutMix; the user's loss instead of cross-entropy,
///            over the voxels that have a label instead of all
struct UniMatch {
  static constexpr Needs needs{.strong_view = true};
  float weight = 1;          // of the whole term
  float strong = 0.5f;       // of the strong view
  float features = 0.5f;     // of the dropped features
  float dropout = 0.5f;      // of whole channels
  float confidence = 0.95f;  // below which a voxel has no label

  template <class Now>
  typename Now::Value loss(Now& now) {
    static_assert(
        requires { now.levels_partial(); },
        "UniMatch: the network needs `encode`, `decode`, `classify` and `branch`; see "
        "nn/network.hpp");
    if (now.partial.empty()) return {};
    const auto labels = complete(now.partial.labels, now.logits_partial(), confidence);
    const auto seen = now.student(now.partial.strong);
    const auto felt =
        now.student.classify(now.student.decode(channel_dropout(now.levels_partial(), dropout)));
    return weight * strong * now.criterion(seen, labels) +
           weight * features * now.criterion(felt, labels);
  }
};

}  // namespace segmed
