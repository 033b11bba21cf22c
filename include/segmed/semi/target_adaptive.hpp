// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/losses/entropy.hpp>
#include <segmed/semi/partly_labelled.hpp>

namespace segmed {

/// Partly annotated scans by the likelihood of their labels alone, where background stands for all
/// classes that nobody annotated; fully annotated scans by the user's loss. Uses D_1's partial
/// labels: they are all that it adds.
///
///   source   Fang & Yan, Multi-organ segmentation over partially labeled datasets with
///            multi-scale feature abstraction, 2020, arXiv:2001.00208; the logarithm of the merged
///            probability is exact, where PLS4MIS bounds it from below by log(1e-10); D_0 by the
///            user's loss
struct TargetAdaptive {
  static constexpr bool partial_labels = true;

  template <class Now>
  typename Now::Value supervised(Now& now) {
    return labelled_with(Marginal{CrossEntropy{}}, now);
  }
  template <class Now>
  typename Now::Value loss(Now&) {
    return {};
  }
};

}  // namespace segmed
