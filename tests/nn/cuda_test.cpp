// SPDX-License-Identifier: Apache-2.0
#include "../cuda/gpu.hpp"
#include "parity.hpp"
#include <segmed/backend/cuda.hpp>

TEST_SUITE_BEGIN("nn/cuda");
using namespace check;

TEST_CASE("a U-Net learns on the GPU what it learns on the processor") {
  if (no_gpu()) return;
  CHECK(apart(twice<Cuda>([] { return training_step<Features<3, float, Cuda>>(); }),
              training_step<Features<3, float, Cpu>>()) < 1e-4);
  CHECK(apart(twice<Cuda>([] { return training_step<Features<2, float, Cuda>>(); }),
              training_step<Features<2, float, Cpu>>()) < 1e-4);
}

TEST_SUITE_END();
