// SPDX-License-Identifier: Apache-2.0
// The two passes of a voxel loss: logits to sums, and slopes of the sums to the logits' gradient.
#pragma once
#include <segmed/backend/cpu.hpp>
#include <segmed/losses/exponential.hpp>
#include <segmed/losses/voxel_loss.hpp>

namespace segmed {

/// Voxels that one partial sum covers. Part of the numerics: another number gives other bits.
inline constexpr Index voxel_block = 2048;
/// Neighbouring voxels that are computed side by side: vector lanes on the CPU, one voxel at a time
/// elsewhere.
template <Device D>
inline constexpr int voxel_lanes = std::same_as<D, Cpu> ? 32 : 1;

/// Some groups of `Lanes` voxels, class by class. All that is ever stored of probabilities.
template <class W, int Lanes>
struct VoxelTile {
  static constexpr int most_groups = 4, most_voxels = most_groups * Lanes;
  int groups, voxels;
  // (classes, voxels): logits, later their gradient; softmax times its denominator
  W z[256 * Lanes], e[256 * Lanes];
  W share[most_voxels];  // one over the denominator
  // The largest logit, and the log of the sum of e^(z - top), of all classes and of the joined
  // background; apart, because their sum would round away what small logits differ in.
  W top[most_voxels], log_sum[most_voxels], joined_top[most_voxels], joined_log_sum[most_voxels];
  W mean[most_voxels], background[most_voxels];  // slopes that all classes share
  W counts[most_voxels];                         // 0 for an ignored voxel, else 1
  bool all_count;
  std::int32_t label[most_voxels];
  // The label's answers as numbers in memory, where no compiler makes branches of them again.
  W is[most_voxels], organ[most_voxels];

  SEGMED_HD explicit VoxelTile(Index classes) {
    const int fitting = int(256 / classes);
    groups = Lanes == 1 ? 1 : fitting < most_groups ? fitting : most_groups;
    voxels = groups * Lanes;
  }
};

/// `ClassVoxel`'s members of these names, at compile time.
template <bool Annotated, bool Known>
struct ClassRole {
  static constexpr bool annotated = Annotated, known = Known;
};

/// What both passes share: logits to probabilities, in tiles.
template <class T, class L, int Lanes>
struct VoxelPass {
  using W = VoxelNumber<L, Wide<T>>;
  using Tile = VoxelTile<W, Lanes>;
  static constexpr int sums = L::sums;
  using EachSum = std::make_integer_sequence<int, sums>;
  /// Whether the kernels of the processor's instruction set turn rows to columns and back.
  static constexpr bool in_columns = Lanes > 1 && std::same_as<T, W>&& std::floating_point<T>;
  L loss;
  const T* logits;
  const std::uint8_t* labels;
  ClassSums all;
  Index voxels, blocks;  // of a case

