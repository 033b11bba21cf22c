// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/leaf_dice_training.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry leaf_dice;
constinit const PolicyEntry leaf_dice =
    policy<WholeLoss>("leaf_dice", "D_1 by a Dice loss for labels that may mean several classes",
                      [](const auto&) { return segmed::LeafDiceTraining{}; });

}  // namespace experiments::ON_DEVICE
