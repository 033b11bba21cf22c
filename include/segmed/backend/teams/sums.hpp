// SPDX-License-Identifier: Apache-2.0
// Sums by teams: the numbers of a team's threads become one, and the sums of many teams become one.
// Every order follows from the sizes alone.
#pragma once
#include <segmed/backend/team.hpp>
#include <segmed/backend/workspace.hpp>

namespace segmed {

/// Where a team's threads put their numbers to be summed: `count` sums at once.
template <int count, int threads>
struct LineSums {
  double sum[count][threads];
};

/// Sums over lines: thread line * columns + column has `own` numbers of its column, and afterwards
/// the threads of line 0 have those of all lines. Every thread of the team calls this, also those
/// after the last line. Ends after a barrier.
template <class Team, int count, int threads>
SEGMED_HD void sum_lines(Team team, LineSums<count, threads>& shared, int lines, int columns,
                         double (&own)[count]) {
  for (int k = 0; k < count; ++k) shared.sum[k][team.thread] = own[k];
  team.barrier();
  for (int live = lines; live > 1;) {  // the second half of the lines goes to the first
    const int half = (live + 1) / 2;
    if (team.thread < (live - half) * columns)
      for (int k = 0; k < count; ++k) {
        own[k] += shared.sum[k][team.thread + half * columns];
        shared.sum[k][team.thread] = own[k];
      }
    live = half;
    team.barrier();
  }
}

/// One team per segment and `columns` neighbouring sums of the (segments, parts, width) partial
/// ones; calls to(segment, k, sum).
template <class To>
struct MergeTeams {
  static constexpr int threads = 256, widest = 32;
  using Shared = LineSums<1, threads>;
  Index parts, width, tiles;
  int columns;
  const double* partial;
  To to;

  template <class Team>
  SEGMED_HD void operator()(Team team, Shared& shared) const {
    const int lines = threads / columns, line = team.thread / columns;
    const Index segment = team.index / tiles;
    const Index k = team.index % tiles * columns + team.thread % columns;
    double own[1] = {0};
    if (line < lines && k < width)
      for (Index part = line; part < parts; part += lines)
        own[0] += partial[(segment * parts + part) * width + k];
    sum_lines(team, shared, lines, columns, own);
    if (line == 0 && k < width) to(segment, k, own[0]);
  }
};

/// Sums over the parts of (segments, parts, width) numbers: to(segment, k, sum) takes the results.
template <class D, class To>
void merge_by_teams(Index segments, Index parts, Index width, const double* partial, const To& to) {
  const Index widest = MergeTeams<To>::widest;
  const Index columns = width < widest ? width : widest, tiles = (width + columns - 1) / columns;
  D::launch_teams(segments * tiles, MergeTeams<To>{parts, width, tiles, int(columns), partial, to});
}

/// Writes merged sums to (segments, width).
struct StoreMerged {
  double* out;
  Index width;
  SEGMED_HD void operator()(Index segment, Index k, double sum) const {
    out[segment * width + k] = sum;
  }
};

}  // namespace segmed
