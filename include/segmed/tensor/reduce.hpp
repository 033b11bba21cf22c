// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <type_traits>

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
/// One team per block; each thread has up to `most` sums of its own, in its registers or, if they
/// are many, in its local memory, where those of neighbouring threads lie side by side. They are
/// added up in groups of what shared memory holds.
template <class Kernel, int most>
struct TeamSums {
  static constexpr int threads = 128, together = most < 32 ? most : 32;
  using Shared = LineSums<together, threads>;
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
    for (int group = 0; group < most && group < width; group += together) {
      double own[together];
      for (int k = 0; k < together; ++k) own[k] = sums[group + k];
      sum_lines(team, shared, threads, 1, own);
      if (team.thread == 0)
        for (int k = 0; k < together; ++k)
          if (group + k < width) partial[team.index * width + group + k] = own[k];
    }
  }
};
/// Sums that a thread of a team keeps to itself: in a few registers, in many, in local memory.
inline constexpr int few_team_sums = 4, some_team_sums = 32, most_team_sums = 160;

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
      const auto sum = [&]<int most>(std::integral_constant<int, most>) {
        D::launch_teams(segments * blocks,
                        TeamSums<Kernel, most>{kernel, items, blocks, width, partial.write()});
      };
      if (width <= few_team_sums)
        sum(std::integral_constant<int, few_team_sums>{});
      else if (width <= some_team_sums)
        sum(std::integral_constant<int, some_team_sums>{});
      else
        sum(std::integral_constant<int, most_team_sums>{});
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
