// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/pyramid_consistency.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry urpc;
constinit const PolicyEntry urpc =
    with(policy("urpc", "answers at several resolutions agree where they are certain",
                [](const auto&) { return segmed::PyramidConsistency{}; }),
         [](Recipe& recipe) {
           segmed::require<segmed::ConfigError>(recipe.plan.widths.size() > 2, "urpc",
                                                "the network has ", recipe.plan.widths.size(),
                                                " resolutions; give --widths three and more");
           recipe.deep_supervision = true;
         });

}  // namespace experiments::ON_DEVICE
