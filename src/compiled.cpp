// SPDX-License-Identifier: Apache-2.0
// The code that segmed/experiment/compiled.hpp lists, for all programs that link segmed::kernels.
#define SEGMED_TEMPLATE template
#include <segmed/experiment/compiled.hpp>
