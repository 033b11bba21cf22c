// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/entropy_minimization.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry entropy;
constinit const PolicyEntry entropy =
    policy("entropy", "decide on D_1, whatever the answer",
           [](const auto&) { return segmed::EntropyMinimization{}; });

}  // namespace experiments::ON_DEVICE
