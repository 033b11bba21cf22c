// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/marginal_training.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry marginal;
constinit const PolicyEntry marginal = policy<WholeLoss>(
    "marginal", "learn from the labels of D_0 and D_1 and guess none (marginal loss)",
    [](const auto&) { return segmed::MarginalTraining{}; });

}  // namespace experiments::ON_DEVICE
