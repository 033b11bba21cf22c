// SPDX-License-Identifier: Apache-2.0
// Convolution and its transpose as one algorithm. Read once per instruction set: see simd.hpp.
//
// The target is walked in cells: a cell is one coarse voxel, that is one target voxel when the
// coarse grid is written, and stride^3 of them, one per phase, when the fine grid is. In either
// case a phase is a list of taps at fixed offsets from the cell's source voxel. A task packs the
// source box of a tile of cells and sums blocks of (cells x two vectors of outputs) in registers.
#include <segmed/backend/kernels/pack.hpp>

namespace segmed::SEGMED_SET {

struct Tap {
  Index offset[3], weight;
};
struct Phase {
  Index shift[3], first_tap, taps;  // of the target voxel within the cell; of the plan's taps
};

// Extents cut in halves, the largest first, until a tile has at most `budget` cells. Rows stay
// longer than columns: what is done per row then costs little.
inline void cut_tile(Index (&tile)[3], Index budget) {
  while (tile[0] * tile[1] * tile[2] > budget) {
    const Index size[3] = {tile[0], tile[1], (tile[2] + 3) / 4};
    int a = size[0] >= size[1] ? 0 : 1;
    if (size[2] > size[a] || tile[a] == 1) a = 2;
    tile[a] = (tile[a] + 1) / 2;
  }
}
inline Index pieces(Index whole, Index part) { return (whole + part - 1) / part; }

struct Plan {
  Grid source, target;
  bool to_coarse;
  Index groups, inside, outside;         // source and target channels of a group
  Index cells[3], tile[3];               // all, and of one task
  Index source_step[3], target_step[3];  // voxels from cell to cell
  Index low[3], high[3];                 // offsets of the taps
  std::vector<Tap> taps;
  std::vector<Phase> phases;

  Plan(const Window& w, bool coarse) : to_coarse(coarse), groups(w.groups) {
    source = coarse ? w.fine : w.coarse, target = coarse ? w.coarse : w.fine;
    inside = source.channels / groups, outside = target.channels / groups;
    const Index extent[3] = {target.depth, target.height, target.width};
    Index count[3];
    for (int a = 0; a < 3; ++a) {
      source_step[a] = coarse ? w.stride[a] : 1, target_step[a] = coarse ? 1 : w.stride[a];
      cells[a] = pieces(extent[a], target_step[a]), count[a] = std::min(target_step[a], extent[a]);
    }
    for (Index z = 0; z < count[0]; ++z)
      for (Index y = 0; y < count[1]; ++y)
        for (Index x = 0; x < count[2]; ++x) add_phase(w, {{z, y, x}, Index(taps.size()), 0});
    for (int a = 0; a < 3; ++a) {
      low[a] = taps.empty() ? 0 : taps[0].offset[a], high[a] = low[a];
      for (const Tap& tap : taps)
        low[a] = std::min(low[a], tap.offset[a]), high[a] = std::max(high[a], tap.offset[a]);
    }
  }
  Index tiles() const {
    return pieces(cells[0], tile[0]) * pieces(cells[1], tile[1]) * pieces(cells[2], tile[2]);
  }
  // The first cell of tile i and its extent, smaller at the far ends.
  void locate(Index i, Index (&first)[3], Index (&extent)[3]) const {
    for (int a = 2; a >= 0; --a) {
      const Index n = pieces(cells[a], tile[a]);
      first[a] = i % n * tile[a], extent[a] = std::min(tile[a], cells[a] - first[a]), i /= n;
    }
  }
  Box source_box(const Index (&first)[3], const Index (&extent)[3]) const {
    Box box;
    for (int a = 0; a < 3; ++a) {
      box.low[a] = first[a] * source_step[a] + low[a];
      box.size[a] = (extent[a] - 1) * source_step[a] + high[a] - low[a] + 1;
    }
    return box;
  }

