// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/regularized_dropout.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry rdrop;
constinit const PolicyEntry rdrop =
    policy("rdrop", "two answers to D_1 with different features dropped agree",
           [](const auto&) { return segmed::RegularizedDropout{}; });

}  // namespace experiments::ON_DEVICE