  /// Reads `count` voxels from `row` on; returns how many have a label that no class has.
  SEGMED_HD int load(Tile& tile, Index n, Index row, int count, bool complete) const {
    const std::int32_t classes = std::int32_t(all.classes), known = all.unlabelled(n) ? 0 : 1;
    for (int v = 0; v < count; ++v) tile.label[v] = labels[row + v];
    for (int v = count; v < tile.voxels; ++v) tile.label[v] = ignored;
    std::int32_t strangers = 0, counted = 0;
    for (int v = 0; v < tile.voxels; ++v) {
      const std::int32_t label = tile.label[v], seen = label != ignored ? 1 : 0;
      strangers += label >= classes ? seen : 0;
      tile.counts[v] = W(seen & known);
      counted += seen & known;
    }
    tile.all_count = counted == tile.voxels;
    for (int v = 0; !complete && v < tile.voxels; ++v)
      if (!all.annotated[n].has(tile.label[v])) tile.label[v] = 0;
    for (int v = 0; v < tile.voxels; ++v) tile.organ[v] = W(tile.label[v] != 0 ? 1 : 0);
    const T* from = logits + row * all.classes;
    if constexpr (in_columns) {
      kernels<T>().to_columns(from, count, all.classes, tile.z, tile.voxels);
    } else {
      for (Index c = 0; c < all.classes; ++c)
        for (int v = 0; v < count; ++v)
          tile.z[c * tile.voxels + v] = W(Wide<T>(from[v * all.classes + c]));
    }
    for (Index c = 0; c < all.classes; ++c)
      for (int v = count; v < tile.voxels; ++v) tile.z[c * tile.voxels + v] = 0;
    return strangers;
  }
  /// `row` is the tile's first; the logits of the next tile are on their way meanwhile.
  SEGMED_HD void softmax(Tile& tile, Index n, Index row, bool complete) const {
    if constexpr (reads_softmax<L>)
      for (int g = 0; g < tile.groups; ++g) {
        if constexpr (in_columns) {
          const T* const next = logits + (row + tile.voxels + g * Lanes) * all.classes;
          for (Index i = 0; i < Lanes * all.classes; i += 16) __builtin_prefetch(next + i);
        }
        softmax_of_group(tile, g * Lanes);
        if (reads_joined<L> && !complete) join(tile, g * Lanes, n);
      }
  }
  SEGMED_HD void softmax_of_group(Tile& tile, int at) const {
    W top[Lanes], total[Lanes];
    for (int l = 0; l < Lanes; ++l) top[l] = tile.z[at + l], total[l] = 0;
    for (Index i = at + tile.voxels; i < all.classes * tile.voxels; i += tile.voxels)
      for (int l = 0; l < Lanes; ++l) top[l] = tile.z[i + l] > top[l] ? tile.z[i + l] : top[l];
    for (Index i = at; i < all.classes * tile.voxels; i += tile.voxels)
      for (int l = 0; l < Lanes; ++l) {
        const W e = math::fast_exp(tile.z[i + l] - top[l]);
        tile.e[i + l] = e;
        total[l] += e;
      }
    for (int l = 0; l < Lanes; ++l) {
      tile.top[at + l] = top[l];
      tile.log_sum[at + l] = math::fast_log(total[l]);
      tile.share[at + l] = W(1) / total[l];
    }
  }
  /// The logarithm of the sum of e^z over background and what nobody annotated, with a maximum of
  /// its own: it stays right where all of these underflow in the softmax.
  SEGMED_HD void join(Tile& tile, int at, Index n) const {
    const AnnotatedSet& annotated = all.annotated[n];
    W top[Lanes], total[Lanes];
    for (int l = 0; l < Lanes; ++l) top[l] = tile.z[at + l], total[l] = 0;
    for (Index c = 1; c < all.classes; ++c) {
      const Index i = c * tile.voxels + at;
      if (annotated.has(c)) continue;
      for (int l = 0; l < Lanes; ++l) top[l] = tile.z[i + l] > top[l] ? tile.z[i + l] : top[l];
    }
    for (Index c = 0; c < all.classes; ++c) {
      const Index i = c * tile.voxels + at;
      if (c > 0 && annotated.has(c)) continue;
      for (int l = 0; l < Lanes; ++l) total[l] += math::fast_exp(tile.z[i + l] - top[l]);
    }
    for (int l = 0; l < Lanes; ++l) {
      tile.joined_top[at + l] = top[l];
      tile.joined_log_sum[at + l] = math::fast_log(total[l]);
    }
  }
  /// A class of voxel v by its logit and its probability, where `of` holds what the softmax has of
  /// its voxels; `is` is not set.
  template <class Voxels, class R>
  SEGMED_HD ClassVoxel<W> viewed(W logit, W p, const Voxels& of, int v, R) const {
    ClassVoxel<W> x;
    x.logit = logit;
    x.p = x.joined_p = x.log_p = x.joined_log_p = 0;
    if constexpr (reads_softmax<L>) {
      x.p = x.joined_p = p;
      x.log_p = x.joined_log_p = logit - of.top[v] - of.log_sum[v];
      if constexpr (reads_joined<L> && R::annotated && !R::known) {  // background of a partial case
        x.joined_log_p = (of.joined_top[v] - of.top[v]) + (of.joined_log_sum[v] - of.log_sum[v]);
        x.joined_p = math::fast_exp(x.joined_log_p);
      }
    }
    x.organ = of.organ[v];
    x.annotated = R::annotated, x.known = R::known;
    return x;
  }
  /// Class c of the tile's voxel v.
  template <class R>
  SEGMED_HD ClassVoxel<W> seen(const Tile& tile, Index c, int v, R role) const {
    const Index i = c * tile.voxels + v;
    W p = 0;
    if constexpr (reads_softmax<L>) p = tile.e[i] * tile.share[v];
    ClassVoxel<W> x = viewed(tile.z[i], p, tile, v, role);
    x.is = tile.is[v];
    return x;
  }
  /// Calls visit(role) with what the labels of case n say of class c.
  template <class Visit>
  SEGMED_HD void with_role(Index n, Index c, bool complete, const Visit& visit) const {
    if constexpr (!takes_partial_labels<L>)
      visit(ClassRole<true, true>{});
    else if (!all.annotated[n].has(c))
      visit(ClassRole<false, false>{});
    else if (c == 0 && !complete)
      visit(ClassRole<true, false>{});
    else
      visit(ClassRole<true, true>{});
  }
  /// Calls visit(c, role) for each class of case n.
  template <class Visit>
  SEGMED_HD void each_class(Tile& tile, Index n, bool complete, const Visit& visit) const {
    for (Index c = 0; c < all.classes; ++c) {
      for (int v = 0; v < tile.voxels; ++v) tile.is[v] = W(int(tile.label[v] == std::int32_t(c)));
      with_role(n, c, complete, [&](auto role) { visit(c, role); });
    }
  }
};

/// The forward pass: one item per block of voxels, which writes that block's sums.
template <class T, class L, int Lanes>
struct VoxelSums {
  using Pass = VoxelPass<T, L, Lanes>;
  using W = typename Pass::W;
  using Tile = typename Pass::Tile;
  Pass pass;
  double* partial;

