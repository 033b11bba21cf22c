// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/cube_shuffle.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry cube_shuffle;
constinit const PolicyEntry cube_shuffle =
    policy("cube_shuffle", "cubes of D_0 and D_1 change places (MagicNet)",
           [](const auto& net) { return segmed::CubeShuffle<Of<decltype(net)>>{{net}}; });

}  // namespace experiments::ON_DEVICE
