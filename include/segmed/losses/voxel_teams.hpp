// SPDX-License-Identifier: Apache-2.0
// The two passes of a voxel loss by teams of threads: a tile of voxels lies in shared memory, where
// threads share the softmax of its voxels, and then each sums its class of some of them.
#pragma once
#include <segmed/losses/shared_voxels.hpp>
#include <segmed/losses/voxel_pass.hpp>

namespace segmed {

/// The forward pass: one team per block of voxels, which writes that block's sums.
template <class T, class L>
struct VoxelTeamSums {
  using Voxels = VoxelTeam<T, L>;
  using W = typename Voxels::W;
  using Shared = typename Voxels::Shared;
  static constexpr int threads = Voxels::threads;
  Voxels voxels;
  double* partial;

  template <class Team>
  SEGMED_HD void operator()(Team team, Shared& shared) const {
    const ClassSums& all = voxels.pass.all;
    const TileShape& shape = voxels.shape;
    const Index n = team.index / shape.blocks, first = team.index % shape.blocks * shape.block;
    const Index last = first + shape.block < shape.voxels ? first + shape.block : shape.voxels;
    const bool complete = all.complete(n);
    const int c = team.thread % shape.classes, line = team.thread / shape.classes;
    const int lines = threads / shape.classes;
    double total[L::sums] = {}, strangers[1] = {0};
    for (Index v = first; v < last; v += shape.tile) {
      const int count = int(last - v < shape.tile ? last - v : shape.tile);
      strangers[0] += voxels.load(team, shared, n, n * shape.voxels + v, count, complete);
      voxels.softmax(team, shared, n, count, complete);
      if (line < lines)
        voxels.pass.with_role(n, c, complete, [&](auto role) {
          W sum[L::sums] = {};  // of few voxels, then in double
          for (int u = line; u < count; u += lines)
            if (shared.label[u] >= 0) voxels.pass.loss.add(sum, voxels.seen(shared, c, u, role));
          for (int k = 0; k < L::sums; ++k) total[k] += double(sum[k]);
        });
      team.barrier();
    }
    double* const to = partial + team.index * all.per_case();
    for (int k = 0; k < L::sums; ++k) {
      double one[1] = {total[k]};
      sum_lines(team, shared.lines, lines, shape.classes, one);
      if (line == 0) to[c * all.stride + k] = one[0];
    }
    sum_lines(team, shared.lines, threads, 1, strangers);
    if (team.thread == 0) to[all.per_case() - 1] = strangers[0];
  }
};

/// The backward pass: computes the softmax again, and puts the gradient in the place of the logits.
template <class T, class L>
struct VoxelTeamPull {
  using Voxels = VoxelTeam<T, L>;
  using Own = typename Voxels::Own;
  using W = typename Voxels::W;
  using Shared = typename Voxels::Shared;
  static constexpr int threads = Voxels::threads;
  Voxels voxels;
  const Wide<T>* g;
  T* out;
  bool fresh;  // `out` holds nothing yet

  template <class Team>
  SEGMED_HD void operator()(Team team, Shared& shared) const {
    const TileShape& shape = voxels.shape;
    const Index n = team.index / shape.blocks, first = team.index % shape.blocks * shape.block;
    const Index last = first + shape.block < shape.voxels ? first + shape.block : shape.voxels;
    const bool complete = voxels.pass.all.complete(n);
    for (Index v = first; v < last; v += shape.tile) {
      const int count = int(last - v < shape.tile ? last - v : shape.tile);
      const Index row = n * shape.voxels + v;
      voxels.load(team, shared, n, row, count, complete);
      voxels.softmax(team, shared, n, count, complete);
      pull(team, shared, n, voxels.own(team.thread, count), complete);
      team.barrier();
      store(team, shared, out + row * shape.classes, count);
      team.barrier();
    }
  }

