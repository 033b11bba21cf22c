// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/deformation_consistency.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry deformation;
constinit const PolicyEntry deformation =
    policy("deformation", "the answer to a deformed scan of D_1 is the deformed answer",
           [](const auto&) { return segmed::DeformationConsistency{}; });

}  // namespace experiments::ON_DEVICE
