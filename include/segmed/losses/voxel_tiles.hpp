// SPDX-License-Identifier: Apache-2.0
// What both passes of a voxel loss share: logits to probabilities, in tiles of voxels.
#pragma once
#include <cstring>

#include <segmed/backend/cpu.hpp>
#include <segmed/core/elementary.hpp>
#include <segmed/losses/voxel_loss.hpp>

namespace segmed {

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
  alignas(64) W z[256 * Lanes], e[256 * Lanes];
  std::uint8_t label[most_voxels];

  SEGMED_HD explicit VoxelTile(Index classes) {
    const int fitting = int(256 / classes);
    groups = Lanes == 1 ? 1 : fitting < most_groups ? fitting : most_groups;
    voxels = groups * Lanes;
  }
};

/// What all classes of a tile's voxels share. Kept apart from the tile, of which others know: what
/// a loss does not read is then never computed.
template <class W, int Lanes>
struct VoxelShares {
  static constexpr int voxels = VoxelTile<W, Lanes>::most_voxels;
  alignas(64) W share[voxels];  // one over the denominator
  // The largest logit, and the log of the sum of e^(z - top), of all classes and of the joined
  // background; apart, because their sum would round away what small logits differ in.
  W top[voxels], log_sum[voxels], joined_top[voxels], joined_log_sum[voxels];
  W total[voxels], joined_total[voxels];  // the sums themselves
  std::int32_t label[voxels];             // 0 where its class is not annotated
  W counts[voxels];                       // 0 for an ignored voxel, else 1
  std::int32_t counted[Lanes];            // sums of these
  W organ[voxels];                        // 0 for background, else 1
};

/// `ClassVoxel`'s members of these names, at compile time.
template <bool Annotated, bool Known>
struct ClassRole {
  static constexpr bool annotated = Annotated, known = Known;
};

/// What both passes share.
template <class T, class L, int Lanes>
struct VoxelPass {
  using W = VoxelNumber<L, Wide<T>>;
  using Tile = VoxelTile<W, Lanes>;
  using Shares = VoxelShares<W, Lanes>;
  static constexpr int sums = L::sums;
  using EachSum = std::make_integer_sequence<int, sums>;
  /// Whether the kernels of the processor's instruction set turn rows to columns and back.
  static constexpr bool in_columns = Lanes > 1 && std::same_as<T, W>&& std::floating_point<T>;
  L loss;
  const T* logits;
  const std::uint8_t* labels;
  ClassSums all;
  Index voxels;  // of a case