  SEGMED_HD void operator()(Index i) const {
    const ClassSums& all = pass.all;
    const Index n = i / pass.blocks, first = i % pass.blocks * voxel_block;
    const Index last = first + voxel_block < pass.voxels ? first + voxel_block : pass.voxels;
    double* sums = partial + i * all.per_case();
    for (Index k = 0; k < all.per_case(); ++k) sums[k] = 0;
    const bool complete = all.complete(n);
    Tile tile(all.classes);
    W total[255 * Pass::sums * lanes];  // (classes, sums, lanes) of the block so far
    for (Index k = 0; k < all.classes * Pass::sums * lanes; ++k) total[k] = 0;
    for (Index v = first; v < last; v += tile.voxels) {
      const int count = int(last - v < tile.voxels ? last - v : tile.voxels);
      const Index row = n * pass.voxels + v;
      sums[all.per_case() - 1] += pass.load(tile, n, row, count, complete);
      pass.softmax(tile, n, row, complete);
      pass.each_class(tile, n, complete, [&](Index c, auto role) {
        add(tile, c, total + c * Pass::sums * lanes, role, typename Pass::EachSum{});
      });
    }
    for (Index c = 0; c < all.classes; ++c)
      for (int k = 0; k < Pass::sums; ++k)
        for (int l = 0; l < lanes; ++l)
          sums[c * all.stride + k] += double(total[(c * Pass::sums + k) * lanes + l]);
  }

 private:
  static constexpr int lanes = Lanes > 16 ? 16 : Lanes;  // what registers hold of some sums

