// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/cross_consistency.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry cct;
constinit const PolicyEntry cct =
    policy("cct", "further decoders on spoilt features agree with the network's own",
           [](const auto& net) { return segmed::CrossConsistency<Of<decltype(net)>>(net); });

}  // namespace experiments::ON_DEVICE
