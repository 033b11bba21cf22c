// SPDX-License-Identifier: Apache-2.0
#include "../backend/teamed_host.hpp"
#include "parity.hpp"
#include <segmed/core/bfloat16.hpp>

TEST_SUITE_BEGIN("autograd/team");
using namespace check;

namespace {

// `width` sums of a value's powers.
struct Powers {
  const double* x;
  Index items, width;
  SEGMED_HD void operator()(Index segment, Index item, double* sums) const {
    double power = 1;
    for (Index k = 0; k < width; ++k) sums[k] += power *= x[segment * items + item];
  }
};

}  // namespace

static_assert(HasRows<Cpu, float> && HasRows<TeamedHost, float> && HasRows<TeamedHost, double> &&
              HasRows<TeamedHost, Bfloat16>);

TEST_CASE("ops of teams are those of the processor, in 3-D") {
  const Index before = TeamedHost::teams;
  check_ops<3, float, TeamedHost>(2e-5);
  CHECK(TeamedHost::teams > before);
}
TEST_CASE("ops of teams are those of the processor, in 2-D") {
  check_ops<2, double, TeamedHost>(1e-11);
}
TEST_CASE("ops of teams read and write maps of Bfloat16") {
  check_ops<3, Bfloat16, TeamedHost>(3e-2);
}
TEST_CASE("reductions by teams are those of a plain loop") {
  for (const Index items : {0, 1, 127, 2048, 2049, 9000})
    for (const Index width : {1, 3, 4, 5, 32, 33, 153, 160, 161}) {
      CAPTURE(items);
      CAPTURE(width);
      const Storage<double, TeamedHost> x(numbers<double>(3 * items, 4));
      const Storage<double, Cpu> y(numbers<double>(3 * items, 4));
      const Index before = TeamedHost::teams;
      const Parts sums = twice<TeamedHost>([&] {
        return Parts{reduce<TeamedHost>(3, items, width, Powers{x.read(), items, width}).host()};
      });
      CHECK(apart(sums, {reduce<Cpu>(3, items, width, Powers{y.read(), items, width}).host()}) <
            1e-12);
      CHECK((TeamedHost::teams > before) == (width <= most_team_sums));
    }
}

TEST_SUITE_END();