 private:
  /// The derivative by one logit is direct - p * (the sum of `shared` over the voxel's classes).
  struct Slopes {
    W direct, shared, background, p;
  };
  template <class R>
  SEGMED_HD Slopes slopes(const Shared& shared, Index n, int c, int u, W background, R role) const {
    const double* const from = voxels.pass.all.slopes(n, c);
    W ds[L::sums];
    for (int k = 0; k < L::sums; ++k) ds[k] = W(from[k]);
    const ClassVoxel<W> x = voxels.seen(shared, c, u, role);
    const Slope<W> s = voxels.pass.loss.slope(ds, x);
    Slopes of{s.own + s.logit, s.own, s.joined, x.p};
    if constexpr (reads_joined<L>) {
      of.shared += s.joined;
      if constexpr (R::known)
        of.direct += s.joined;
      else  // what the joined background passes on to each class in it
        of.direct += (R::annotated ? s.joined : background) *
                     math::fast_exp(x.logit - shared.joined_top[u] - shared.joined_log_sum[u]);
    }
    return of;
  }
  template <class Team>
  SEGMED_HD void pull(Team team, Shared& shared, Index n, const Own& own, bool complete) const {
    const TileShape& shape = voxels.shape;
    const bool counts = own.active && shared.label[own.u] >= 0;
    W background = 0, mean = 0;
    if constexpr (reads_joined<L>)
      if (counts && !complete)
        background = slopes(shared, n, 0, own.u, W(0), ClassRole<true, false>{}).background;
    if constexpr (reads_softmax<L>) {
      for (int c = own.part; counts && c < shape.classes; c += shape.parts)
        voxels.pass.with_role(n, c, complete, [&](auto role) {
          mean += slopes(shared, n, c, own.u, background, role).shared;
        });
      mean = voxels.together(team, shared, own, mean, typename Voxels::Plus{});
    }
    if (!own.active) return;
    const W up = W(*g);
    W* const z = shared.z + own.u * shape.stride;
    for (int c = own.part; c < shape.classes; c += shape.parts) {
      W slope = 0;
      if (counts)
        voxels.pass.with_role(n, c, complete, [&](auto role) {
          const Slopes of = slopes(shared, n, c, own.u, background, role);
          slope = up * (of.direct - of.p * mean);
        });
      z[c] = slope;  // nobody else reads it any more
    }
  }
  template <class Team>
  SEGMED_HD void store(Team team, const Shared& shared, T* to, int count) const {
    const TileShape& shape = voxels.shape;
    int u = team.thread / shape.classes, c = team.thread % shape.classes;
    const int down = threads / shape.classes, on = threads % shape.classes;
    for (int i = team.thread; i < count * shape.classes; i += threads) {
      const Wide<T> slope = Wide<T>(shared.z[u * shape.stride + c]);
      to[i] = T(fresh ? slope : Wide<T>(to[i]) + slope);
      u += down, c += on;
      if (c >= shape.classes) c -= shape.classes, ++u;
    }
  }
};

/// Sums to the loss by one team, in whose memory the one thread that finishes does not wait.
template <class L, class W>
struct FinishTeam {
  static constexpr int threads = 128;
  static constexpr Index most = 2800;  // sums
  struct Shared {
    double sum[most], slope[most];
  };
  FinishSums<L, W> finish;

  template <class Team>
  SEGMED_HD void operator()(Team team, Shared& shared) const {
    const ClassSums& all = finish.all;
    const Index count = all.cases * all.per_case();
    for (Index i = team.thread; i < count; i += threads)
      shared.sum[i] = all.sum[i], shared.slope[i] = all.slope[i];
    team.barrier();
    if (team.thread == 0) {
      FinishSums<L, W> near = finish;
      near.all.sum = shared.sum, near.all.slope = shared.slope;
      near(0);
    }
    team.barrier();
    for (Index i = team.thread; i < count; i += threads) all.slope[i] = shared.slope[i];
  }
};

template <class T, class L>
VoxelTeam<T, L> voxel_team(const VoxelPass<T, L, 1>& pass, Index cases) {
  using Voxels = VoxelTeam<T, L>;
  return {pass,
          TileShape(cases, pass.voxels, pass.all.classes, Voxels::Shared::room, Voxels::threads)};
}
/// Sets pass.all.sum.
template <Device D, class T, class L>
void sum_voxels_by_teams(const VoxelPass<T, L, 1>& pass, Index cases) {
  const VoxelTeam<T, L> voxels = voxel_team(pass, cases);
  const Index teams = cases * voxels.shape.blocks, width = pass.all.per_case();
  const Workspace<D, double> partial(teams * width);
  D::launch_teams(teams, VoxelTeamSums<T, L>{voxels, partial.data()});
  merge_by_teams<D>(cases, voxels.shape.blocks, width, partial.data(),
                    StoreMerged{pass.all.sum, width});
}
/// Sets the loss and its slopes.
template <Device D, class L, class W>
void finish_by_teams(const FinishSums<L, W>& finish) {
  if (finish.all.cases * finish.all.per_case() <= FinishTeam<L, W>::most)
    D::launch_teams(1, FinishTeam<L, W>{finish});
  else
    D::launch(1, finish);
}
/// Adds the gradient g times the pass's slopes to `out`, or writes it.
template <Device D, class T, class L>
void pull_voxels_by_teams(const VoxelPass<T, L, 1>& pass, Index cases, const Wide<T>* g, T* out,
                          bool fresh) {
  const VoxelTeam<T, L> voxels = voxel_team(pass, cases);
  D::launch_teams(cases * voxels.shape.blocks, VoxelTeamPull<T, L>{voxels, g, out, fresh});
}

}  // namespace segmed
