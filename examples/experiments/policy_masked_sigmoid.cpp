// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/masked_sigmoid.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry masked_sigmoid;
constinit const PolicyEntry masked_sigmoid = policy<WholeLoss>(
    "masked_sigmoid", "each class by a sigmoid of its own, where it was annotated (MultiTalent)",
    [](const auto&) { return segmed::MaskedSigmoid{}; });

}  // namespace experiments::ON_DEVICE
