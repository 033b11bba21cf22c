// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/fix_match.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry fixmatch;
constinit const PolicyEntry fixmatch =
    policy("fixmatch", "sure answers to a weak view of D_1 label a strong view",
           [](const auto&) { return segmed::FixMatch{}; });

}  // namespace experiments::ON_DEVICE
