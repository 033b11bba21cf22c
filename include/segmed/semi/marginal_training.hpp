// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/semi/partly_labelled.hpp>

namespace segmed {

/// Partly annotated scans by the marginal loss and nothing else: classes that nobody annotated in a
/// scan of D_1 count as its background. Uses D_1's partial labels: they are all that it adds.
///
///   source   Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ
///            segmentation, 2021, arXiv:2007.03868, eq. 4 to 6; the user's loss in the place of
///            Dice and cross-entropy, probabilities merged instead of logits; D_1 at the finest
///            resolution unless the user's loss takes partial labels itself
struct MarginalTraining {
  static constexpr bool replays = true, partial_labels = true;

  template <class Now>
  typename Now::Value supervised(Now& now) {
    return labelled_marginally(now);
  }
  template <class Now>
  typename Now::Value loss(Now&) {
    return {};
  }
};

}  // namespace segmed
