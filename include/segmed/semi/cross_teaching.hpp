// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/losses/region.hpp>
#include <segmed/semi/second_network.hpp>

namespace segmed {

/// Two networks of different architecture learn the same labels, and each learns D_1 from the
/// other's hard answers by their overlap. The student predicts.
///
///   source   Luo et al., 2022, arXiv:2112.04894: Dice with the other's likeliest
///            class, on D_1 alone; there a convolutional network and a transformer. Dice has its
///            defaults here: no background, no squares
///
/// Uses D_1's partial labels: both networks have the usual term of what is annotated; answers keep
/// what was drawn and propose annotated classes nowhere else.
template <Network Net, Network Other = Net>
struct CrossTeaching {
  static_assert(std::same_as<typename Net::Features, typename Other::Features>,
                "CrossTeaching: both networks need the same Features; see semi/cross_teaching.hpp");
  Other second;         // deep enough in another way to err in other places
  float weight = 0.1f;  // of the answers after their warm-up

  template <class Now>
  typename Now::Value loss(Now& now) {
    auto then = beside(now, second);
    const auto term = segmed::supervised(then);
    if (now.partial.empty() || weight <= 0) return term;
    return term + now.clock.ramp(weight) * label_each_other(Dice{}, now, then);
  }
  static void members(auto& self, auto&& visit) { visit("second", self.second); }
};

}  // namespace segmed