 private:
  // Taps in the order of their offsets, so that neighbours form runs.
  void add_phase(const Window& w, Phase phase) {
    Index k[3];
    const auto offset = [&](int a, Index& out) {
      const Index t = to_coarse ? k[a] * w.dilation[a] - w.padding[a]
                                : phase.shift[a] + w.padding[a] - k[a] * w.dilation[a];
      out = to_coarse ? t : t / w.stride[a];
      return to_coarse || t % w.stride[a] == 0;
    };
    for (Index i = 0; i < w.taps(); ++i) {
      Index rest = to_coarse ? i : w.taps() - 1 - i;  // the transpose flips the kernel
      const Index weight = rest;
      for (int a = 2; a >= 0; --a) k[a] = rest % w.kernel[a], rest /= w.kernel[a];
      Tap tap{{0, 0, 0}, weight};
      if (offset(0, tap.offset[0]) && offset(1, tap.offset[1]) && offset(2, tap.offset[2]))
        taps.push_back(tap), ++phase.taps;
    }
    phases.push_back(phase);
  }
};

// Channels in blocks of two vectors, the last perhaps of one; or, where an odd number of vectors
// has to make equal blocks, of one each.
template <class T>
struct ChannelBlocks {
  Index channels, padded, most = 2, count;

  explicit ChannelBlocks(Index n, bool equal = false) : channels(n) {
    const Index all = pieces(n, lanes<T>);
    if (equal && all % 2 != 0) most = 1;
    count = pieces(all, most), padded = all * lanes<T>;
  }
  Index first(Index b) const { return b * most * lanes<T>; }
  Index vectors(Index b) const { return std::min(most, padded / lanes<T> - most * b); }
  Index width(Index b) const { return vectors(b) * lanes<T>; }
  Index live(Index b) const { return std::min(width(b), channels - first(b)); }
};

// The weights of one call as the micro-kernels read them: by group, block of source channels,
// phase, block of outputs; then tap, source channel, output.
template <class T>
struct PackedWeights {
  const Plan& plan;
  const ChannelBlocks<T>& blocks;
  const T* weight;
  Index slice;  // source channels to a block
  T* to;

  Index offset(Index group, Index c0, Index count, const Phase& phase, Index block) const {
    const Index taps = Index(plan.taps.size());
    return ((group * plan.inside + c0) * taps + count * phase.first_tap) * blocks.padded +
           count * phase.taps * blocks.first(block);
  }
  void operator()(Index begin, Index end) const {
    const Index slices = pieces(plan.inside, slice);
    for (Index i = begin; i < end; ++i) {
      const Index b = i % blocks.count, s = i / blocks.count % slices,
                  p = i / blocks.count / slices % Index(plan.phases.size()),
                  g = i / blocks.count / slices / Index(plan.phases.size());
      pack(g, s * slice, std::min(slice, plan.inside - s * slice), plan.phases[std::size_t(p)], b);
    }
  }
  void pack(Index g, Index c0, Index count, const Phase& phase, Index block) const {
    const Index width = blocks.width(block), first = blocks.first(block);
    const Index live = blocks.live(block);
    T* out = to + offset(g, c0, count, phase, block);
    for (Index t = 0; t < phase.taps; ++t) {
      const Index k = plan.taps[std::size_t(phase.first_tap + t)].weight;
      for (Index c = c0; c < c0 + count; ++c, out += width) {
        if (plan.to_coarse) {
          const T* from =
              weight + (k * plan.inside + c) * plan.target.channels + g * plan.outside + first;
          Index o = 0;
          for (; o + lanes<T> <= live; o += lanes<T>) store(out + o, load(from + o));
          for (; o < live; ++o) out[o] = from[o];
        } else {
          const T* from =
              weight + (k * plan.outside + first) * plan.source.channels + g * plan.inside + c;
          for (Index o = 0; o < live; ++o) out[o] = from[o * plan.source.channels];
        }
        for (Index o = live; o < width; ++o) out[o] = 0;
      }
    }
  }
};

// A box of voxels and where they go: one vector of channels, put there or added to what is there,
// and summed.
template <class T>
struct BoxSink {
  const Index* extent;
  T* out;  // first voxel, first channel
  const Index* out_step;
  const T* sums;  // likewise
  const Index* sums_step;
  const T* bias;
  bool add;

