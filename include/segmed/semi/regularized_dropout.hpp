// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/losses/consistency.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// Two predictions of D_1 by one network, each with other channels of its features dropped, agree.
/// Uses D_1's partial labels: in the usual term of the labels.
///
///   source   Liang et al., R-Drop, 2021, arXiv:2106.14448. Channels are dropped where the decoder
///            reads the encoder, so that this runs once; the labels teach the prediction without
///            dropout, not both; the term is asked of D_1 alone, as in SSL4MIS, but of the classes
///            of one network: there it is the softmax over an image axis of two networks
struct RegularizedDropout {
  float weight = 4;      // of the term after its warm-up; 0: no term
  float dropout = 0.3f;  // of whole channels

  template <class Now>
  typename Now::Value loss(Now& now) {
    using F = typename Now::F;
    static_assert(
        requires { now.levels_partial(); },
        "RegularizedDropout: the network needs `encode`, `decode`, `classify` and "
        "`branch`; see nn/network.hpp");
    if (now.partial.empty() || weight <= 0) return {};
    std::vector<F> predictions;
    for (int i = 0; i < 2; ++i) predictions.push_back(now.spoilt_partial(dropout));
    return now.clock.ramp(weight) * agreement(SymmetricDivergence{}, predictions);
  }
  static void options(auto& self, auto&& visit) {
    visit("weight", self.weight, at_least(0));
    visit("dropout", self.dropout, half_open(0, 1));
  }
};

}  // namespace segmed
