// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/mean_teacher.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry mean_teacher;
constinit const PolicyEntry mean_teacher =
    policy("mean_teacher", "agree with a slow average of oneself on D_1, each under noise",
           [](const auto& net) { return segmed::MeanTeacher<Of<decltype(net)>>{{net}}; });

}  // namespace experiments::ON_DEVICE
