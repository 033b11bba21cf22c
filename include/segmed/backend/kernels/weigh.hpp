// SPDX-License-Identifier: Apache-2.0
// The gradient of convolution weights. Read once per instruction set: see simd.hpp.
//
// A row of the gradient is a (tap, fine channel); the sum runs over the coarse voxels of small
// tiles whose two sides are packed. Sums of about a thousand voxels are kept in T, then added in
// double, where there are more. The gradient is cut in blocks of fine channels and outputs of a
// group; of as many blocks at once as there is room for, partial sums are made side by side.
#include <segmed/backend/kernels/project.hpp>

namespace segmed::SEGMED_SET {

template <class T>
struct Weighing {
  static constexpr Index flush_after = 1024;  // voxels

  const Plan& plan;
  const ChannelBlocks<T>& blocks;
  const Feed<T>&fine, &coarse;
  Index slice, chunk, partials;  // fine channels and outputs' blocks of a block; merged at the end
  T* weight_grad;
  double* sums = nullptr;     // (partial, block, tap, fine channel, padded outputs)
  Index first = 0, last = 0;  // blocks at once

  struct Block {
    Index g, c0, count, first_output, last_output;  // outputs in their blocks
  };
  Index slices() const { return pieces(plan.inside, slice); }
  Index chunks() const { return pieces(blocks.count, chunk); }
  Index count() const { return plan.groups * slices() * chunks(); }
  Block block(Index i) const {
    const Index part = i % chunks() * chunk, c0 = i / chunks() % slices() * slice;
    return {i / chunks() / slices(), c0, std::min(slice, plan.inside - c0), part,
            std::min(blocks.count, part + chunk)};
  }
  Index width(const Block& b) const {
    return std::min(blocks.padded, blocks.first(b.last_output)) - blocks.first(b.first_output);
  }
  // Of the sums of some blocks, which lie one behind the other.
  Index numbers(Index begin, Index end) const { return before(end) - before(begin); }
  Index before(Index i) const {
    const Index taps = Index(plan.taps.size());
    if (i == count()) return taps * plan.groups * plan.inside * blocks.padded;
    const Block b = block(i);
    return taps *
           ((b.g * plan.inside + b.c0) * blocks.padded + b.count * blocks.first(b.first_output));
  }
  double* sums_of(Index partial, Index i) const {
    return sums + partial * numbers(first, last) + numbers(first, i);
  }
  // Whether no sum has a second part.
  bool has_one_sum() const {
    return partials == 1 && plan.target.cases * plan.target.voxels() <= flush_after;
  }
  Index tasks() const { return partials * (last - first); }
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) {
      const Index p = i / (last - first), b = first + i % (last - first);
      run(p, block(b), has_one_sum() ? nullptr : sums_of(p, b));
    }
  }
  // The gradient of a tap's weights from a fine channel of group g to outputs from `output` on.
  T* gradient(Index g, Index tap, Index c, Index output) const {
    return weight_grad + (tap * plan.inside + c) * plan.target.channels + g * plan.outside + output;
  }

 private:
  struct Tile {
    Index n, first[3], extent[3];
    Tile(const Plan& plan, Index i) : n(i / plan.tiles()) {
      plan.locate(i % plan.tiles(), first, extent);
    }
    Box box() const { return {{first[0], first[1], first[2]}, {extent[0], extent[1], extent[2]}}; }
  };
  // What the next tile reads: of the fine grid a part for each block of outputs.
  struct Ahead {
    BoxAhead<T> fine, coarse;
    Index block, blocks;
    void ask(Index part, Index parts) const {
      fine.ask(block * parts + part, blocks * parts), coarse.ask(part, parts);
    }
  };

  void run(Index partial, const Block& part, double* total) const {
    const auto [g, c0, count, first_block, last_block] = part;
    const Index taps = Index(plan.taps.size()), room = taps * count + 8;
    const Index cells = plan.tile[0] * plan.tile[1] * plan.tile[2], width = 2 * lanes<T>;
    const Box largest = plan.source_box({0, 0, 0}, plan.tile);
    const T* const in_place =
        plan.taps.size() <= 8 && !plan.has_border() ? dense_source(fine, plan.source) : nullptr;
    T* const packed = in_place ? nullptr : thread_scratch<T, 0>(largest.voxels() * count);
    T* sum = thread_scratch<T, 1>((last_block - first_block) * room * width);
    T* other = thread_scratch<T, 3>((last_block - first_block) * cells * width);
    Index* const within = thread_scratch<Index, 2>(6 * taps + 2 * plan.tile[0] * plan.tile[1]);
    const T** row = thread_scratch<const T*, 4>(room);

    const Index tiles = plan.target.cases * plan.tiles();
    const Index last_tile = (partial + 1) * tiles / partials - 1;
    Index voxels = 0;
    bool first_flush = true;
    for (Index i = partial * tiles / partials; i <= last_tile; ++i) {
      const Tile tile(plan, i), next(plan, std::min(i + 1, last_tile));
      Box box = plan.source_box(tile.first, tile.extent);
      // Blocks of rows of few channels have taps of all sides: nothing to leave out.
      const bool all = count < block_rows<2> || box.inside(plan.source);
      const T* from = packed;
      Index step = count;  // between neighbouring voxels
      if (in_place) {
        const Grid& grid = plan.source;
        step = grid.channels;
        from = in_place + g * plan.inside + c0 +
               grid.index(
                   {tile.n, (box.low[0] * grid.height + box.low[1]) * grid.width + box.low[2], 0});
        box.size[0] = grid.depth, box.size[1] = grid.height, box.size[2] = grid.width;
      } else {
        read_box(FeedRows<T>(fine, tile.n, g * plan.inside + c0, count), plan.source, box, count,
                 packed);
      }
      const Runs rows = all ? list_rows(box, tile.extent, step, within) : Runs{};
      if (!all) list_within(tile, within);
      list_taps(box, from, step, count, row, room);
      for (Index b = first_block; b < last_block; ++b) {
        T* to = sum + (b - first_block) * room * width;
        T* values = other + (b - first_block) * cells * width;
        read_coarse(tile, g, b, values);
        const Ahead ahead{{fine, plan.source, plan.source_box(next.first, next.extent), next.n,
                           g * plan.inside + c0, count},
                          {coarse, plan.target, next.box(), next.n,
                           g * plan.outside + blocks.first(b), blocks.live(b)},
                          b - first_block,
                          last_block - first_block};
        Within list{*this, box, tile.extent, count, step, within, within + 6 * taps};
        const bool puts = !total && i == last_tile;
        const Written written{puts ? gradient(g, 0, c0, blocks.first(b)) : nullptr, count, b};
        if (blocks.vectors(b) == 2)
          sum_rows<2>(row, taps * count, rows, list, values, voxels == 0, to, ahead, written);
        else
          sum_rows<1>(row, taps * count, rows, list, values, voxels == 0, to, ahead, written);
      }
      voxels += tile.box().voxels();
      if (voxels < flush_after && i < last_tile) continue;
      for (Index b = first_block; b < last_block; ++b)
        if (const T* const own = sum + (b - first_block) * room * width; total)
          flush(own, b, part, first_flush, total);
        else
          add_to_gradient(own, b, part);
      voxels = 0, first_flush = false;
    }
  }
  // The runs of a tile, of which all taps have all cells.
  Runs list_rows(const Box& box, const Index (&extent)[3], Index step, Index* runs) const {
    Index n = 0;
    for (Index z = 0; z < extent[0]; ++z)
      for (Index y = 0; y < extent[1]; ++y)
        runs[n++] =
            (z * plan.source_step[0] * box.size[1] + y * plan.source_step[1]) * box.size[2] * step;
    return {runs, n, extent[2], plan.source_step[2] * step};
  }
  // The cells of a tile whose number lies within the fine grid: for each tap and axis begin and
  // end; where there are none, one, which reads zeros.
  void list_within(const Tile& tile, Index* to) const {
    const Index whole[3] = {plan.source.depth, plan.source.height, plan.source.width};
    for (const Tap& tap : plan.taps)
      for (int a = 0; a < 3; ++a, to += 2) {
        const Index cells = tile.extent[a], step = plan.source_step[a];
        const Index at = tile.first[a] * step + tap.offset[a];
        to[0] = std::clamp<Index>(pieces(std::max<Index>(0, -at), step), 0, cells - 1);
        to[1] =
            std::clamp<Index>(pieces(std::max<Index>(0, whole[a] - at), step), to[0] + 1, cells);
      }
  }
  // The runs of blocks of rows: what any of their taps has within the grid.
  struct Within {
    const Weighing& of;
    const Box& box;
    const Index (&extent)[3];
    Index count, step;  // fine channels; numbers from voxel to voxel
    const Index* within;
    Index* list;
    Index first_tap = -1, last_tap = -1;
    Index begin[3] = {0, 0, 0}, end[3] = {0, 0, 0};
    Runs found{list, 0, 0, of.plan.source_step[2] * step};

    const Runs& runs(Index row, Index rows) {
      const Index taps = Index(of.plan.taps.size());
      const Index low = row / count, high = std::min(taps - 1, (row + rows - 1) / count);
      if (low != first_tap || high != last_tap) first_tap = low, last_tap = high, join();
      return found;
    }

   private:
    void join() {
      bool same = found.count > 0;
      for (int a = 0; a < 3; ++a) {
        Index low = extent[a], high = 0;
        for (Index t = first_tap; t <= last_tap; ++t)
          low = std::min(low, within[6 * t + 2 * a]),
          high = std::max(high, within[6 * t + 2 * a + 1]);
        same = same && low == begin[a] && high == end[a];
        begin[a] = low, end[a] = high;
      }
      if (!same) make();
    }
    void make() {
      const Index* const by = of.plan.source_step;
      Index n = 0, line = 0;
      for (Index z = begin[0]; z < end[0]; ++z)
        for (Index y = begin[1]; y < end[1]; ++y) {
          const Index cell = (z * extent[1] + y) * extent[2] + begin[2];
          list[n++] =
              ((z * by[0] * box.size[1] + y * by[1]) * box.size[2] + begin[2] * by[2]) * step;
          list[n++] = cell - line, line = cell + end[2] - begin[2];
        }
      found.count = n / 2, found.length = end[2] - begin[2];
    }
  };
  // Where the numbers of each (tap, channel) begin.
  void list_taps(const Box& box, const T* origin, Index step, Index count, const T** row,
                 Index room) const {
    const T** const end = row + room;
    for (const Tap& tap : plan.taps) {
      const Index at[3] = {tap.offset[0] - plan.low[0], tap.offset[1] - plan.low[1],
                           tap.offset[2] - plan.low[2]};
      const T* from = origin + ((at[0] * box.size[1] + at[1]) * box.size[2] + at[2]) * step;
      for (Index c = 0; c < count; ++c) *row++ = from++;
    }
    std::fill(row, end, row[-1]);
  }
  void read_coarse(const Tile& tile, Index g, Index block, T* to) const {
    const Index width = blocks.width(block), live = blocks.live(block);
    if (live < width) std::memset(to, 0, std::size_t(tile.box().voxels() * width) * sizeof(T));
    const FeedRows<T> rows(coarse, tile.n, g * plan.outside + blocks.first(block), live);
    read_box(rows, plan.target, tile.box(), width, to);
  }
  // Rows of the gradient that sums are added to soon: asked for meanwhile, to be written.
  struct Written {
    T* first;  // of the first tap; null: none
    Index count, block;
  };
  [[gnu::noinline]] void ask(const Written& to, Index row, Index end) const {
    asm volatile("");  // g++ drops calls of functions that do nothing but ask
    const Index live = blocks.live(to.block), channels = plan.target.channels;
    for (; row < end; ++row) {
      const Index tap = plan.taps[std::size_t(row / to.count)].weight;
      const T* const from = to.first + (tap * plan.inside + row % to.count) * channels;
      for (Index o = 0; o < live; o += 64 / Index(sizeof(T))) __builtin_prefetch(from + o, 1);
    }
  }
  // `rows` where there are any, else those of the list.
  template <int vectors>
  void sum_rows(const T* const* row, Index count, const Runs& rows, Within& list, const T* values,
                bool fresh, T* to, const Ahead& ahead, const Written& written) const {
    constexpr Index at_once = block_rows<vectors>, width = vectors * lanes<T>;
    static constexpr T zero[width] = {};
    for (Index j = 0; j < count; j += at_once, to += at_once * width) {
      ahead.ask(j / at_once, pieces(count, at_once));
      if (written.first) ask(written, j, std::min(count, j + at_once));
      const T* const before = fresh ? zero : to;
      const Index before_step = fresh ? 0 : width;
      if (rows.count > 0)
        multiply<T, vectors>(row + j, rows, values, before, before_step, to, width);
      else
        multiply<T, vectors, Put::cached, at_once, false, true>(
            row + j, list.runs(j, at_once), values, before, before_step, to, width);
    }
  }
  void flush(const T* sum, Index b, const Block& part, bool begins, double* total) const {
    const Index live = blocks.width(b), step = width(part);
    total += blocks.first(b) - blocks.first(part.first_output);
    for (const Tap& tap : plan.taps) {
      double* to = total + tap.weight * part.count * step;
      for (Index c = 0; c < part.count; ++c, to += step, sum += live)
        for (Index o = 0; o < live; o += lanes<double>)
          store(to + o, begins ? widened(sum + o) : load(to + o) + widened(sum + o));
    }
  }
  void add_to_gradient(const T* sum, Index b, const Block& part) const {
    const Index live = blocks.live(b), step = blocks.width(b);
    for (const Tap& tap : plan.taps)
      for (Index c = 0; c < part.count; ++c, sum += step) {
        T* const to = gradient(part.g, tap.weight, part.c0 + c, blocks.first(b));
        Index o = 0;
        for (; o + lanes<T> <= live; o += lanes<T>) store(to + o, load(to + o) + load(sum + o));
        for (; o < live; ++o) to[o] += sum[o];
      }
  }
};

