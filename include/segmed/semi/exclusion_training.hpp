// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/semi/partly_labelled.hpp>

namespace segmed {

/// Partly annotated scans by the marginal loss and the exclusion loss: classes that nobody
/// annotated count as background, and must not lie where annotated organs were drawn. Uses D_1's
/// partial labels: they are all that it adds.
///
///   source   Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ
///            segmentation, 2021, arXiv:2007.03868, eq. 4 to 9, with the weight of its scripts;
///            PLS4MIS takes 0.1. Deviations are those of Marginal and Exclusion: probabilities
///            merged instead of logits, annotated classes and background left out of the
///            exclusion; the annotated set is given, not guessed from the labels that occur
struct ExclusionTraining {
  static constexpr bool partial_labels = true;
  float exclusion = 2;  // weight of the exclusion loss beside the marginal loss

  template <class Now>
  typename Now::Value supervised(Now& now) {
    return labelled_marginally(now, exclusion);
  }
  template <class Now>
  typename Now::Value loss(Now&) {
    return {};
  }
  static void options(auto& self, auto&& visit) { visit("exclusion", self.exclusion, at_least(0)); }
};

}  // namespace segmed
