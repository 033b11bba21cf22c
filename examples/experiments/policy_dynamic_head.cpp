// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/masked_sigmoid.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry dynamic_head;
constinit const PolicyEntry dynamic_head =
    with(policy<WholeLoss>("dynamic_head",
                           "each class by a sigmoid, its head written by the scan (DoDNet)",
                           [](const auto&) { return segmed::MaskedSigmoid{.background = false}; }),
         [](Recipe& recipe) { recipe.network = "dynamic_unet"; });

}  // namespace experiments::ON_DEVICE
