// SPDX-License-Identifier: Apache-2.0
#include "../backend/teamed_host.hpp"
#include "parity.hpp"

TEST_SUITE_BEGIN("nn/team");
using namespace check;

TEST_CASE("a U-Net learns on teams what it learns on the processor") {
  CHECK(apart(twice<TeamedHost>([] { return training_step<Features<3, float, TeamedHost>>(); }),
              training_step<Features<3, float, Cpu>>()) < 1e-4);
  CHECK(apart(twice<TeamedHost>([] { return training_step<Features<2, float, TeamedHost>>(); }),
              training_step<Features<2, float, Cpu>>()) < 1e-4);
}

TEST_SUITE_END();
