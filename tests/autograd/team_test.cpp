// SPDX-License-Identifier: Apache-2.0
#include "../backend/teamed_host.hpp"
#include "parity.hpp"

TEST_SUITE_BEGIN("autograd/team");
using namespace check;

static_assert(HasRows<Cpu, float> && HasRows<TeamedHost, float> && HasRows<TeamedHost, double>);

TEST_CASE("ops of teams are those of the processor, in 3-D") {
  const Index before = TeamedHost::teams;
  check_ops<3, float, TeamedHost>(2e-5);
  CHECK(TeamedHost::teams > before);
}
TEST_CASE("ops of teams are those of the processor, in 2-D") {
  check_ops<2, double, TeamedHost>(1e-11);
}

TEST_SUITE_END();
