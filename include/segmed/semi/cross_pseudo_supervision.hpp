// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/losses/entropy.hpp>
#include <segmed/semi/second_network.hpp>

namespace segmed {

/// Two networks of one kind with different starts learn the same labels, and each learns D_1 from
/// the other's hard answers. The student predicts.
///
///   source   Chen et al., 2021, arXiv:2106.01226: cross-entropy of one network with
///            the other's likeliest class, on D_1 alone as in SSL4MIS; there the two starts differ
///            in kind (He and Glorot), here in seed
///
/// Uses D_1's partial labels: both networks have the usual term of what is annotated; answers keep
/// what was drawn and propose annotated classes nowhere else.
template <Network Net>
struct CrossPseudoSupervision {
  Net second;           // see with_other_start
  float weight = 0.1f;  // of the answers after their warm-up

  template <class Now>
  typename Now::Value loss(Now& now) {
    auto then = beside(now, second);
    const auto term = segmed::supervised(then);
    if (now.partial.empty() || weight <= 0) return term;
    return term + now.clock.ramp(weight) * label_each_other(CrossEntropy{}, now, then);
  }
  static void members(auto& self, auto&& visit) { visit("second", self.second); }
};

}  // namespace segmed
