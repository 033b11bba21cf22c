// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/partial_completion.hpp>

namespace experiments::ON_DEVICE {

// It brings a loss of its own for partial labels, which adds exclusion to the marginal one.
extern const PolicyEntry partial_completion;
constinit const PolicyEntry partial_completion = policy<WholeLoss>(
    "partial_completion",
    "marginal and exclusion loss where D_1 is annotated, confident completions where not",
    [](const auto& net) { return segmed::PartialCompletion<Of<decltype(net)>>{{net}}; });

}  // namespace experiments::ON_DEVICE
