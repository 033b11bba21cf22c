// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/self_training.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry self_training;
constinit const PolicyEntry self_training =
    policy("self_training", "rounds in which the network labels what of D_1 it is sure of",
           [](const auto&) { return segmed::SelfTraining{}; });

}  // namespace experiments::ON_DEVICE