  template <class R, int... K>
  SEGMED_HD void add(const Tile& tile, Index c, W* to, R role,
                     std::integer_sequence<int, K...>) const {
    W total[Pass::sums][lanes] = {};
    if (tile.all_count)
      for (int first = 0; first < tile.voxels; first += lanes)
        for (int l = 0; l < lanes; ++l) {
          W sum[Pass::sums] = {total[K][l]...};
          pass.loss.add(sum, pass.seen(tile, c, first + l, role));
          ((total[K][l] = sum[K]), ...);
        }
    else
      for (int first = 0; first < tile.voxels; first += lanes)
        for (int l = 0; l < lanes; ++l) {
          W part[Pass::sums] = {};
          pass.loss.add(part, pass.seen(tile, c, first + l, role));
          ((total[K][l] += tile.counts[first + l] * part[K]), ...);
        }
    for (int k = 0; k < Pass::sums; ++k)
      for (int l = 0; l < lanes; ++l) to[k * lanes + l] += total[k][l];
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

/// The backward pass: one item per block of voxels; computes the softmax again.
template <class T, class L, int Lanes>
struct VoxelPull {
  using Pass = VoxelPass<T, L, Lanes>;
  using W = typename Pass::W;
  using Tile = typename Pass::Tile;
  Pass pass;
  const Wide<T>* g;
  T* out;
  bool fresh;  // `out` holds nothing yet

  SEGMED_HD void operator()(Index i) const {
    const ClassSums& all = pass.all;
    const Index n = i / pass.blocks, first = i % pass.blocks * voxel_block;
    const Index last = first + voxel_block < pass.voxels ? first + voxel_block : pass.voxels;
    const bool complete = all.complete(n);
    Tile tile(all.classes);
    for (Index v = first; v < last; v += tile.voxels) {
      const int count = int(last - v < tile.voxels ? last - v : tile.voxels);
      const Index row = n * pass.voxels + v;
      pass.load(tile, n, row, count, complete);
      pass.softmax(tile, n, row, complete);
      for (int u = 0; u < tile.voxels; ++u) tile.mean[u] = 0;
      pass.each_class(tile, n, complete,
                      [&](Index c, auto role) { slopes(tile, c, all.slopes(n, c), role); });
      through_softmax(tile);
      store(tile, out + row * all.classes, count);
    }
  }

 private:
  /// Puts the slopes in the place of the logits of class c.
  template <class R>
  SEGMED_HD void slopes(Tile& tile, Index c, const double* from, R role) const {
    W ds[Pass::sums];
    for (int k = 0; k < Pass::sums; ++k) ds[k] = W(from[k]);
    for (int group = 0; group < tile.groups; ++group)
      for (int l = 0; l < Lanes; ++l) {
        const int v = group * Lanes + l;
        const Index i = c * tile.voxels + v;
        const Slope<W> s = pass.loss.slope(ds, pass.seen(tile, c, v, role));
        W direct = s.own + s.logit, shared = s.own;
        if constexpr (reads_joined<L>) {
          shared += s.joined;
          if constexpr (R::known) direct += s.joined;
          if constexpr (R::annotated && !R::known) tile.background[v] = s.joined;
          // What the joined background passes on to each class in it.
          if constexpr (!R::known)
            direct += tile.background[v] *
                      math::fast_exp(tile.z[i] - tile.joined_top[v] - tile.joined_log_sum[v]);
        }
        tile.mean[v] += shared;
        tile.z[i] = direct;
      }
  }
  SEGMED_HD void through_softmax(Tile& tile) const {
    const W up = W(*g);
    for (Index c = 0; c < pass.all.classes; ++c)
      for (int group = 0; group < tile.groups; ++group)
        for (int l = 0; l < Lanes; ++l) {
          const int v = group * Lanes + l;
          const Index i = c * tile.voxels + v;
          W slope = tile.z[i];
          if constexpr (reads_softmax<L>) slope -= tile.e[i] * tile.share[v] * tile.mean[v];
          tile.z[i] = up * tile.counts[v] * slope;
        }
  }
  SEGMED_HD void store(Tile& tile, T* to, int count) const {
    const Index classes = pass.all.classes;
    if constexpr (Pass::in_columns) {
      T* rows = fresh ? to : tile.e;  // where the softmax was
      kernels<T>().to_rows(tile.z, tile.voxels, count, classes, rows);
      for (Index i = 0; !fresh && i < count * classes; ++i) to[i] += rows[i];
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