  void whole(double* moments, Index channels) const {
    const Vector<T> more = bias ? load(bias) : Vector<T>{};
    if (!moments) {
      for (Index z = 0; z < extent[0]; ++z)
        for (Index y = 0; y < extent[1]; ++y) {
          T* to = out + z * out_step[0] + y * out_step[1];
          const T* from = sums + z * sums_step[0] + y * sums_step[1];
          for (Index x = 0; x < extent[2]; ++x, to += out_step[2], from += sums_step[2])
            put(to, from, more);
        }
      return;
    }
    DoubleSum<T> sum(moments), squares(moments + channels);
    for (Index z = 0; z < extent[0]; ++z)
      for (Index y = 0; y < extent[1]; ++y) {
        T* to = out + z * out_step[0] + y * out_step[1];
        const T* from = sums + z * sums_step[0] + y * sums_step[1];
        for (Index x = 0; x < extent[2]; ++x, to += out_step[2], from += sums_step[2]) {
          const Vector<T> value = put(to, from, more);
          sum.add(value), squares.add_product(value, value);
        }
      }
    sum.put(moments), squares.put(moments + channels);
  }
  void one(double* moments, Index channels) const {
    const T more = bias ? *bias : T(0);
    for (Index z = 0; z < extent[0]; ++z)
      for (Index y = 0; y < extent[1]; ++y) {
        T* to = out + z * out_step[0] + y * out_step[1];
        const T* from = sums + z * sums_step[0] + y * sums_step[1];
        for (Index x = 0; x < extent[2]; ++x, to += out_step[2], from += sums_step[2]) {
          const T value = add ? *to + (*from + more) : *from + more;
          *to = value;
          if (!moments) continue;
          moments[0] += double(value);
          moments[channels] = fused<double>(double(value), double(value), moments[channels]);
        }
      }
  }

 private:
  [[gnu::always_inline]] Vector<T> put(T* to, const T* from, const Vector<T>& more) const {
    Vector<T> value = load(from) + more;
    if (add) value = load(to) + value;
    store(to, value);
    return value;
  }
};

// Writes a box of sums to channels [c, c + live) of a sink whose first voxel is `voxel`; voxels of
// the sink are voxel_step apart. Moments of the tile: sums, and `all` further sums of squares.
template <class T>
void put_box(const Sink<T>& sink, const Index (&extent)[3], Index voxel,
             const Index (&voxel_step)[3], Index c, Index live, const T* sums,
             const Index (&sums_step)[3], const T* bias, double* moments, Index all) {
  for (Index o = 0; o < live;) {
    const int part = c + o < sink.grid[0].channels ? 0 : 1;
    const Index in_part = c + o - (part ? sink.grid[0].channels : 0);
    const Index channels = sink.grid[part].channels;
    const bool full = o + lanes<T> <= live && in_part + lanes<T> <= channels;
    if (sink.out[part]) {
      const Index step[3] = {voxel_step[0] * channels, voxel_step[1] * channels,
                             voxel_step[2] * channels};
      const BoxSink<T> box{extent,        sink.out[part] + voxel * channels + in_part,
                           step,          sums + o,
                           sums_step,     bias ? bias + o : nullptr,
                           sink.add[part]};
      double* m = moments ? moments + o : nullptr;
      if (full)
        box.whole(m, all);
      else
        box.one(m, all);
    }
    o += full ? lanes<T> : 1;
  }
}

template <class T>
struct Convolution {
  const Plan& plan;
  const ChannelBlocks<T>& blocks;
  const PackedWeights<T>& weights;
  const Feed<T>& feed;
  const Sink<T>& sink;
  Index chunk;      // blocks of outputs to a task
  double* moments;  // (case, tile, sum or square, padded outputs of all groups)

