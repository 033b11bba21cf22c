// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/interpolation_consistency.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry ict;
constinit const PolicyEntry ict = policy(
    "ict", "the answer to a mix of two scans of D_1 is the mix of two answers",
    [](const auto& net) { return segmed::InterpolationConsistency<Of<decltype(net)>>{{net}}; });

}  // namespace experiments::ON_DEVICE
