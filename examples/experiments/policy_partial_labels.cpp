// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"

namespace experiments {

extern const PolicyEntry partial_labels;
constinit const PolicyEntry partial_labels =
    policy("partial_labels", "learn from the labels of D_0 and D_1 and guess none (marginal loss)",
           [](const auto&) { return segmed::Supervised{}; });

}  // namespace experiments
