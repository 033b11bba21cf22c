// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/transform_consistency.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry transform;
constinit const PolicyEntry transform =
    policy("transform", "the answer to a turned scan of D_1 is the turned answer",
           [](const auto&) { return segmed::TransformConsistency{}; });

}  // namespace experiments::ON_DEVICE
