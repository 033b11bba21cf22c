// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/copy_paste.hpp>

namespace experiments::ON_DEVICE {

extern const PolicyEntry bcp;
constinit const PolicyEntry bcp =
    policy("bcp", "parts of D_0 and D_1 are pasted into each other",
           [](const auto& net) { return segmed::CopyPaste<Of<decltype(net)>>{{net}}; });

}  // namespace experiments::ON_DEVICE
