// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/mutual_consistency.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry mcnet;
constinit const PolicyEntry mcnet =
    policy("mcnet", "three decoders agree with what each of them would decide (MC-Net+)",
           [](const auto& net) { return segmed::MutualConsistency<Of<decltype(net)>>(net); });

}  // namespace experiments::ON_DEVICE
