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

// Extents cut in halves, the largest first, until a tile has at most `budget` cells. A row counts
// as `shorter` times shorter than it is, since what is done per row then costs little.
inline void cut_tile(Index (&tile)[3], Index budget, Index shorter = 4) {
  while (tile[0] * tile[1] * tile[2] > budget) {
    const Index size[3] = {tile[0], tile[1], (tile[2] + shorter - 1) / shorter};
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
  // How long the rows of a tile should be, for `cut_tile`: memory wants long ones where neighbours
  // share nothing, or little is read beside what is written.
  Index shorter_rows() const {
    if (low[0] == high[0] && low[1] == high[1]) return 1024;
    return std::clamp<Index>(outside / inside, 4, 32);
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

  // Of the first phase, along each axis: its taps are all combinations, the last axis first.
  struct Taps {
    Index count[3], step[3];  // from one to the next along the axis
  };
  Taps taps_along() const {
    const Index all = phases[0].taps;
    Index row = 1, layer = 1;
    while (row < all && taps[std::size_t(row)].offset[0] == taps[0].offset[0] &&
           taps[std::size_t(row)].offset[1] == taps[0].offset[1])
      ++row;
    while (layer < all && taps[std::size_t(layer)].offset[0] == taps[0].offset[0]) ++layer;
    return {{all / layer, layer / row, row}, {layer, row, 1}};
  }

  // Whether a tap of any cell lies outside of the source.
  bool has_border() const {
    const Index extent[3] = {source.depth, source.height, source.width};
    for (int a = 0; a < 3; ++a)
      if (low[a] < 0 || (cells[a] - 1) * source_step[a] + high[a] >= extent[a]) return true;
    return false;
  }

  // Where the target voxels of a phase lie.
  struct Place {
    Index low[3], size[3];
  };
  Place place_of(const Index (&first)[3], const Index (&extent)[3], const Phase& phase) const {
    const Index whole[3] = {target.depth, target.height, target.width};
    Place place;
    for (int a = 0; a < 3; ++a) {
      place.low[a] = first[a] * target_step[a] + phase.shift[a];
      place.size[a] = std::min(extent[a], pieces(whole[a] - place.low[a], target_step[a]));
    }
    return place;
  }
  // The first voxel of a row, of case n.
  Index voxel_at(Index n, const Place& place, Index z, Index y) const {
    return n * target.voxels() +
           ((place.low[0] + z * target_step[0]) * target.height + place.low[1] +
            y * target_step[1]) *
               target.width +
           place.low[2];
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
      const Index c0 = s * slice, count = std::min(slice, plan.inside - c0);
      const Phase& phase = plan.phases[std::size_t(p)];
      pack(g, c0, count, phase, b, to + offset(g, c0, count, phase, b));
    }
  }
  void pack(Index g, Index c0, Index count, const Phase& phase, Index block, T* out) const {
    const Index width = blocks.width(block), first = blocks.first(block);
    const Index live = blocks.live(block);
    for (Index t = 0; t < phase.taps; ++t, out += count * width) {
      const Index k = plan.taps[std::size_t(phase.first_tap + t)].weight;
      if (live < width) std::fill_n(out, count * width, T(0));
      if (plan.to_coarse) {
        const T* from =
            weight + (k * plan.inside + c0) * plan.target.channels + g * plan.outside + first;
        for (Index c = 0; c < count; ++c, from += plan.target.channels)
          std::memcpy(out + c * width, from, std::size_t(live) * sizeof(T));
      } else {
        turn_over(weight + (k * plan.outside + first) * plan.source.channels + g * plan.inside + c0,
                  count, live, out, width);
      }
    }
  }
  // Asks for part i of `parts` of what `pack` reads.
  [[gnu::noinline]] void ask(Index g, Index c0, Index count, const Phase& phase, Index block,
                             Index i, Index parts) const {
    asm volatile("");  // g++ drops calls of functions that do nothing but ask
    const Index first = blocks.first(block), live = blocks.live(block);
    const Index rows = plan.to_coarse ? count : live, length = plan.to_coarse ? live : count;
    const Index step = plan.to_coarse ? plan.target.channels : plan.source.channels;
    const Index origin =
        plan.to_coarse ? c0 * step + g * plan.outside + first : first * step + g * plan.inside + c0;
    const Index tap_step = (plan.to_coarse ? plan.inside : plan.outside) * step;
    const Index end = (i + 1) * phase.taps / parts;
    for (Index t = i * phase.taps / parts; t < end; ++t) {
      const T* from =
          weight + plan.taps[std::size_t(phase.first_tap + t)].weight * tap_step + origin;
      for (Index r = 0; r < rows; ++r, from += step)
        for (Index o = 0; o < length; o += 64 / Index(sizeof(T)))
          __builtin_prefetch(from + o, 0, 2);
    }
  }
  // Squares of a vector's length by themselves, the rest in the order of memory.
  void turn_over(const T* from, Index count, Index live, T* out, Index width) const {
    constexpr Index L = lanes<T>;
    const Index step = plan.source.channels;
    const Index squares[2] = {live / L * L, count / L * L};
    for (Index o = 0; o < squares[0]; o += L)
      for (Index c = 0; c < squares[1]; c += L)
        transpose(from + o * step + c, step, out + c * width + o, width);
    for (Index o = 0; o < live; ++o)
      for (Index c = o < squares[0] ? squares[1] : 0; c < count; ++c)
        out[c * width + o] = from[o * step + c];
  }
};

// A box of voxels and where they go: `live` numbers of a vector of channels, put there or added to
// what is there, and summed.
template <class T>
struct BoxSink {
  const Index* extent;
  T* out;  // first voxel, first channel
  const Index* out_step;
  const T* sums;  // likewise
  const Index* sums_step;
  const T* bias;
  bool add;
  Index live;

  void operator()(double* moments, Index channels) const {
    if (live == lanes<T>)
      walk(moments, channels, Whole<T>());
    else
      walk(moments, channels, Part<T>(live));
  }

 private:
  template <class Access>
  void walk(double* moments, Index channels, const Access& at) const {
    const Vector<T> more = bias ? at.read(bias) : Vector<T>{};
    MomentsOfRun<T> sum{at.read(sums) + more};
    if (add) sum.first = at.read(out) + sum.first;
    for (Index z = 0; z < extent[0]; ++z)
      for (Index y = 0; y < extent[1]; ++y) {
        T* to = out + z * out_step[0] + y * out_step[1];
        const T* from = sums + z * sums_step[0] + y * sums_step[1];
        for (Index x = 0; x < extent[2]; ++x, to += out_step[2], from += sums_step[2]) {
          Vector<T> value = at.read(from) + more;
          if (add) value = at.read(to) + value;
          at.write(to, value);
          if (moments) sum.add(value);
        }
      }
    if (moments) sum.put(moments, moments + channels, extent[0] * extent[1] * extent[2]);
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
    const Index here = std::min(lanes<T>, std::min(live - o, channels - in_part));
    if (sink.out[part]) {
      const Index step[3] = {voxel_step[0] * channels, voxel_step[1] * channels,
                             voxel_step[2] * channels};
      const BoxSink<T> box{extent,         sink.out[part] + voxel * channels + in_part,
                           step,           sums + o,
                           sums_step,      bias ? bias + o : nullptr,
                           sink.add[part], here};
      box(moments ? moments + o : nullptr, all);
    }
    o += here;
  }
}

// A source with nothing pending, or null.
template <class T>
const T* dense_source(const Feed<T>& feed, const Grid& grid) {
  const Lane<T>& lane = feed.values.lane[0];
  if (feed.is_gradient)
    return feed.gradient.seen || feed.gradient.moments ? nullptr : feed.gradient.direct;
  return lane.plain() && lane.grid.channels == grid.channels ? lane.x : nullptr;
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
  // Large sums go past the caches: those with moments, which are likely to be read next, where the
  // caches would not hold them in any case.
  bool past = plan.outside % lanes<T> == 0 &&
              is_put_past(sink.out[0], plan.target, Index(moments ? 32 : 16) << 20);

  Index chunks() const { return pieces(blocks.count, chunk); }
  Index tasks() const { return plan.target.cases * plan.tiles() * plan.groups * chunks(); }
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) {
      const Index part = i % chunks(), case_tile = i / chunks() / plan.groups;
      Task task{case_tile, case_tile / plan.tiles(), i / chunks() % plan.groups, part * chunk,
                std::min(blocks.count, (part + 1) * chunk)};
      plan.locate(case_tile % plan.tiles(), task.first, task.extent);
      run(task);
    }
    if (past) finish_stores();
  }

 private:
  // A tile of cells, and blocks of outputs of one group.
  struct Task {
    Index case_tile, n, g, first_block, last_block, first[3] = {}, extent[3] = {};
    Index cells() const { return extent[0] * extent[1] * extent[2]; }
  };
  // The cells of a task in an order of their own: those that share which taps lie within the source
  // stand together, so that blocks of them leave the others out.
  struct Order {
    Index* cell_at;  // as in Reads
    Index* place;    // where sums go, in voxels of the target, or in the order of rows
    Index* reach;    // which taps are within: bits for each axis
  };
  static constexpr Index reach_bits = 16;
  static Index bits_along(Index reach, int axis) {
    return reach >> (2 - axis) * reach_bits & ((Index(1) << reach_bits) - 1);
  }
  // The runs of blocks of such cells.
  struct Reach {
    const Plan& plan;
    const Box& box;
    const Index* reach;
    Index count;  // source channels
    Index* list;
    Index listed = 0;
    Runs found{list, 0, 0, 1};

    const Runs& runs(Index cell, Index cells) {
      Index any = 0;
      for (Index r = 0; r < cells; ++r) any |= reach[cell + r];
      if (any != listed) listed = any, make();
      return found;
    }

   private:
    void make() {
      const Plan::Taps along = plan.taps_along();
      Index begin[3], end[3];
      for (int a = 0; a < 3; ++a) {
        const auto bits = static_cast<unsigned>(bits_along(listed, a));
        begin[a] = __builtin_ctz(bits), end[a] = 32 - __builtin_clz(bits);
      }
      const bool neighbours =
          along.count[2] > 1 && plan.taps[1].offset[2] == plan.taps[0].offset[2] + 1;
      const Index joined = neighbours ? end[2] - begin[2] : 1;
      Index n = 0, line = 0;
      for (Index z = begin[0]; z < end[0]; ++z)
        for (Index y = begin[1]; y < end[1]; ++y)
          for (Index x = begin[2]; x < end[2]; x += joined) {
            const Index t = z * along.step[0] + y * along.step[1] + x;
            const Tap& tap = plan.taps[std::size_t(t)];
            list[n++] =
                (((tap.offset[0] - plan.low[0]) * box.size[1] + tap.offset[1] - plan.low[1]) *
                     box.size[2] +
                 tap.offset[2] - plan.low[2]) *
                count;
            list[n++] = t * count - line, line = (t + joined) * count;
          }
      found.count = n / 2, found.length = joined * count;
    }
  };
  // What the sums of one phase read: cell i begins at from + cell_at[i] * step.
  struct Reads {
    Runs runs;
    const T* from;
    const Index* cell_at;
    Index step;
    bool fresh;   // of the sums before there are none
    Index ahead;  // cells: whose numbers to ask for; 0: none
    Index last, cell_step;
    Reach* reach = nullptr;  // if some cells leave taps out

    // A block of sums from some cells on, shown to `seen`.
    template <int vectors, Put put = Put::cached, class Seen>
    void multiply(Index cell, const T* w, const T* before, Index before_step, T* to, Index to_step,
                  Seen&& seen) const {
      constexpr Index count = block_rows<vectors>;
      const T* row[count];
      for (Index r = 0; r < count; ++r) row[r] = from + cell_at[cell + r] * step;
      if (reach)
        return multiply_for<T, vectors, put, Ask::nothing, true>(
            row, reach->runs(cell, count), w, before, before_step, to, to_step, seen);
      if (ahead > 0 && runs.length == cell_step * step) {
        // Cells are neighbours in all their runs: bit by bit, so that sums need not wait.
        Runs asking = runs;
        asking.next = at(cell + count) - row[0], asking.pace = count;
        return multiply_for<T, vectors, put, Ask::runs>(row, asking, w, before, before_step, to,
                                                        to_step, seen);
      }
      if (ahead > 0) ask(cell + ahead, count);
      multiply_for<T, vectors, put, Ask::nothing>(row, runs, w, before, before_step, to, to_step,
                                                  seen);
    }
    // A cell, perhaps of those behind the last row.
    const T* at(Index cell) const {
      const Index beyond = std::max<Index>(0, cell - last);
      return from + (cell_at[cell - beyond] + beyond * cell_step) * step;
    }
    [[gnu::noinline]] void ask(Index cell, Index count) const {
      asm volatile("");  // g++ drops calls of functions that do nothing but ask
      for (const Index end = cell + count; cell < end; ++cell)
        for (Index i = 0; i < runs.count; ++i)
          for (Index c = 0; c < runs.length; c += 64 / Index(sizeof(T)))
            __builtin_prefetch(at(cell) + runs.start[i] + c);
    }
  };

  void run(const Task& task) const {
    Box box = plan.source_box(task.first, task.extent);
    const bool in_place = reads_in_place(), sorted = is_sorted(),
               straight = writes_straight(task, sorted);
    if (in_place)
      box.size[0] = plan.source.depth, box.size[1] = plan.source.height,
      box.size[2] = plan.source.width;
    const Index cells = task.cells(), room = cells + block_rows<1>;
    const Index phases = Index(plan.phases.size()), block_step = room * 2 * lanes<T>;
    const Index phase_step = (task.last_block - task.first_block) * block_step;
    T* const packed = in_place ? nullptr : thread_scratch<T, 0>(box.voxels() * weights.slice);
    // Sums that stand in another order are put in order before they are written.
    T* const sums = thread_scratch<T, 1>((sorted && !straight ? 2 : 1) * phases * phase_step);
    T* const ordered = sorted && !straight ? sums + phases * phase_step : sums;
    Index* const cell_at = thread_scratch<Index, 2>(3 * room + 2 * Index(plan.taps.size()));
    const Order order{cell_at, cell_at + room, cell_at + 2 * room};
    Index* const runs = cell_at + 3 * room;
    if (sorted)
      sort_cells(task, box, straight, order);
    else
      list_cells(task, box, cell_at);
    for (Index i = cells; i < room; ++i)
      cell_at[i] = cell_at[cells - 1], order.reach[i] = order.reach[cells - 1];

    for (Index c0 = 0; c0 < plan.inside; c0 += weights.slice) {
      const Index count = std::min(weights.slice, plan.inside - c0);
      const bool last = c0 + count == plan.inside;
      const T* from = packed;
      Index step = count;  // between neighbouring voxels
      if (in_place) {
        step = plan.source.channels;
        from = dense_source(feed, plan.source) + task.g * plan.inside + c0 +
               plan.source.index(
                   {task.n, (box.low[0] * box.size[1] + box.low[1]) * box.size[2] + box.low[2], 0});
      } else {
        const FeedRows<T> rows(feed, task.n, task.g * plan.inside + c0, count);
        read_box(rows, plan.source, box, count, packed);
      }
      for (Index p = 0; p < phases; ++p) {
        const Phase& phase = plan.phases[std::size_t(p)];
        Reads reads{list_runs(phase, box, count, step, runs),
                    from,
                    cell_at,
                    step,
                    c0 == 0,
                    0,
                    cells - 1,
                    plan.source_step[2]};
        Reach reach{plan, box, order.reach, count, runs};
        if (sorted) reads.reach = &reach;
        for (Index b = task.first_block; b < task.last_block; ++b) {
          reads.ahead = in_place && p == 0 && b == task.first_block ? ahead(reads.runs) : 0;
          T* const to = sums + p * phase_step + (b - task.first_block) * block_step;
          const T* const w = weights.to ? weights.to + weights.offset(task.g, c0, count, phase, b)
                                        : pack_now(task, c0, count, phase, b);
          const Later later = weights.to || !sorted ? Later{} : after(task, c0, b);
          const Puts puts{order.place, straight, ordered + (to - sums)};
          if (blocks.vectors(b) == 2)
            last&& sorted     ? finish_sorted<2>(task, reads, puts, w, b, to, later)
            : last&& straight ? finish<2>(task, phase, reads, w, b, to)
                              : add_up<2>(task, reads, w, b, to, later);
          else
            last&& sorted     ? finish_sorted<1>(task, reads, puts, w, b, to, later)
            : last&& straight ? finish<1>(task, phase, reads, w, b, to)
                              : add_up<1>(task, reads, w, b, to, later);
        }
      }
    }
    if (!straight)
      for (Index p = 0; p < phases; ++p)
        write(task, plan.phases[std::size_t(p)], ordered + p * phase_step, block_step);
  }
  // Weights that few tasks read are packed by each of them, which asks for the next meanwhile.
  const T* pack_now(const Task& task, Index c0, Index count, const Phase& phase, Index b) const {
    T* const to = thread_scratch<T, 3>(weights.slice * phase.taps * 2 * lanes<T>);
    weights.pack(task.g, c0, count, phase, b, to);
    return to;
  }
  struct Later {
    Index c0 = 0, block = -1;
  };
  Later after(const Task& task, Index c0, Index b) const {
    if (b + 1 < task.last_block) return {c0, b + 1};
    return {c0 + weights.slice, c0 + weights.slice < plan.inside ? task.first_block : -1};
  }
  void ask(const Task& task, const Later& later, Index i, Index parts) const {
    weights.ask(task.g, later.c0, std::min(weights.slice, plan.inside - later.c0), plan.phases[0],
                later.block, i, parts);
  }
  void list_cells(const Task& task, const Box& box, Index* cell_at) const {
    for (Index z = 0; z < task.extent[0]; ++z)
      for (Index y = 0; y < task.extent[1]; ++y)
        for (Index x = 0; x < task.extent[2]; ++x)
          *cell_at++ =
              (z * plan.source_step[0] * box.size[1] + y * plan.source_step[1]) * box.size[2] +
              x * plan.source_step[2];
  }
  // Neighbours along an axis with the same taps within the source.
  struct Stretch {
    Index begin, end, reach;
  };
  static constexpr Index most_stretches =
      2 * reach_bits + 1;  // a tap is within from one to another
  Index list_stretches(const Task& task, int a, Stretch* to) const {
    const Plan::Taps along = plan.taps_along();
    const Index whole[3] = {plan.source.depth, plan.source.height, plan.source.width};
    Index n = 0;
    for (Index p = 0; p < task.extent[a]; ++p) {
      Index reach = 0;
      for (Index t = 0; t < along.count[a]; ++t) {
        const Index at = (task.first[a] + p) * plan.source_step[a] +
                         plan.taps[std::size_t(t * along.step[a])].offset[a];
        if (at >= 0 && at < whole[a]) reach |= Index(1) << t;
      }
      if (reach == 0) reach = 1;  // a zero is read
      reach <<= (2 - a) * reach_bits;
      if (n > 0 && to[n - 1].reach == reach)
        to[n - 1].end = p + 1;
      else
        to[n++] = {p, p + 1, reach};
    }
    return n;
  }
  // First whole blocks of cells that share their taps, then what remains of each kind.
  void sort_cells(const Task& task, const Box& box, bool straight, const Order& order) const {
    Stretch all[3][most_stretches];
    Index count[3], n = 0;
    for (int a = 0; a < 3; ++a) count[a] = list_stretches(task, a, all[a]);
    const Grid& grid = plan.target;
    const Index from_step[3] = {plan.source_step[0] * box.size[1] * box.size[2],
                                plan.source_step[1] * box.size[2], plan.source_step[2]};
    const Index to_step[3] = {
        (straight ? grid.height * grid.width : task.extent[1] * task.extent[2]),
        straight ? grid.width : task.extent[2], 1};
    for (const bool whole : {true, false})
      for (Index i = 0; i < count[0]; ++i)
        for (Index j = 0; j < count[1]; ++j)
          for (Index k = 0; k < count[2]; ++k)
            n += sort_stretch(all[0][i], all[1][j], all[2][k], whole, from_step, to_step,
                              {order.cell_at + n, order.place + n, order.reach + n});
  }
  Index sort_stretch(const Stretch& layers, const Stretch& rows, const Stretch& cells, bool whole,
                     const Index (&from_step)[3], const Index (&to_step)[3],
                     const Order& to) const {
    const Index height = rows.end - rows.begin, width = cells.end - cells.begin;
    const Index all = (layers.end - layers.begin) * height * width;
    const Index at_once = blocks.most == 2 ? block_rows<2> : block_rows<1>;
    const Index split = all / at_once * at_once;
    const Index begin = whole ? 0 : split, end = whole ? split : all;
    for (Index i = begin; i < end; ++i) {
      const Index z = layers.begin + i / width / height, y = rows.begin + i / width % height,
                  x = cells.begin + i % width;
      to.cell_at[i - begin] = z * from_step[0] + y * from_step[1] + x * from_step[2];
      to.place[i - begin] = z * to_step[0] + y * to_step[1] + x * to_step[2];
      to.reach[i - begin] = layers.reach | rows.reach | cells.reach;
    }
    return end - begin;
  }
  // Where sums are long enough to hide that cells are put one by one, and there is an order to
  // choose.
  bool is_sorted() const {
    if (plan.phases.size() != 1 || reads_in_place() || plan.phases[0].taps < 2) return false;
    const Plan::Taps along = plan.taps_along();
    return plan.phases[0].taps * plan.inside >= 256 &&
           std::max({along.count[0], along.count[1], along.count[2]}) <= reach_bits;
  }
  // With few taps to a number there is nothing to pack.
  bool reads_in_place() const {
    return dense_source(feed, plan.source) && plan.taps.size() <= plan.phases.size() * 8 &&
           !plan.has_border();
  }
  // Cells ahead to ask for: voxels in place are read once, several at a time, which the processor
  // does not foresee.
  Index ahead(const Runs& runs) const {
    const Index bytes = runs.count * runs.length * Index(sizeof(T));
    if (bytes < 64 || plan.source.size() * Index(sizeof(T)) < Index(8) << 20) return 0;
    return std::clamp<Index>((Index(3) << 10) / bytes, 8, 24);
  }
  // Whether the last sums may go where they belong: into one tensor of which nothing is kept, in
  // rows that are long enough.
  bool writes_straight(const Task& task, bool sorted) const {
    if (!sink.out[0] || sink.add[0] || sink.grid[1].channels > 0) return false;
    if (sorted) return true;
    for (const Phase& phase : plan.phases)
      if (phase.taps == 0 || plan.place_of(task.first, task.extent, phase).size[2] < block_rows<1>)
        return false;
    return true;
  }
  // Taps whose numbers are neighbours are one run; all runs of a phase are equally long.
  Runs list_runs(const Phase& phase, const Box& box, Index count, Index step, Index* runs) const {
    const Tap* taps = plan.taps.data() + phase.first_tap;
    Index joined = 1;
    while (step == count && joined < phase.taps && taps[joined].offset[0] == taps[0].offset[0] &&
           taps[joined].offset[1] == taps[0].offset[1] &&
           taps[joined].offset[2] == taps[0].offset[2] + joined)
      ++joined;
    Index n = 0;
    for (Index t = 0; t < phase.taps; t += joined)
      runs[n++] =
          (((taps[t].offset[0] - plan.low[0]) * box.size[1] + taps[t].offset[1] - plan.low[1]) *
               box.size[2] +
           taps[t].offset[2] - plan.low[2]) *
          step;
    return {runs, n, joined * count, 1};
  }

  struct Bias {
    T of[2 * lanes<T>] = {};
    Bias(const Convolution& in, Index g, Index b) {
      const Index first = g * in.plan.outside + in.blocks.first(b);
      for (Index i = 0; in.sink.bias && i < in.blocks.live(b); ++i) of[i] = in.sink.bias[first + i];
    }
  };
  // Adds a slice of the source channels to the sums of all cells.
  template <int vectors>
  void add_up(const Task& task, const Reads& reads, const T* w, Index b, T* sums,
              const Later& later) const {
    constexpr Index count = block_rows<vectors>, width = vectors * lanes<T>;
    const Bias bias(*this, task.g, b);
    for (Index i = 0; i < task.cells(); i += count, sums += count * width) {
      if (later.block >= 0) ask(task, later, i / count, pieces(task.cells(), count));
      if (reads.runs.count > 0)
        reads.template multiply<vectors>(i, w, reads.fresh ? bias.of : sums,
                                         reads.fresh ? 0 : width, sums, width, Unseen());
      else  // no tap reaches these voxels
        for (Index r = 0; r < count; ++r) std::copy(bias.of, bias.of + width, sums + r * width);
    }
  }

  double* moments_of(const Task& task, Index b) const {
    const Index all = plan.groups * blocks.padded;
    return moments ? moments + task.case_tile * 2 * all + task.g * blocks.padded + blocks.first(b)
                   : nullptr;
  }

  // Adds the last slice and puts the sums where they belong, row by row of cells. The last cells of
  // a row are made with some before them once more.
  template <int vectors>
  void finish(const Task& task, const Phase& phase, const Reads& reads, const T* w, Index b,
              const T* sums) const {
    constexpr Index count = block_rows<vectors>, width = vectors * lanes<T>;
    const Bias bias(*this, task.g, b);
    const Plan::Place place = plan.place_of(task.first, task.extent, phase);
    const Index live = blocks.live(b), step = plan.target_step[2] * sink.grid[0].channels;
    // Zeros in dead lanes fall on the voxels behind, which are written next; not beyond the row,
    // whose neighbours are other tasks'.
    const bool spills = plan.groups == 1 && blocks.count == 1 && plan.target_step[2] == 1;
    // Moments see sums while they are in registers; what is made once more lies aside.
    double* const total = moments ? moments_of(task, b) : nullptr;
    MomentsOfRow<T, vectors> seen(total, moments ? total + plan.groups * blocks.padded : nullptr);
    for (Index z = 0; z < place.size[0]; ++z)
      for (Index y = 0; y < place.size[1]; ++y) {
        T* const out = sink.out[0] + plan.voxel_at(task.n, place, z, y) * sink.grid[0].channels +
                       task.g * plan.outside + blocks.first(b);
        const Index cell = (z * task.extent[1] + y) * task.extent[2];
        for (Index x = 0; x < place.size[2]; x += count) {
          const Index i = std::min(x, place.size[2] - count), fresh = i + count - x;
          const bool whole =
              live == width || (spills && (i + count - 1) * step + width <= place.size[2] * step);
          const bool direct = whole && !moments;
          T aside[count * width];
          const T* const before = reads.fresh ? bias.of : sums + (cell + i) * width;
          const Index before_step = reads.fresh ? 0 : width;
          T* const to = out + i * step;
          if (past && !moments) {
            reads.template multiply<vectors, Put::past>(cell + i, w, before, before_step, to, step,
                                                        Unseen());
            continue;
          }
          if (moments && whole && fresh == count) {
            if (past)
              reads.template multiply<vectors, Put::past>(cell + i, w, before, before_step, to,
                                                          step, seen);
            else
              reads.template multiply<vectors>(cell + i, w, before, before_step, to, step, seen);
            seen.put_long();
            continue;
          }
          reads.template multiply<vectors>(cell + i, w, before, before_step, direct ? to : aside,
                                           direct ? step : width, Unseen());
          const T* const made = aside + (x - i) * width;
          if (moments) seen.add(made, width, fresh);
          if (past)
            put_rows<Put::past, vectors>(made, fresh, live, whole, out + x * step, step);
          else if (!direct)
            put_rows<Put::cached, vectors>(made, fresh, live, whole, out + x * step, step);
        }
      }
    seen.put();
  }
  // Where the last sums of sorted cells go: into the sink, or in the order of rows aside.
  struct Puts {
    const Index* place;
    bool straight;
    T* aside;
  };
  template <int vectors>
  void finish_sorted(const Task& task, const Reads& reads, const Puts& puts, const T* w, Index b,
                     const T* sums, const Later& later) const {
    constexpr Index count = block_rows<vectors>, width = vectors * lanes<T>;
    const Bias bias(*this, task.g, b);
    const Plan::Place place = plan.place_of(task.first, task.extent, plan.phases[0]);
    T* const out = puts.straight
                       ? sink.out[0] + plan.voxel_at(task.n, place, 0, 0) * sink.grid[0].channels +
                             task.g * plan.outside + blocks.first(b)
                       : puts.aside;
    const Index step = puts.straight ? sink.grid[0].channels : width;
    const bool sees = puts.straight && moments;
    double* const total = sees ? moments_of(task, b) : nullptr;
    MomentsOfRow<T, vectors> seen(total, sees ? total + plan.groups * blocks.padded : nullptr);
    const Index live = puts.straight ? blocks.live(b) : width;
    for (Index i = 0; i < task.cells(); i += count, sums += count * width) {
      if (later.block >= 0) ask(task, later, i / count, pieces(task.cells(), count));
      const Index fresh = std::min(count, task.cells() - i);
      T made[count * width];
      const T* const before = reads.fresh ? bias.of : sums;
      const Index before_step = reads.fresh ? 0 : width;
      if (sees && fresh == count) {
        reads.template multiply<vectors>(i, w, before, before_step, made, width, seen);
      } else {
        reads.template multiply<vectors>(i, w, before, before_step, made, width, Unseen());
        if (sees) seen.add(made, width, fresh);
      }
      if (sees) seen.put_long(run_length);
      for (Index r = 0; r < fresh; ++r) {
        T* const to = out + puts.place[i + r] * step;
        if (past && puts.straight)
          put_rows<Put::past, vectors>(made + r * width, 1, live, live == width, to, 0);
        else
          put_rows<Put::cached, vectors>(made + r * width, 1, live, live == width, to, 0);
      }
    }
    seen.put();
  }
  // Rows of `live` numbers from rows of whole vectors; or those as they are, see `spills` above.
  template <Put put, int vectors>
  static void put_rows(const T* from, Index rows, Index live, bool whole, T* out, Index step) {
    constexpr Index width = vectors * lanes<T>;
    for (Index r = 0; r < rows; ++r, from += width, out += step)
      if (whole)
        for (Index o = 0; o < width; o += lanes<T>) store_as<put>(out + o, load(from + o));
      else
        copy(from, live, out);
  }
  // Row by row, so that all channels of a voxel are written while it is in the cache.
  void write(const Task& task, const Phase& phase, const T* sums, Index block_step) const {
    const Plan::Place place = plan.place_of(task.first, task.extent, phase);
    for (Index z = 0; z < place.size[0]; ++z)
      for (Index y = 0; y < place.size[1]; ++y)
        for (Index b = task.first_block; b < task.last_block; ++b) {
          const Index width = blocks.width(b);
          put_box(sink, {1, 1, place.size[2]}, plan.voxel_at(task.n, place, z, y),
                  {0, 0, plan.target_step[2]}, task.g * plan.outside + blocks.first(b),
                  blocks.live(b),
                  sums + (b - task.first_block) * block_step +
                      (z * task.extent[1] + y) * task.extent[2] * width,
                  {0, 0, width}, static_cast<const T*>(nullptr), moments_of(task, b),
                  plan.groups * blocks.padded);
        }
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

  // All by shape alone. Tiles and their sums stay in the second-level cache; they are large where
  // neighbours share what is around them: of few channels, or where phases read the same cells.
  // Small problems are cut further until there is work for some threads.
  const Index slice = std::min<Index>(plan.inside, taps > phases ? 32 : 64);
  std::copy(plan.cells, plan.cells + 3, plan.tile);
  const Index shorter = plan.shorter_rows();
  Index budget = 512;
  if (phases > 1)
    budget = std::clamp<Index>((Index(128) << 10) / plan.outside, 512, 2048);
  else if (taps > 1)
    budget = std::max<Index>(512, 4096 / (plan.inside * blocks.count));
  cut_tile(plan.tile, std::max<Index>(32, budget / phases), shorter);
  Index chunk = std::min<Index>(blocks.count, std::max<Index>(1, 128 / (2 * lanes<T>)));
  const auto enough = [&] {
    return plan.target.cases * plan.tiles() * plan.groups * pieces(blocks.count, chunk) >= 16;
  };
  while (!enough() && chunk * 2 * lanes < T >> 32) chunk = (chunk + 1) / 2;
  while (!enough() && plan.tile[0] * plan.tile[1] * plan.tile[2] > 64)
    cut_tile(plan.tile, plan.tile[0] * plan.tile[1] * plan.tile[2] - 1, shorter);

  const Index numbers = plan.groups * plan.inside * taps * blocks.padded;
  // Many weights that serve few tiles come out of far caches once less.
  const bool by_task = phases == 1 && numbers * Index(sizeof(T)) > Index(4) << 20 &&
                       plan.target.cases * plan.tiles() <= 2;
  Scratch<T> packed;
  const PackedWeights<T> weights{plan, blocks, weight, slice,
                                 by_task ? nullptr : packed.grow(numbers)};
  if (!by_task)
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
