// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/adversarial.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry dan;
constinit const PolicyEntry dan =
    policy("dan", "a critic must not tell answers to D_1 from answers to D_0",
           [](const auto& net, const Start& start) {
             return segmed::Adversarial<Of<decltype(net)>>::of(start.recipe.classes.size(),
                                                               start.recipe.plan.channels);
           });

}  // namespace experiments::ON_DEVICE
