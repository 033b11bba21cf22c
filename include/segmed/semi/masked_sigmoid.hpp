// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/partial.hpp>
#include <segmed/losses/region.hpp>
#include <segmed/semi/partly_labelled.hpp>

namespace segmed {

/// Every class by itself, through the sigmoid of its logit: Dice and binary cross-entropy over the
/// classes that are annotated in a scan, and nothing of the others. Takes the place of the user's
/// loss on D_0 and D_1. Uses D_1's partial labels: they are all that it adds.
///
/// Background is a class with a logit of its own, so that the largest logit is the prediction. It
/// learns from fully annotated scans only, because a background label of others is unknown, and by
/// cross-entropy only. A network whose background logit is constant at 0 predicts a class where its
/// probability exceeds one half; it does without `background`.
///
///   source   Ulrich et al., MultiTalent, 2023, arXiv:2303.14444; the mean of Dice
///            over classes instead of their sum, each scan by itself instead of the batch, at the
///            finest resolution, and a background class instead of a threshold of one half
struct MaskedSigmoid {
  static constexpr bool partial_labels = true;
  float entropy = 1;       // weight of the binary cross-entropy beside the Dice
  bool background = true;  // whether background has a logit that learns

  template <class Now>
  typename Now::Value supervised(Now& now) {
    const Sum loss{Independent{Dice{}},
                   Weighted{entropy, BinaryCrossEntropy{.include_background = background}}};
    const auto term = now.criterion_with(loss, now.logits_full(), now.full.labels);
    if (!any_annotated(now.partial)) return term;
    return term + now.criterion_with(loss, now.logits_partial(), now.partial.labels);
  }
  template <class Now>
  typename Now::Value loss(Now&) {
    return {};
  }
  static void options(auto& self, auto&& visit) {
    visit("entropy", self.entropy, at_least(0));
    visit("background", self.background);
  }
};

}  // namespace segmed
