// SPDX-License-Identifier: Apache-2.0
// Voxels in the memory that a team of threads shares, and what both passes of a voxel loss do
// there.
#pragma once
#include <algorithm>

#include <segmed/backend/teams/sums.hpp>
#include <segmed/losses/voxel_tiles.hpp>

namespace segmed {

/// A tile of voxels and what is known of them.
template <class W, bool joins>
struct SharedVoxels {
  static constexpr int threads = 256, room = int((24 << 10) / sizeof(W));
  W z[room];  // (voxels, classes) logits, later their gradient; rows of TileShape::stride numbers
  // As in VoxelTile.
  W top[threads], log_sum[threads], share[threads], organ[threads];
  W joined_top[joins ? threads : 1], joined_log_sum[joins ? threads : 1];
  std::int32_t label[threads];  // -1 where the voxel does not count
  W part[threads];              // what the threads of one voxel tell each other
  LineSums<1, threads> lines;
};

/// How tiles are dealt out to teams and their threads.
struct TileShape {
  static constexpr Index teams = 2048;  // what fills a large GPU
  int classes, stride, tile;            // stride is odd: neighbouring voxels lie in other banks
  int parts;                            // threads of a voxel
  Index voxels, block, blocks;          // of a case; of a team; teams of a case

  TileShape(Index cases, Index voxels_of_case, Index class_count, int room, int threads)
      : classes(int(class_count)),
        stride(classes | 1),
        tile(std::min(threads, room / stride)),
        parts(threads / tile),
        voxels(voxels_of_case) {
    const Index tiles = (voxels + tile - 1) / tile, wanted = std::max<Index>(1, teams / cases);
    block = (tiles + wanted - 1) / wanted * tile;
    blocks = (voxels + block - 1) / block;
  }
};

/// What both passes share.
template <class T, class L>
struct VoxelTeam {
  using Pass = VoxelPass<T, L, 1>;
  using W = typename Pass::W;
  using Shared = SharedVoxels<W, reads_joined<L>>;
  static constexpr int threads = Shared::threads;
  Pass pass;
  TileShape shape;

  struct Larger {
    SEGMED_HD W operator()(W a, W b) const { return b > a ? b : a; }
  };
  struct Plus {
    SEGMED_HD W operator()(W a, W b) const { return a + b; }
  };

  /// Reads `count` voxels from `row` on; returns how many labels that no class has this thread saw.
  template <class Team>
  SEGMED_HD int load(Team team, Shared& shared, Index n, Index row, int count,
                     bool complete) const {
    const ClassSums& all = pass.all;
    const T* const from = pass.logits + row * shape.classes;
    int u = team.thread / shape.classes, c = team.thread % shape.classes;
    const int down = threads / shape.classes, on = threads % shape.classes;
    for (int i = team.thread; i < count * shape.classes; i += threads) {
      shared.z[u * shape.stride + c] = W(Wide<T>(from[i]));
      u += down, c += on;
      if (c >= shape.classes) c -= shape.classes, ++u;
    }
    int strangers = 0;
    if (team.thread < count) {
      std::int32_t label = pass.labels[row + team.thread];
      const bool seen = label != ignored;
      if (seen && label >= shape.classes) strangers = 1;
      if (!complete && !all.annotated[n].has(label)) label = 0;
      shared.organ[team.thread] = W(label != 0 ? 1 : 0);
      shared.label[team.thread] = seen && !all.unlabelled(n) ? label : -1;
    }
    team.barrier();
    return strangers;
  }
  /// The thread's own voxel of the tile, which it shares with others, and its part of the classes:
  /// every `parts`-th one from `part` on.
  struct Own {
    int u, part;
    bool active;
  };
  SEGMED_HD Own own(int thread, int count) const {
    const int u = thread % shape.tile, part = thread / shape.tile;
    return {u, part, part < shape.parts && u < count};
  }
  /// The numbers of all threads of a voxel, put together in the order of their parts. Every thread
  /// of the team calls this.
  template <class Team, class Op>
  SEGMED_HD W together(Team team, Shared& shared, const Own& own, W number, Op op) const {
    if (shape.parts == 1) return number;
    shared.part[team.thread] = number;
    team.barrier();
    W all = shared.part[own.u];
    for (int p = 1; p < shape.parts; ++p) all = op(all, shared.part[p * shape.tile + own.u]);
    team.barrier();
    return all;
  }
  /// The largest logit of the voxel's chosen classes, and the sum of e^(z - top) over them. The
  /// background is always chosen.
  template <class Team, class Chosen>
  SEGMED_HD void sum_of_classes(Team team, Shared& shared, const Own& own, Chosen chosen, W& top,
                                W& total) const {
    const W* const z = shared.z + own.u * shape.stride;
    W largest = own.active ? z[0] : W(0), sum = 0;
    for (int c = own.part; own.active && c < shape.classes; c += shape.parts)
      if (chosen(c) && z[c] > largest) largest = z[c];
    top = together(team, shared, own, largest, Larger{});
    for (int c = own.part; own.active && c < shape.classes; c += shape.parts)
      if (chosen(c)) sum += math::fast_exp(z[c] - top);
    total = together(team, shared, own, sum, Plus{});
  }
  struct EachClass {
    SEGMED_HD bool operator()(int) const { return true; }
  };
  /// The background and what nobody annotated.
  struct JoinedClasses {
    const AnnotatedSet& annotated;
    SEGMED_HD bool operator()(int c) const { return c == 0 || !annotated.has(c); }
  };
  /// Logits to what VoxelPass::viewed wants. Ends after a barrier.
  template <class Team>
  SEGMED_HD void softmax(Team team, Shared& shared, Index n, int count, bool complete) const {
    if constexpr (reads_softmax<L>) {
      const Own mine = own(team.thread, count);
      W top, total;
      sum_of_classes(team, shared, mine, EachClass{}, top, total);
      if (mine.active && mine.part == 0) {
        shared.top[mine.u] = top;
        shared.log_sum[mine.u] = math::fast_log(total);
        shared.share[mine.u] = W(1) / total;
      }
      if constexpr (reads_joined<L>)
        if (!complete) {
          sum_of_classes(team, shared, mine, JoinedClasses{pass.all.annotated[n]}, top, total);
          if (mine.active && mine.part == 0) {
            shared.joined_top[mine.u] = top;
            shared.joined_log_sum[mine.u] = math::fast_log(total);
          }
        }
      team.barrier();
    }
  }
  template <class R>
  SEGMED_HD ClassVoxel<W> seen(const Shared& shared, int c, int u, R role) const {
    const W z = shared.z[u * shape.stride + c];
    W p = 0;
    if constexpr (reads_softmax<L>) p = math::fast_exp(z - shared.top[u]) * shared.share[u];
    ClassVoxel<W> x = pass.viewed(z, p, shared, u, role);
    x.is = W(shared.label[u] == c ? 1 : 0);
    return x;
  }
};

}  // namespace segmed
