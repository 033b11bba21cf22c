// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "teamed_host.hpp"

TEST_SUITE_BEGIN("backend/team");
using namespace check;

namespace {

// The sum of 8 numbers, by halves: three barriers before it is known.
struct SumOfEight {
  static constexpr int threads = 8;
  struct Shared {
    double sum[threads];
  };
  const double* x;
  double* out;
  template <class Team>
  SEGMED_HD void operator()(Team team, Shared& shared) const {
    shared.sum[team.thread] = x[team.index * threads + team.thread];
    for (int half = threads / 2; half > 0; half /= 2) {
      team.barrier();
      if (team.thread < half) shared.sum[team.thread] += shared.sum[team.thread + half];
    }
    if (team.thread == 0) out[team.index] = shared.sum[0];
  }
};
// Each thread reads what the one after it wrote.
template <bool waits>
struct Neighbours {
  static constexpr int threads = 64;
  struct Shared {
    int of[threads];
  };
  int* out;
  template <class Team>
  SEGMED_HD void operator()(Team team, Shared& shared) const {
    shared.of[team.thread] = team.thread;
    if (waits) team.barrier();
    out[team.index * threads + team.thread] = shared.of[(team.thread + 1) % threads];
  }
};
struct Garbage {
  static constexpr int threads = 1;
  struct Shared {
    unsigned word;
  };
  unsigned* out;
  template <class Team>
  SEGMED_HD void operator()(Team team, Shared& shared) const {
    out[team.index] = shared.word;
    shared.word = 1;
  }
};
struct Uneven {
  static constexpr int threads = 4;
  struct Shared {};
  template <class Team>
  SEGMED_HD void operator()(Team team, Shared&) const {
    if (team.thread < 2) team.barrier();
  }
};
struct InOrder {
  ~InOrder() { TeamedHost::reversed = false; }
};

}  // namespace

TEST_CASE("barriers separate phases") {
  std::vector<double> x, out(3);
  for (int i = 0; i < 24; ++i) x.push_back(i * i);
  const InOrder after;
  for (const bool reversed : {false, true}) {
    TeamedHost::reversed = reversed;
    TeamedHost::launch_teams(3, SumOfEight{x.data(), out.data()});
    CHECK(out == std::vector<double>{140, 1100, 3084});
    std::vector<int> seen(128);
    TeamedHost::launch_teams(2, Neighbours<true>{seen.data()});
    for (int i = 0; i < 128; ++i) CHECK(seen[std::size_t(i)] == (i % 64 + 1) % 64);
    TeamedHost::launch_teams(2, Neighbours<false>{seen.data()});
    CHECK(seen[5] == (reversed ? 6 : int(0xCDCDCDCD)));
  }
}

TEST_CASE("each team finds garbage in what it shares") {
  unsigned out[2] = {0, 0};
  TeamedHost::launch_teams(2, Garbage{out});
  CHECK(out[0] == 0xCDCDCDCDu);
  CHECK(out[1] == 0xCDCDCDCDu);
}

TEST_CASE("threads that part at a barrier are noticed") {
  CHECK_THROWS_AS(TeamedHost::launch_teams(1, Uneven{}), std::logic_error);
  const Index before = TeamedHost::teams;
  TeamedHost::launch_teams(5, ProbeTeams{});
  CHECK(TeamedHost::teams == before + 5);
  TeamedHost::launch_teams(0, ProbeTeams{});
  CHECK(TeamedHost::teams == before + 5);
}

TEST_SUITE_END();