  Index chunks() const { return pieces(blocks.count, chunk); }
  Index tasks() const { return plan.target.cases * plan.tiles() * plan.groups * chunks(); }
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) {
      const Index part = i % chunks(), g = i / chunks() % plan.groups;
      run(i / chunks() / plan.groups, g, part * chunk, std::min(blocks.count, (part + 1) * chunk));
    }
  }

 private:
  void run(Index case_tile, Index g, Index first_block, Index last_block) const {
    Index first[3], extent[3];
    const Index n = case_tile / plan.tiles();
    plan.locate(case_tile % plan.tiles(), first, extent);
    Box box = plan.source_box(first, extent);
    const bool in_place = reads_in_place();
    if (in_place)
      box.size[0] = plan.source.depth, box.size[1] = plan.source.height,
      box.size[2] = plan.source.width;
    const Index cells = extent[0] * extent[1] * extent[2], room = cells + block_rows<1>;
    const Index phases = Index(plan.phases.size());
    const Index width = (last_block - first_block) * 2 * lanes<T>;
    T* const packed = in_place ? nullptr : thread_scratch<T, 0>(box.voxels() * weights.slice);
    T* sums = thread_scratch<T, 1>(phases * room * width);
    Index* cell_at = thread_scratch<Index, 2>(room + Index(plan.taps.size()));
    Index* runs = cell_at + room;
    for (Index z = 0, i = 0; z < extent[0]; ++z)
      for (Index y = 0; y < extent[1]; ++y)
        for (Index x = 0; x < extent[2]; ++x, ++i)
          cell_at[i] =
              (z * plan.source_step[0] * box.size[1] + y * plan.source_step[1]) * box.size[2] +
              x * plan.source_step[2];
    for (Index i = cells; i < room; ++i) cell_at[i] = cell_at[cells - 1];

    for (Index c0 = 0; c0 < plan.inside; c0 += weights.slice) {
      const Index count = std::min(weights.slice, plan.inside - c0);
      const T* from = packed;
      Index step = count;  // between neighbouring voxels
      if (in_place) {
        step = plan.source.channels;
        from = feed.values.lane[0].x + g * plan.inside + c0 +
               plan.source.index(
                   {n, (box.low[0] * box.size[1] + box.low[1]) * box.size[2] + box.low[2], 0});
      } else {
        const FeedRows<T> rows(feed, n, g * plan.inside + c0, count);
        read_box(rows, plan.source, box, count, packed);
      }
      for (Index p = 0; p < phases; ++p) {
        const Phase& phase = plan.phases[std::size_t(p)];
        const Runs list = list_runs(phase, box, count, runs);
        for (Index b = first_block; b < last_block; ++b) {
          T* to = sums + p * room * width + (b - first_block) * room * 2 * lanes<T>;
          const T* w = weights.to + weights.offset(g, c0, count, phase, b);
          if (blocks.vectors(b) == 2)
            sum_block<2>(list, from, cell_at, cells, step, w, c0 == 0, g, b, to);
          else
            sum_block<1>(list, from, cell_at, cells, step, w, c0 == 0, g, b, to);
        }
      }
    }
    for (Index p = 0; p < phases; ++p)
      for (Index b = first_block; b < last_block; ++b)
        write(plan.phases[std::size_t(p)], first, extent, n, case_tile, g, b,
              sums + p * room * width + (b - first_block) * room * 2 * lanes<T>);
  }
  // With one tap, no border and nothing pending there is nothing to pack.
  bool reads_in_place() const {
    const Lane<T>& lane = feed.values.lane[0];
    if (feed.is_gradient || !lane.plain() || lane.grid.channels != plan.source.channels)
      return false;
    const Index extent[3] = {plan.source.depth, plan.source.height, plan.source.width};
    for (int a = 0; a < 3; ++a)
      if (plan.low[a] != 0 || plan.high[a] != 0 ||
          (plan.cells[a] - 1) * plan.source_step[a] >= extent[a])
        return false;
    return true;
  }
  // Taps whose packed numbers are neighbours are one run; all runs of a phase are equally long.
  Runs list_runs(const Phase& phase, const Box& box, Index count, Index* runs) const {
    const Tap* taps = plan.taps.data() + phase.first_tap;
    Index joined = 1;
    while (joined < phase.taps && taps[joined].offset[0] == taps[0].offset[0] &&
           taps[joined].offset[1] == taps[0].offset[1] &&
           taps[joined].offset[2] == taps[0].offset[2] + joined)
      ++joined;
    Index n = 0;
    for (Index t = 0; t < phase.taps; t += joined)
      runs[n++] =
          (((taps[t].offset[0] - plan.low[0]) * box.size[1] + taps[t].offset[1] - plan.low[1]) *
               box.size[2] +
           taps[t].offset[2] - plan.low[2]) *
          count;
    return {runs, n, joined * count, 1};
  }
  template <int vectors>
  void sum_block(const Runs& runs, const T* from, const Index* cell_at, Index cells, Index step,
                 const T* w, bool fresh, Index g, Index block, T* to) const {
    constexpr Index rows = block_rows<vectors>, width = vectors * lanes<T>;
    T bias[2 * lanes<T>] = {};
    const Index o = g * plan.outside + blocks.first(block);
    for (Index i = 0; sink.bias && i < blocks.live(block); ++i) bias[i] = sink.bias[o + i];
    for (Index i = 0; i < cells; i += rows, to += rows * width) {
      const T* row[rows];
      for (Index r = 0; r < rows; ++r) row[r] = from + cell_at[i + r] * step;
      if (runs.count > 0)
        multiply<T, vectors>(row, runs, w, fresh ? bias : to, fresh ? 0 : width, to);
      else  // no tap reaches these voxels
        for (Index r = 0; r < rows; ++r) std::copy(bias, bias + width, to + r * width);
    }
  }
  void write(const Phase& phase, const Index (&first)[3], const Index (&extent)[3], Index n,
             Index case_tile, Index g, Index block, const T* sums) const {
    const Index width = blocks.width(block), begin = blocks.first(block);
    const Index all = plan.groups * blocks.padded;
    const Grid& grid = plan.target;
    const Index whole[3] = {grid.depth, grid.height, grid.width};
    Index from[3], live[3];
    for (int a = 0; a < 3; ++a) {
      from[a] = first[a] * plan.target_step[a] + phase.shift[a];
      live[a] = std::min(extent[a], pieces(whole[a] - from[a], plan.target_step[a]));
      if (live[a] <= 0) return;
    }
    put_box(
        sink, live, n * grid.voxels() + (from[0] * grid.height + from[1]) * grid.width + from[2],
        {plan.target_step[0] * grid.height * grid.width, plan.target_step[1] * grid.width,
         plan.target_step[2]},
        g * plan.outside + begin, blocks.live(block), sums,
        {extent[1] * extent[2] * width, extent[2] * width, width}, static_cast<const T*>(nullptr),
        moments ? moments + case_tile * 2 * all + g * blocks.padded + begin : nullptr, all);
  }
};

