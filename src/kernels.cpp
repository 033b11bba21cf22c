// SPDX-License-Identifier: Apache-2.0
// The compiled twin of the kernel headers: units under SEGMED_KERNELS_LINKED refer to what stands
// here, so that kernels are compiled once for a whole program.
#include <segmed/backend/targets.hpp>

namespace segmed::linked {
bool enlist();
bool enlist() { return enlist_sets<float>() && enlist_sets<double>(); }
}  // namespace segmed::linked
