// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/leaf_dice.hpp>
#include <segmed/semi/partly_labelled.hpp>

namespace segmed {

/// Partly annotated scans by the leaf Dice and the marginal cross-entropy of their labels; fully
/// annotated scans by the user's loss. Uses D_1's partial labels: they are all that it adds.
///
///   source   Fidon et al., Label-set loss functions for partial supervision, 2021,
///            arXiv:2107.03846; there fully annotated scans take the same loss
struct LeafDiceTraining {
  static constexpr bool partial_labels = true;
  float entropy = 1;  // weight of the marginal cross-entropy beside the leaf Dice

  template <class Now>
  typename Now::Value supervised(Now& now) {
    return labelled_with(Sum{LeafDice{}, Weighted{entropy, Marginal{CrossEntropy{}}}}, now);
  }
  template <class Now>
  typename Now::Value loss(Now&) {
    return {};
  }
  static void options(auto& self, auto&& visit) { visit("entropy", self.entropy, at_least(0)); }
};

}  // namespace segmed
