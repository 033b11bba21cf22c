// SPDX-License-Identifier: Apache-2.0
// The two passes of a voxel loss: logits to sums, and slopes of the sums to the logits' gradient.
#pragma once
#include <atomic>
#include <cstring>

#include <segmed/backend/cpu.hpp>
#include <segmed/losses/exponential.hpp>
#include <segmed/losses/voxel_blocks.hpp>
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

/// What both passes share: logits to probabilities, in tiles.
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
                         std::integer_sequence<int, K...>,
                         std::integer_sequence<int, G...>) const {
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

/// The backward pass: one item per run of voxels; computes the softmax again.
template <class T, class L, int Lanes>
struct VoxelPull {
  using Pass = VoxelPass<T, L, Lanes>;
  using W = typename Pass::W;
  using Tile = typename Pass::Tile;
  using Shares = typename Pass::Shares;
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
    Departure leaving;
    for (Index v = first; v < last; v += tile.voxels) {
      const int count = int(last - v < tile.voxels ? last - v : tile.voxels);
      const Index row = n * pass.voxels + v;
      Shares of;
      std::int32_t strangers[Lanes] = {};
      pass.load(tile, of, n, row, count, complete, strangers);
      pull(tile, of, n, complete, of_sums, leaving);
      store(tile, out + row * all.classes, count, leaving);
    }
    leaving.send(leaving.left);
    if (past_caches) std::atomic_thread_fence(std::memory_order_seq_cst);
  }

 private:
  /// A tile's gradient on its way past the caches, a piece at a time while the next tile is
  /// computed: memory takes it more slowly than it was made.
  struct Departure {
    alignas(64) T rows[Pass::in_columns ? 256 * Lanes : 1];
    Index next = 0, left = 0;
    T* to = nullptr;

    Departure() {}
    void send(Index count) {
      if constexpr (Pass::in_columns) {
        if (count > left) count = left;
        if (count > 0) kernels<T>().put_past(rows + next, count, to + next);
        next += count, left -= count;
      }
    }
  };
  /// What the logits of a voxel get from the slopes of all its classes.
  struct Passed {
    alignas(64) W mean[Tile::most_voxels];
    W background[Tile::most_voxels];  // the joined background's slope
  };
  SEGMED_HD void pull(Tile& tile, const Shares& of, Index n, bool complete, const W* of_sums,
                      Departure& leaving) const {
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
  SEGMED_HD void store(Tile& tile, T* to, int count, Departure& leaving) const {
    const Index classes = pass.all.classes;
    if constexpr (Pass::in_columns) {
      leaving.send(leaving.left);
      T* const rows = !fresh ? tile.e : past_caches ? leaving.rows : to;  // e: where the softmax was
      kernels<T>().to_rows(tile.z, tile.voxels, count, classes, rows);
      for (Index i = 0; !fresh && i < count * classes; ++i) to[i] += rows[i];
      if (fresh && past_caches) leaving.next = 0, leaving.left = count * classes, leaving.to = to;
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
