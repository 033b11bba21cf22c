// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/losses/entropy.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// The student makes up its mind on D_1: the entropy of its probabilities falls. Uses D_1's partial
/// labels by the usual term of the labels alone.
///
///   source   Grandvalet & Bengio, 2004; Vu et al., ADVENT, 2019, arXiv:1811.12833;
///            over the logarithm of the number of classes that there are, and on D_1 only, because
///            on D_0 the labels already say what to be sure of
struct EntropyMinimization {
  float weight = 0.1f;  // after its warm-up

  template <class Now>
  typename Now::Value loss(Now& now) {
    if (now.partial.empty()) return {};
    const auto& logits = now.logits_partial();
    const auto labels = blank_labels<typename Now::F::device>(logits.grid());
    return now.clock.ramp(weight) * now.criterion_with(Entropy{}, logits, labels);
  }
  static void options(auto& self, auto&& visit) { visit("weight", self.weight, at_least(0)); }
};

}  // namespace segmed
