// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/exclusion_training.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry exclusion;
constinit const PolicyEntry exclusion = policy<WholeLoss>(
    "exclusion", "the same, and organs that nobody annotated stay out of those that are",
    [](const auto&) { return segmed::ExclusionTraining{}; });

}  // namespace experiments::ON_DEVICE
