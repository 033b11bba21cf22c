// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/uncertainty_aware_mean_teacher.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry uamt;
constinit const PolicyEntry uamt = policy(
    "uamt", "agree with a slow average of oneself where that one is certain",
    [](const auto& net) { return segmed::UncertaintyAwareMeanTeacher<Of<decltype(net)>>{{net}}; });

}  // namespace experiments::ON_DEVICE