// Sums of parts of a case to sums of cases, in the order of the parts.
struct MergeMoments {
  const double* sums;              // (case, part, sum or square, padded channels of all groups)
  Index parts, channels, outside;  // of a case, of a case, of a group
  Index padded, all;               // of a group, of all groups
  double* moments;
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) {
      const Index c = i % channels;
      const double* from =
          sums + i / channels * parts * 2 * all + c / outside * padded + c % outside;
      double sum = 0, squares = 0;
      for (Index p = 0; p < parts; ++p, from += 2 * all) sum += from[0], squares += from[all];
      moments[2 * i] = sum, moments[2 * i + 1] = squares;
    }
  }
};

template <class T>
void convolve_plainly(const Window& w, bool to_coarse, const Feed<T>& feed, const T* weight,
                      const Sink<T>& sink) {
  Plan plan(w, to_coarse);
  const ChannelBlocks<T> blocks(plan.outside);
  const Index taps = Index(plan.taps.size()), phases = Index(plan.phases.size());

  // All by shape alone. Tiles stay in the second-level cache; small problems are cut further until
  // there is work for some threads.
  const Index slice = std::min<Index>(plan.inside, taps > 1 ? 32 : 64);
  std::copy(plan.cells, plan.cells + 3, plan.tile);
  cut_tile(plan.tile, std::max<Index>(32, 512 / phases));
  Index chunk = std::min<Index>(blocks.count, std::max<Index>(1, 128 / (2 * lanes<T>)));
  const auto enough = [&] {
    return plan.target.cases * plan.tiles() * plan.groups * pieces(blocks.count, chunk) >= 16;
  };
  while (!enough() && chunk * 2 * lanes < T >> 32) chunk = (chunk + 1) / 2;
  while (!enough() && plan.tile[0] * plan.tile[1] * plan.tile[2] > 64)
    cut_tile(plan.tile, plan.tile[0] * plan.tile[1] * plan.tile[2] - 1);

  const Scratch<T> packed(plan.groups * plan.inside * taps * blocks.padded);
  const PackedWeights<T> weights{plan, blocks, weight, slice, packed.data()};
  parallel_for(plan.groups * pieces(plan.inside, slice) * phases * blocks.count, 1, weights);

  Scratch<double> parts;
  const Index all = plan.target.cases * plan.tiles() * 2 * plan.groups * blocks.padded;
  if (sink.moments) std::fill_n(parts.grow(all), all, 0.0);
  const Convolution<T> convolution{plan, blocks, weights, feed, sink, chunk, parts.data()};
  parallel_for(convolution.tasks(), 1, convolution);
  if (sink.moments)
    parallel_for(plan.target.pairs(), 64,
                 MergeMoments{parts.data(), plan.tiles(), plan.target.channels, plan.outside,
                              blocks.padded, plan.groups * blocks.padded, sink.moments});
}

}  // namespace segmed::SEGMED_SET
