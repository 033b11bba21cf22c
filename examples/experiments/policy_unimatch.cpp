// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/uni_match.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry unimatch;
constinit const PolicyEntry unimatch =
    policy("unimatch", "the same, and they label a view with dropped features",
           [](const auto&) { return segmed::UniMatch{}; });

}  // namespace experiments::ON_DEVICE
