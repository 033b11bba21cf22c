// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/target_adaptive.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry target_adaptive;
constinit const PolicyEntry target_adaptive =
    policy<WholeLoss>("target_adaptive", "D_1 by the likelihood of merged classes alone",
                      [](const auto&) { return segmed::TargetAdaptive{}; });

}  // namespace experiments::ON_DEVICE
