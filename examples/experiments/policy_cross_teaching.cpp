// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/cross_teaching.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry cross_teaching;
constinit const PolicyEntry cross_teaching = policy(
    "cross_teaching", "a plain and a residual U-Net label D_1 for each other",
    [](const auto& net, const Start& start) {
      Recipe other = start.recipe;
      other.network = other.network == "unet" ? "residual_unet" : "unet";
      using Net = Of<decltype(net)>;
      return segmed::CrossTeaching<Net>{network_of<typename Net::Features>(other, start.seed + 1)};
    });

}  // namespace experiments::ON_DEVICE
