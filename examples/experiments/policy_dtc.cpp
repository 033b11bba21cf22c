// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/dual_task.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry dtc;
constinit const PolicyEntry dtc =
    policy("dtc", "a second head draws the distance to each organ's border, and agrees",
           [](const auto& net, const Start& start) {
             return segmed::DualTask<Of<decltype(net)>>::of(net, start.recipe.classes.size(),
                                                            start.recipe.plan.channels, start.seed);
           });

}  // namespace experiments::ON_DEVICE