  /// Reads `count` voxels of case n from `row` on. Adds those with a label that no class has to
  /// `strangers`. Each step runs over all groups before the next: what one group waits for, others
  /// have done meanwhile.
  SEGMED_HD void load(Tile& tile, Shares& of, Index n, Index row, int count, bool complete,
                      std::int32_t* strangers) const {
    std::memcpy(tile.label, labels + row, std::size_t(count));
    for (int v = count; v < tile.voxels; ++v) tile.label[v] = ignored;
    const T* from = logits + row * all.classes;
    if constexpr (in_columns) {
      kernels<T>().to_columns(from, count, all.classes, tile.z, tile.voxels);
    } else {
      for (Index c = 0; c < all.classes; ++c)
        for (int v = 0; v < count; ++v)
          tile.z[c * tile.voxels + v] = W(Wide<T>(from[v * all.classes + c]));
    }
    for (Index c = 0; c < all.classes && count < tile.voxels; ++c)
      for (int v = count; v < tile.voxels; ++v) tile.z[c * tile.voxels + v] = 0;
    for (int l = 0; l < Lanes; ++l) of.counted[l] = 0;
    for (int at = 0; at < tile.voxels; at += Lanes)
      load_labels(tile, of, at, n, complete, strangers);
    if constexpr (reads_softmax<L>) {
      for (int at = 0; at < tile.voxels; at += Lanes) {
        if constexpr (in_columns) {  // logits of the next tile are on their way meanwhile
          const T* const next = from + (ahead(tile) + at) * all.classes;
          for (Index i = 0; i < Lanes * all.classes; i += 16) __builtin_prefetch(next + i);
        }
        exponentials(tile, of, at);
        if (reads_joined<L> && !complete) join(tile, of, at, n);
      }
      for (int at = 0; at < tile.voxels; at += Lanes)
        for (int v = at; v < at + Lanes; ++v) {
          of.share[v] = W(1) / of.total[v];
          of.log_sum[v] = math::fast_log(of.total[v]);
        }
      if (reads_joined<L> && !complete)
        for (int at = 0; at < tile.voxels; at += Lanes)
          for (int v = at; v < at + Lanes; ++v)
            of.joined_log_sum[v] = math::fast_log(of.joined_total[v]);
    }
  }
  /// How many voxels further on memory is asked for: whole tiles, of a page or more.
  SEGMED_HD int ahead(const Tile& tile) const {
    const Index bytes = tile.voxels * all.classes * Index(sizeof(T));
    return tile.voxels * int((4095 + bytes) / bytes);
  }
  SEGMED_HD void load_labels(const Tile& tile, Shares& of, int at, Index n, bool complete,
                             std::int32_t* strangers) const {
    const std::int32_t classes = std::int32_t(all.classes), known = all.unlabelled(n) ? 0 : 1;
    for (int l = 0; l < Lanes; ++l) {
      const std::int32_t label = tile.label[at + l];
      const std::int32_t seen = label != ignored ? 1 : 0;
      strangers[l] += label >= classes ? seen : 0;
      of.counted[l] += seen & known;
      of.counts[at + l] = math::number_of<W>((seen & known) != 0);
      of.label[at + l] = label;
    }
    for (int v = at; !complete && v < at + Lanes; ++v)
      if (!all.annotated[n].has(of.label[v])) of.label[v] = 0;
    for (int l = 0; l < Lanes; ++l) of.organ[at + l] = math::number_of<W>(of.label[at + l] != 0);
  }
  SEGMED_HD void exponentials(Tile& tile, Shares& of, int at) const {
    const Index end = all.classes * tile.voxels;
    alignas(64) W top[Lanes], total[Lanes];
    for (int l = 0; l < Lanes; ++l) top[l] = tile.z[at + l], total[l] = 0;
    for (Index i = at + tile.voxels; i < end; i += tile.voxels)
      for (int l = 0; l < Lanes; ++l) top[l] = tile.z[i + l] > top[l] ? tile.z[i + l] : top[l];
    for (Index i = at; i < end; i += tile.voxels)
      for (int l = 0; l < Lanes; ++l) tile.e[i + l] = math::fast_exp(tile.z[i + l] - top[l]);
    for (Index i = at; i < end; i += tile.voxels)
      for (int l = 0; l < Lanes; ++l) total[l] += tile.e[i + l];
    for (int l = 0; l < Lanes; ++l) of.top[at + l] = top[l], of.total[at + l] = total[l];
  }
  /// The sum of e^z over background and what nobody annotated, with a maximum of its own: it stays
  /// right where all of these underflow in the softmax.
  SEGMED_HD void join(const Tile& tile, Shares& of, int at, Index n) const {
    const AnnotatedSet& annotated = all.annotated[n];
    alignas(64) W top[Lanes], total[Lanes];
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
    for (int l = 0; l < Lanes; ++l)
      of.joined_top[at + l] = top[l], of.joined_total[at + l] = total[l];
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
  SEGMED_HD ClassVoxel<W> seen(const Tile& tile, const Shares& of, Index c, int v, R role) const {
    const Index i = c * tile.voxels + v;
    W p = 0;
    if constexpr (reads_softmax<L>) p = tile.e[i] * of.share[v];
    ClassVoxel<W> x = viewed(tile.z[i], p, of, v, role);
    x.is = math::number_of<W>(of.label[v] == std::int32_t(c));
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
};

}  // namespace segmed
