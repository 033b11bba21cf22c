// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/backend/teams/sums.hpp>
#include <segmed/tensor/storage.hpp>

namespace segmed {

/// Items that one partial sum covers. Part of the numerics: another number gives other bits.
inline constexpr Index reduce_block = 2048;

template <class Kernel>
struct PartialSums {  // one item per block
  Kernel kernel;
  Index items, blocks, width;
  double* partial;
  SEGMED_HD void operator()(Index i) const {
    const Index segment = i / blocks, first = i % blocks * reduce_block;
    const Index last = first + reduce_block < items ? first + reduce_block : items;
    double* sums = partial + i * width;
    for (Index k = 0; k < width; ++k) sums[k] = 0;
    for (Index item = first; item < last; ++item) kernel(segment, item, sums);
  }
};
struct MergeSums {  // one item per (segment, sum)
  Index blocks, width;
  const double* partial;
  double* out;
  SEGMED_HD void operator()(Index i) const {
    double total = 0;
    for (Index b = 0; b < blocks; ++b)
      total += partial[(i / width * blocks + b) * width + i % width];
    out[i] = total;
  }
};
template <class Kernel, int most>
struct TeamSums {  // one team per block; up to `most` sums stay in a thread's registers
  static constexpr int threads = 128;
  using Shared = LineSums<most, threads>;
  Kernel kernel;
  Index items, blocks, width;
  double* partial;
  template <class Team>
  SEGMED_HD void operator()(Team team, Shared& shared) const {
    const Index segment = team.index / blocks, first = team.index % blocks * reduce_block;
    const Index last = first + reduce_block < items ? first + reduce_block : items;
    double sums[most] = {};
    for (Index item = first + team.thread; item < last; item += threads)
      kernel(segment, item, sums);
    sum_lines(team, shared, threads, 1, sums);
    if (team.thread == 0)
      for (int k = 0; k < most; ++k)
        if (k < width) partial[team.index * width + k] = sums[k];
  }
};
/// Sums that a thread of a team can keep to itself.
inline constexpr int few_team_sums = 4, most_team_sums = 32;

/// Sums in double: kernel(segment, item, sums) adds one of `items` items to the `width` sums of its
/// segment and reads none of them. The order of summation is a function of the device and the sizes
/// alone.
///
///   shapes   result (segments, width)
template <Device D, class Kernel>
Storage<double, D> reduce(Index segments, Index items, Index width, const Kernel& kernel) {
  const Index blocks = (items + reduce_block - 1) / reduce_block;
  Storage<double, D> partial(segments * blocks * width, Uninitialized{});
  Storage<double, D> out(segments * width, Uninitialized{});
  if constexpr (HasTeams<D>)
    if (width <= most_team_sums) {
      if (width <= few_team_sums)
        D::launch_teams(segments * blocks, TeamSums<Kernel, few_team_sums>{kernel, items, blocks,
                                                                           width, partial.write()});
      else
        D::launch_teams(segments * blocks, TeamSums<Kernel, most_team_sums>{
                                               kernel, items, blocks, width, partial.write()});
      merge_by_teams<D>(segments, blocks, width, partial.read(), StoreMerged{out.write(), width});
      return out;
    }
  // A block is worth a thread of its own, whatever the grain of a launch.
  D::launch_blocks(segments * blocks,
                   PartialSums<Kernel>{kernel, items, blocks, width, partial.write()});
  D::launch(segments * width, MergeSums{blocks, width, partial.read(), out.write()});
  return out;
}

/// Adds sums to what is there.
template <class T>
struct AddSums {
  const double* from;
  T* into;
  SEGMED_HD void operator()(Index i) const { into[i] = T(Wide<T>(into[i]) + Wide<T>(from[i])); }
};

}  // namespace segmed
