// SPDX-License-Identifier: Apache-2.0
// The two passes of a voxel loss: logits to sums, and slopes of the sums to the logits' gradient.
#pragma once
#include <atomic>

#include <segmed/losses/voxel_blocks.hpp>
#include <segmed/losses/voxel_tiles.hpp>

namespace segmed {

/// The forward pass: one item per block of voxels, which writes that block's sums.
template <class T, class L, int Lanes>
struct VoxelSums {
  using Pass = VoxelPass<T, L, Lanes>;
  using W = typename Pass::W;
  using Tile = typename Pass::Tile;
  using Shares = typename Pass::Shares;
  Pass pass;
  VoxelBlocks blocks;
  double* partial;

  SEGMED_HD void operator()(Index i) const {
    const ClassSums& all = pass.all;
    const Index n = i / blocks.count, first = i % blocks.count * blocks.block;
    const Index last = first + blocks.block < pass.voxels ? first + blocks.block : pass.voxels;
    double* sums = partial + i * all.per_case();
    for (Index k = 0; k < all.per_case(); ++k) sums[k] = 0;
    const bool complete = all.complete(n);
    Tile tile(all.classes);
    std::int32_t strangers[Lanes] = {};
    for (Index from = first; from < last; from += voxel_run)
      add_run(tile, n, from, from + voxel_run < last ? from + voxel_run : last, complete, strangers,
              sums);
    for (int l = 0; l < Lanes; ++l) sums[all.per_case() - 1] += strangers[l];
  }

 private:
  SEGMED_HD void add_run(Tile& tile, Index n, Index first, Index last, bool complete,
                         std::int32_t* strangers, double* sums) const {
    const ClassSums& all = pass.all;
    alignas(64) W total[255 * Pass::sums * Lanes];  // (classes, sums, lanes) of the run so far
    for (Index k = 0; k < all.classes * Pass::sums * Lanes; ++k) total[k] = 0;
    for (Index v = first; v < last; v += tile.voxels) {
      const int count = int(last - v < tile.voxels ? last - v : tile.voxels);
      Shares of;
      pass.load(tile, of, n, n * pass.voxels + v, count, complete, strangers);
      std::int32_t counted = 0;
      for (int l = 0; l < Lanes; ++l) counted += of.counted[l];
      const bool all_count = counted == tile.voxels;
      for (Index c = 0; c < all.classes; ++c)
        pass.with_role(n, c, complete, [&](auto role) {
          W* const to = total + c * Pass::sums * Lanes;
          if (all_count && tile.groups == Tile::most_groups)
            add_all(tile, of, 0, c, to, role, typename Pass::EachSum{},
                    std::make_integer_sequence<int, Tile::most_groups>{});
          else if (all_count)
            for (int at = 0; at < tile.voxels; at += Lanes)
              add_all(tile, of, at, c, to, role, typename Pass::EachSum{},
                      std::make_integer_sequence<int, 1>{});
          else
            add(tile, of, c, to, role, typename Pass::EachSum{});
        });
    }
    for (Index c = 0; c < all.classes; ++c)
      for (int l = 0; l < Lanes; ++l)  // the sums of a class do not wait for each other
        for (int k = 0; k < Pass::sums; ++k)
          sums[c * all.stride + k] += double(total[(c * Pass::sums + k) * Lanes + l]);
  }
  /// Class c of all voxels of groups of a tile; their sums stay in registers meanwhile.
  template <class R, int... K, int... G>
  SEGMED_HD void add_all(const Tile& tile, const Shares& of, int at, Index c, W* total, R role,
                         std::integer_sequence<int, K...>, std::integer_sequence<int, G...>) const {
    for (int l = 0; l < Lanes; ++l) {
      W sum[Pass::sums] = {total[K * Lanes + l]...};
      (pass.loss.add(sum, pass.seen(tile, of, c, at + G * Lanes + l, role)), ...);
      ((total[K * Lanes + l] = sum[K]), ...);
    }
  }
  /// Class c of a tile in which some voxels may not count.
  template <class R, int... K>
  SEGMED_HD void add(const Tile& tile, const Shares& of, Index c, W* total, R role,
                     std::integer_sequence<int, K...>) const {
    for (int at = 0; at < tile.voxels; at += Lanes)
      for (int l = 0; l < Lanes; ++l) {
        W part[Pass::sums] = {};
        pass.loss.add(part, pass.seen(tile, of, c, at + l, role));
        ((total[K * Lanes + l] += of.counts[at + l] * part[K]), ...);
      }
  }
};

/// Sums to the loss and the slopes of the sums.
template <class L, class W>
struct FinishSums {
  L loss;
  ClassSums all;
  W* value;
  SEGMED_HD void operator()(Index) const {
    double strangers = 0;
    for (Index n = 0; n < all.cases; ++n) strangers += all.sum[(n + 1) * all.per_case() - 1];
    // Where the host does not look at the sums, a label that no class has makes the loss NaN.
    *value = strangers > 0 ? W(NAN) : W(loss.finish(all));
  }
};

/// A tile's gradient on its way past the caches, a piece at a time while the next tile is computed:
/// memory takes it more slowly than it was made.
template <class T, Index most>
struct Departure {
  alignas(64) T rows[most];
  Index next = 0, left = 0;
  T* to = nullptr;

