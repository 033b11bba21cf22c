// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"

namespace experiments::ON_DEVICE {

extern const PolicyEntry supervised;
constinit const PolicyEntry supervised =
    baseline("supervised", "learn from the labels of D_0 and nothing else: M_0",
             [](const auto&) { return segmed::Supervised{}; });

}  // namespace experiments::ON_DEVICE
