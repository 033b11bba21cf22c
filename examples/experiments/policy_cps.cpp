// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/cross_pseudo_supervision.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry cps;
constinit const PolicyEntry cps =
    policy("cps", "two networks label D_1 for each other", [](const auto& net, const Start& start) {
      return segmed::CrossPseudoSupervision<Of<decltype(net)>>{
          segmed::with_other_start(net, start.seed + 1)};
    });

}  // namespace experiments::ON_DEVICE