template <class T>
struct MergeWeights {
  const Weighing<T>& from;
  Index tasks() const { return (from.last - from.first) * Index(from.plan.taps.size()); }
  void operator()(Index begin, Index end) const {
    const Index taps = Index(from.plan.taps.size()), all = from.numbers(from.first, from.last);
    for (Index i = begin; i < end; ++i) {
      const Index b = from.first + i / taps, tap = i % taps;
      const auto block = from.block(b);
      const Index width = from.width(block), first = from.blocks.first(block.first_output);
      const Index live = std::min(width, from.plan.outside - first);
      const double* sum = from.sums_of(0, b) + tap * block.count * width;
      T* to = from.gradient(block.g, tap, block.c0, first);
      for (Index c = 0; c < block.count; ++c, sum += width, to += from.plan.target.channels)
        for (Index o = 0; o < live; o += lanes<double>) {
          Vector<double> total = load(sum + o);
          for (Index p = 1; p < from.partials; ++p) total += load(sum + p * all + o);
          double put[lanes<double>];
          store(put, total);
          for (Index k = 0; k < std::min(lanes<double>, live - o); ++k) to[o + k] += T(put[k]);
        }
    }
  }
};

template <class T>
void weigh_plainly(const Window& w, const Feed<T>& fine, const Feed<T>& coarse, T* weight_grad) {
  Plan plan(w, true);
  const ChannelBlocks<T> blocks(plan.outside);
  const Index taps = Index(plan.taps.size());
  Index slice = std::min<Index>(plan.inside, taps > 1 ? 32 : 64);
  std::copy(plan.cells, plan.cells + 3, plan.tile);
  cut_tile(plan.tile, 128, plan.shorter_rows());
  const Index tiles = plan.target.cases * plan.tiles();
  constexpr Index room = (Index(16) << 20) / Index(sizeof(double));  // for all sums at once
  const Index numbers = plan.groups * taps * plan.inside * blocks.padded;
  const Index most = std::max<Index>(1, room / numbers);
  Index chunk = std::min<Index>(blocks.count, std::max<Index>(1, 64 / (2 * lanes<T>)));
  Index partials = std::clamp<Index>(tiles / 8, 1, std::min<Index>(most, 32));
  const auto tasks = [&] {
    return partials * plan.groups * pieces(plan.inside, slice) * pieces(blocks.count, chunk);
  };
  while (tasks() < 16 && chunk > 1) chunk = (chunk + 1) / 2;
  while (tasks() < 8 && 2 * partials <= std::min(tiles, most)) partials *= 2;
  while (slice > 1 && taps * slice * chunk * 2 * lanes < T >> room) slice /= 2;

  Weighing<T> weighing{plan, blocks, fine, coarse, slice, chunk, partials, weight_grad};
  if (weighing.has_one_sum()) {
    weighing.last = weighing.count();
    return parallel_for(weighing.tasks(), 1, weighing);
  }
  Scratch<double> sums;
  while (weighing.last < weighing.count()) {
    weighing.first = weighing.last++;
    Index all = weighing.numbers(weighing.first, weighing.last);
    for (; weighing.last < weighing.count(); ++weighing.last) {
      const Index next = weighing.numbers(weighing.last, weighing.last + 1);
      if (partials * (all + next) > room) break;
      all += next;
    }
    weighing.sums = sums.grow(partials * all);
    parallel_for(weighing.tasks(), 1, weighing);
    const MergeWeights<T> merge{weighing};
    parallel_for(merge.tasks(), 1, merge);
  }
}

}  // namespace segmed::SEGMED_SET
