// SPDX-License-Identifier: Apache-2.0
#include "../cuda/gpu.hpp"
#include "parity.hpp"
#include <segmed/backend/cuda.hpp>
#include <segmed/core/bfloat16.hpp>

TEST_SUITE_BEGIN("losses/cuda");
using namespace check;

TEST_CASE("losses on the GPU are those of the processor") {
  if (no_gpu()) return;
  check_losses<3, float, Cuda>(2e-5);
  check_losses<2, double, Cuda>(1e-10, {3, 255});
  check_losses<3, Bfloat16, Cuda>(1e-2, {3, 11});
}

TEST_SUITE_END();
