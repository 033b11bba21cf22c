// SPDX-License-Identifier: Apache-2.0
// Threads that work together: what sums need, and every pass that shares what it has loaded.
#pragma once
#include <type_traits>

#include <segmed/backend/device.hpp>

namespace segmed {

/// What every device can give a team: `Shared` is at most this large, in bytes.
inline constexpr std::size_t team_shared_bytes = 48 << 10;

/// A kernel for teams of threads: `threads` of them share one `Shared` and wait for each other at
/// `team.barrier()`. This is the smallest one, which HasTeams is asked with:
///
///   - `threads` is at most 1024, best 128 or 256;
///   - `Shared` is plain data of at most `team_shared_bytes` bytes; it holds garbage at first;
///   - `team.index` (Index) says which team it is, `team.thread` (int) which of its threads;
///   - what threads write to `shared` others may read after the next barrier. Every thread of a
///     team passes the same number of barriers: none stands in a branch that threads take apart.
///
/// Teams run in any order and never write the same place. Sums are taken in an order that follows
/// from the sizes alone, so that every run gives the same bits.
struct ProbeTeams {
  static constexpr int threads = 32;
  struct Shared {
    Index first;
  };
  template <class Team>
  SEGMED_HD void operator()(Team team, Shared& shared) const {
    if (team.thread == 0) shared.first = team.index;
    team.barrier();
  }
};

/// A device that runs teams: `D::launch_teams(n, kernel)` runs n of them, numbered from 0.
template <class D>
concept HasTeams = requires(Index n, const ProbeTeams& kernel) {
  D::launch_teams(n, kernel);
};

/// What a device asks of a kernel before it runs it.
template <class Kernel>
inline constexpr bool fits_a_team =
    std::is_trivially_default_constructible_v<typename Kernel::Shared> &&
    sizeof(typename Kernel::Shared) <= team_shared_bytes&& Kernel::threads >= 1 &&
    Kernel::threads <= 1024;

}  // namespace segmed