  Departure() {}  // the rows are not set
  void start(Index count, T* where) { next = 0, left = count, to = where; }
  void send(Index count) {
    if (count > left) count = left;
    if (count > 0) kernels<T>().put_past(rows + next, count, to + next);
    next += count, left -= count;
  }
  void finish() {
    send(left);
    if (to) std::atomic_thread_fence(std::memory_order_seq_cst);  // others may look then
  }
};
/// Where nothing goes past caches.
struct NoDeparture {
  SEGMED_HD void send(Index) {}
  SEGMED_HD void finish() {}
};

/// The backward pass: one item per run of voxels; computes the softmax again.
template <class T, class L, int Lanes>
struct VoxelPull {
  using Pass = VoxelPass<T, L, Lanes>;
  using W = typename Pass::W;
  using Tile = typename Pass::Tile;
  using Shares = typename Pass::Shares;
  using Leaving = std::conditional_t<Pass::in_columns, Departure<T, 256 * Lanes>, NoDeparture>;
  Pass pass;
  const Wide<T>* g;
  T* out;
  bool fresh;        // `out` holds nothing yet
  bool past_caches;  // `out` would fill the caches

  SEGMED_HD void operator()(Index i) const {
    const ClassSums& all = pass.all;
    const Index runs = (pass.voxels + voxel_run - 1) / voxel_run;
    const Index n = i / runs, first = i % runs * voxel_run;
    const Index last = first + voxel_run < pass.voxels ? first + voxel_run : pass.voxels;
    const bool complete = all.complete(n);
    W of_sums[255 * Pass::sums];  // the slopes
    for (Index c = 0; c < all.classes; ++c)
      for (int k = 0; k < Pass::sums; ++k) of_sums[c * Pass::sums + k] = W(all.slopes(n, c)[k]);
    Tile tile(all.classes);
    Leaving leaving;
    for (Index v = first; v < last; v += tile.voxels) {
      const int count = int(last - v < tile.voxels ? last - v : tile.voxels);
      const Index row = n * pass.voxels + v;
      Shares of;
      std::int32_t strangers[Lanes] = {};
      pass.load(tile, of, n, row, count, complete, strangers);
      pull(tile, of, n, complete, of_sums, leaving);
      store(tile, out + row * all.classes, count, leaving);
    }
    leaving.finish();
  }

 private:
  /// What the logits of a voxel get from the slopes of all its classes.
  struct Passed {
    alignas(64) W mean[Tile::most_voxels];
    W background[Tile::most_voxels];  // the joined background's slope
  };
  SEGMED_HD void pull(Tile& tile, const Shares& of, Index n, bool complete, const W* of_sums,
                      Leaving& leaving) const {
    Passed passed;
    for (int v = 0; v < tile.voxels; ++v) passed.mean[v] = 0;
    for (Index c = 0; c < pass.all.classes; ++c) {
      pass.with_role(n, c, complete, [&](auto role) {
        for (int at = 0; at < tile.voxels; at += Lanes)
          slopes(tile, of, at, c, of_sums + c * Pass::sums, passed, role);
      });
      leaving.send(tile.voxels);
    }
    through_softmax(tile, of, passed);
  }
  /// Puts the slopes in the place of the logits of class c.
  template <class R>
  SEGMED_HD void slopes(Tile& tile, const Shares& of, int at, Index c, const W* of_sums,
                        Passed& passed, R role) const {
    for (int v = at; v < at + Lanes; ++v) {
      const Index i = c * tile.voxels + v;
      const Slope<W> s = pass.loss.slope(of_sums, pass.seen(tile, of, c, v, role));
      W direct = s.own + s.logit, shared = s.own;
      if constexpr (reads_joined<L>) {
        shared += s.joined;
        if constexpr (R::known) direct += s.joined;
        if constexpr (R::annotated && !R::known) passed.background[v] = s.joined;
        // What the joined background passes on to each class in it.
        if constexpr (!R::known)
          direct += passed.background[v] *
                    math::fast_exp(tile.z[i] - of.joined_top[v] - of.joined_log_sum[v]);
      }
      passed.mean[v] += shared;
      tile.z[i] = direct;
    }
  }
  SEGMED_HD void through_softmax(Tile& tile, const Shares& of, const Passed& passed) const {
    for (int at = 0; at < tile.voxels; at += Lanes) {
      alignas(64) W up[Lanes], down[Lanes];
      for (int l = 0; l < Lanes; ++l) {
        up[l] = W(*g) * of.counts[at + l];
        if constexpr (reads_softmax<L>) down[l] = of.share[at + l] * passed.mean[at + l];
      }
      for (Index c = 0; c < pass.all.classes; ++c)
        for (int l = 0; l < Lanes; ++l) {
          const Index i = c * tile.voxels + at + l;
          W slope = tile.z[i];
          if constexpr (reads_softmax<L>) slope -= tile.e[i] * down[l];
          tile.z[i] = up[l] * slope;
        }
    }
  }
  SEGMED_HD void store(Tile& tile, T* to, int count, Leaving& leaving) const {
    const Index classes = pass.all.classes;
    if constexpr (Pass::in_columns) {
      leaving.send(leaving.left);
      T* rows = to;
      if (!fresh) rows = tile.e;  // where the softmax was
      if (fresh && past_caches) rows = leaving.rows;
      kernels<T>().to_rows(tile.z, tile.voxels, count, classes, rows);
      for (Index i = 0; !fresh && i < count * classes; ++i) to[i] += rows[i];
      if (fresh && past_caches) leaving.start(count * classes, to);
      return;
    }
    for (Index c = 0; c < classes; ++c) {
      const W* from = tile.z + c * tile.voxels;
      if (fresh)
        for (int v = 0; v < count; ++v) to[v * classes + c] = T(Wide<T>(from[v]));
      else
        for (int v = 0; v < count; ++v)
          to[v * classes + c] = T(Wide<T>(to[v * classes + c]) + Wide<T>(from[v]));
    }
  }
};

}  // namespace segmed
