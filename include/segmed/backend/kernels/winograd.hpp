// SPDX-License-Identifier: Apache-2.0
// Convolutions of stride 1 with kernels of three taps by Winograd's minimal filtering, nested over
// the axes. Read once per instruction set: see simd.hpp.
//
// The target is walked in tiles of m voxels a side. What tiles read is turned into frequencies; a
// frequency of all outputs is a small matrix product over the channels; what comes out is turned
// back. Groups of neighbouring tiles share one packed box of the source, so that pending work is
// done once for most voxels.
#include <segmed/backend/kernels/minimal.hpp>

namespace segmed::SEGMED_SET {

// A grid of cases in tiles, and those in groups.
struct Tiles {
  Grid grid;
  Index m[3];                 // voxels of a tile
  Index count[3];             // tiles of a case
  Index group[3];             // tiles of a group
  std::vector<Index> starts;  // tiles before each group, over all cases

  Tiles(const Grid& g, const Index (&size)[3], Index tiles_of_group) : grid(g) {
    const Index extent[3] = {g.depth, g.height, g.width};
    for (int a = 0; a < 3; ++a) m[a] = size[a], count[a] = group[a] = pieces(extent[a], m[a]);
    cut_tile(group, tiles_of_group);
    starts.push_back(0);
    for (Index i = 0; i < groups(); ++i) starts.push_back(starts.back() + at(i).tiles());
  }
  struct Group {
    Index n, first[3], extent[3];  // in tiles
    Index tiles() const { return extent[0] * extent[1] * extent[2]; }
  };
  Index groups_of_case() const {
    return pieces(count[0], group[0]) * pieces(count[1], group[1]) * pieces(count[2], group[2]);
  }
  Index groups() const { return grid.cases * groups_of_case(); }
  Group at(Index i) const {
    Group g;
    for (int a = 2; a >= 0; --a) {
      const Index n = pieces(count[a], group[a]);
      g.first[a] = i % n * group[a], g.extent[a] = std::min(group[a], count[a] - g.first[a]);
      i /= n;
    }
    g.n = i;
    return g;
  }
  // The end of the run of groups from `begin` on that has at most `most` tiles, or one group.
  Index run(Index begin, Index most) const {
    Index end = begin + 1;
    while (end < groups() && starts[std::size_t(end + 1)] - starts[std::size_t(begin)] <= most)
      ++end;
    return end;
  }
  Index tiles_in(Index begin, Index end) const {
    return starts[std::size_t(end)] - starts[std::size_t(begin)];
  }
  Index frequencies() const { return reach_of(m[0]) * reach_of(m[1]) * reach_of(m[2]); }
};

// [frequency][block of channels][tile][channel] of a run of groups.
template <class T>
struct Planes {
  const ChannelBlocks<T>& blocks;
  Index room, plane;  // tiles, with some to spare; numbers of a frequency
  T* data = nullptr;

  Planes(const ChannelBlocks<T>& b, Index tiles)
      // Planes that lie a power of two apart would share few places of the cache.
      : blocks(b), room(tiles + 8), plane(room * b.padded + 16) {}
  T* at(Index f, Index b, Index tile) const {
    return data + f * plane + room * blocks.first(b) + tile * blocks.width(b);
  }
};

// Feeds to frequencies: tiles with their surroundings (input), or tiles alone (output_adjoint).
template <class T, Turn turn>
struct TurnFeed {
  const Tiles& tiles;
  const Feed<T>& feed;
  const Grid& grid;  // of the feed
  Index low[3];      // from a tile's corner to what it reads
  TurnBlock<T, turn> block;

  TurnFeed(const Tiles& t, const Feed<T>& f, const Grid& g, const Index (&l)[3])
      : tiles(t), feed(f), grid(g), low{l[0], l[1], l[2]}, block(t.m) {}
  // Block b of the channels of group i, to tiles from `at` on.
  void operator()(Index i, Index b, const Planes<T>& to, Index at) const {
    const Tiles::Group g = tiles.at(i);
    const Index width = to.blocks.width(b), live = to.blocks.live(b);
    Box box;
    for (int a = 0; a < 3; ++a) {
      box.low[a] = g.first[a] * tiles.m[a] + low[a];
      box.size[a] = (g.extent[a] - 1) * tiles.m[a] + before(turn, tiles.m[a]);
    }
    const Index numbers = box.voxels() * width;
    T* const scratch = thread_scratch<T, 0>(numbers + TurnBlock<T, turn>::room);
    T* const packed = scratch + TurnBlock<T, turn>::room;
    if (live < width) std::memset(packed, 0, std::size_t(numbers) * sizeof(T));
    read_box(FeedRows<T>(feed, g.n, to.blocks.first(b), live), grid, box, width, packed);
    const Index step[3] = {box.size[1] * box.size[2] * width, box.size[2] * width, width};
    for (Index z = 0; z < g.extent[0]; ++z)
      for (Index y = 0; y < g.extent[1]; ++y)
        for (Index x = 0; x < g.extent[2]; ++x, ++at) {
          const T* from = packed + z * tiles.m[0] * step[0] + y * tiles.m[1] * step[1] +
                          x * tiles.m[2] * step[2];
          T* const to_tile = to.at(0, b, at);
          for (Index c = 0; c < width; c += lanes<T>)
            block(from + c, step, to_tile + c, to.plane, scratch);
        }
  }
};

// Weights to [frequency][block of outputs][input, padded][output].
template <class T>
struct TurnWeights {
  const Window& w;
  bool to_coarse;
  const ChannelBlocks<T>&inputs, &outputs;
  TurnBlock<T, Turn::weights> block;
  const T* weight;
  Index plane;
  T* to;

  Index tasks() const { return inputs.padded / lanes<T> * outputs.count; }
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) {
      const Index c0 = i / outputs.count * lanes<T>, b = i % outputs.count;
      turn(c0, b, to + inputs.padded * outputs.first(b) + c0 * outputs.width(b), plane);
    }
  }
  // One block of outputs alone, its frequencies `step` apart.
  void turn_block(Index b, T* out, Index step) const {
    for (Index c0 = 0; c0 < inputs.padded; c0 += lanes<T>) {
      if (to_coarse && c0 + 2 * lanes<T> <= inputs.channels) ask_for(c0 + lanes<T>, b);
      turn(c0, b, out + c0 * outputs.width(b), step);
    }
  }

 private:
  // A vector of source channels from c0 on, a block of outputs.
  void turn(Index c0, Index b, T* out, Index out_step) const {
    constexpr Index L = lanes<T>;
    const Index count = w.taps(), width = outputs.width(b);
    const Index vector_step = L * count * L, vectors = outputs.vectors(b);
    T* const scratch =
        thread_scratch<T, 0>(TurnBlock<T, Turn::weights>::room + vectors * vector_step);
    T* const taps = scratch + TurnBlock<T, Turn::weights>::room;
    const Index live_inputs = std::clamp<Index>(inputs.channels - c0, 0, L);
    for (Index v = 0; v < vectors; ++v) {
      const Index first = outputs.first(b) + v * L;
      const Index live = std::min(L, outputs.channels - first);
      T* const at = taps + v * vector_step;
      if (live < L || live_inputs < L) std::fill_n(at, vector_step, T(0));
      for (Index k = 0; k < count; ++k)
        if (to_coarse)
          read(k, c0, live_inputs, first, live, at + k * L);
        else
          read_turned(k, c0, live_inputs, first, live, at + k * L);
    }
    for (Index c = 0; c < L; ++c)
      for (Index v = 0; v < vectors; ++v)
        block(taps + v * vector_step + c * count * L,
              {w.kernel[1] * w.kernel[2] * L, w.kernel[2] * L, L}, out + c * width + v * L,
              out_step, scratch);
  }
  // Lines that lie apart, which the processor does not foresee.
  void ask_for(Index c0, Index b) const {
    for (Index k = 0; k < w.taps(); ++k)
      for (Index c = 0; c < lanes<T>; ++c)
        __builtin_prefetch(weight + (k * w.fine.channels + c0 + c) * w.coarse.channels +
                           outputs.first(b));
  }
  void read(Index k, Index c0, Index inputs_here, Index first, Index live, T* tap) const {
    const T* from = weight + (k * w.fine.channels + c0) * w.coarse.channels + first;
    for (Index c = 0; c < inputs_here; ++c, from += w.coarse.channels)
      if (live == lanes<T>)
        store(tap + c * w.taps() * lanes<T>, load(from));
      else
        std::copy(from, from + live, tap + c * w.taps() * lanes<T>);
  }
  // The transpose flips the kernel. Read in the order of memory.
  void read_turned(Index k, Index c0, Index inputs_here, Index first, Index live, T* tap) const {
    const T* from =
        weight + ((w.taps() - 1 - k) * w.fine.channels + first) * w.coarse.channels + c0;
    if (live == lanes<T> && inputs_here == lanes<T>) {
      transpose(from, w.coarse.channels, tap, w.taps() * lanes<T>);
      return;
    }
    for (Index o = 0; o < live; ++o, from += w.coarse.channels)
      for (Index c = 0; c < inputs_here; ++c) tap[c * w.taps() * lanes<T> + o] = from[c];
  }
};

template <class T>
struct Winograd {
  const Tiles& tiles;
  const ChannelBlocks<T>&inputs, &outputs;
  const TurnFeed<T, Turn::input>& turn_feed;
  TurnBlock<T, Turn::output> turn_back;
  const T* weights;  // see TurnWeights
  Index weights_plane;
  const Sink<T>& sink;
  double* moments;  // (group, sum or square, padded outputs)

  // A run of groups and its frequencies.
  struct Run {
    Index begin, tiles;
    Planes<T> values, sums;
  };
  void read(const Run& run, Index group, Index b) const {
    turn_feed(group, b, run.values, tiles.tiles_in(run.begin, group));
  }
  void multiply_frequency(const Run& run, Index f) const {
    for (Index b = 0; b < outputs.count; ++b)
      multiply_block(run, f, b, weights + f * weights_plane + inputs.padded * outputs.first(b));
  }
  // A frequency of one block of outputs, whose weights begin at w.
  void multiply_block(const Run& run, Index f, Index b, const T* w) const {
    Index* starts = thread_scratch<Index, 2>(inputs.count);
    for (Index i = 0; i < inputs.count; ++i) starts[i] = run.values.room * inputs.first(i);
    const Index width = inputs.width(0);
    const Runs runs{starts, inputs.count, inputs.count == 1 ? inputs.channels : width, 1};
    if (outputs.vectors(b) == 2)
      multiply_tiles<2>(run.values.at(f, 0, 0), width, runs, w, run.tiles, run.sums.at(f, b, 0));
    else
      multiply_tiles<1>(run.values.at(f, 0, 0), width, runs, w, run.tiles, run.sums.at(f, b, 0));
  }
  void write(const Run& run, Index group, Index b) const {
    constexpr Index L = lanes<T>;
    const Tiles::Group g = tiles.at(group);
    T* const scratch = thread_scratch<T, 0>(TurnBlock<T, Turn::output>::room + 64 * L);
    T* const tile = scratch + TurnBlock<T, Turn::output>::room;
    const Index plane = run.sums.plane, second = reach_of(tiles.m[1]), third = reach_of(tiles.m[2]);
    const Index step[3] = {second * third * plane, third * plane, plane};
    const Index tile_step[3] = {tiles.m[1] * tiles.m[2] * L, tiles.m[2] * L, L};
    const Grid& grid = tiles.grid;
    const Index whole[3] = {grid.depth, grid.height, grid.width};
    Index at = tiles.tiles_in(run.begin, group);
    for (Index i = 0; i < g.tiles(); ++i, ++at) {
      const Index place[3] = {i / g.extent[2] / g.extent[1], i / g.extent[2] % g.extent[1],
                              i % g.extent[2]};
      Index first[3], extent[3];
      for (int a = 0; a < 3; ++a) {
        first[a] = (g.first[a] + place[a]) * tiles.m[a];
        extent[a] = std::min(tiles.m[a], whole[a] - first[a]);
      }
      const Index voxel =
          g.n * grid.voxels() + (first[0] * grid.height + first[1]) * grid.width + first[2];
      for (Index v = 0; v < outputs.vectors(b); ++v) {
        const Index c = outputs.first(b) + v * L;
        turn_back(run.sums.at(0, b, at) + v * L, step, tile, L, scratch);
        put_box(sink, extent, voxel, {grid.height * grid.width, grid.width, 1}, c,
                std::min(L, outputs.channels - c), tile, tile_step,
                sink.bias ? sink.bias + c : nullptr,
                moments ? moments + group * 2 * outputs.padded + c : nullptr, outputs.padded);
      }
    }
  }

 private:
  template <int vectors>
  static void multiply_tiles(const T* values, Index step, const Runs& runs, const T* w, Index count,
                             T* to) {
    constexpr Index rows = block_rows<vectors>, width = vectors * lanes<T>;
    static constexpr T zero[width] = {};
    for (Index q = 0; q < count; q += rows, to += rows * width) {
      const T* row[rows];
      for (Index r = 0; r < rows; ++r) row[r] = values + std::min(q + r, count - 1) * step;
      multiply<T, vectors>(row, runs, w, zero, 0, to, width);
    }
  }
};

// Each thread a group: its frequencies stay in caches near by.
template <class T>
struct GroupByGroup {
  const Winograd<T>& work;
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) {
      const Index count = work.tiles.tiles_in(i, i + 1), frequencies = work.tiles.frequencies();
      typename Winograd<T>::Run run{i, count, {work.inputs, count}, {work.outputs, count}};
      run.values.data = thread_scratch<T, 1>(frequencies * (run.values.plane + run.sums.plane));
      run.sums.data = run.values.data + frequencies * run.values.plane;
      for (Index b = 0; b < work.inputs.count; ++b) work.read(run, i, b);
      for (Index f = 0; f < frequencies; ++f) work.multiply_frequency(run, f);
      for (Index b = 0; b < work.outputs.count; ++b) work.write(run, i, b);
    }
  }
};

// All threads one run of groups, stage by stage: where there are few tiles or many channels.
template <class T>
struct ReadRun {
  const Winograd<T>& work;
  const typename Winograd<T>::Run& run;
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i)
      work.read(run, run.begin + i / work.inputs.count, i % work.inputs.count);
  }
};
template <class T>
struct MultiplyRun {
  const Winograd<T>& work;
  const typename Winograd<T>::Run& run;
  void operator()(Index begin, Index end) const {
    for (Index f = begin; f < end; ++f) work.multiply_frequency(run, f);
  }
};
template <class T>
struct WriteRun {
  const Winograd<T>& work;
  const typename Winograd<T>::Run& run;
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i)
      work.write(run, run.begin + i / work.outputs.count, i % work.outputs.count);
  }
};

// The same run where it is the only one: weights that serve once go from their transform straight
// into the product, block by block of outputs, and never to memory.
template <class T>
struct BlockByBlock {
  const Winograd<T>& work;
  const typename Winograd<T>::Run& run;
  const TurnWeights<T>& turn_weights;
  void operator()(Index begin, Index end) const {
    const Index frequencies = work.tiles.frequencies();
    for (Index b = begin; b < end; ++b) {
      const Index plane = work.inputs.padded * work.outputs.width(b) + 16;
      T* const w = thread_scratch<T, 1>(frequencies * plane);
      turn_weights.turn_block(b, w, plane);
      for (Index f = 0; f < frequencies; ++f) work.multiply_block(run, f, b, w + f * plane);
      for (Index i = 0; i < work.tiles.groups(); ++i) work.write(run, i, b);
    }
  }
};

template <class T>
void convolve_tiles(const Window& w, bool to_coarse, const Feed<T>& feed, const T* weight,
                    const Sink<T>& sink, const Index (&m)[3]) {
  const Grid &source = to_coarse ? w.fine : w.coarse, &target = to_coarse ? w.coarse : w.fine;
  const ChannelBlocks<T> inputs(source.channels, true), outputs(target.channels);
  const Index frequencies = reach_of(m[0]) * reach_of(m[1]) * reach_of(m[2]);
  const Index bytes = frequencies * (inputs.padded + outputs.padded) * Index(sizeof(T));
  const Tiles tiles(target, m, std::clamp<Index>((Index(2) << 20) / bytes, 6, 96));
  Index low[3];
  for (int a = 0; a < 3; ++a) low[a] = to_coarse ? -w.padding[a] : w.padding[a] - (w.kernel[a] - 1);
  const TurnFeed<T, Turn::input> turn_feed(tiles, feed, source, low);

  const Index weights_plane = inputs.padded * outputs.padded + 16;
  const Index weights_bytes = frequencies * weights_plane * Index(sizeof(T));
  const bool by_groups = tiles.groups() >= 16 && weights_bytes <= Index(8) << 20;
  const Index most = std::max<Index>(24, (Index(16) << 20) / bytes);
  // Every block of outputs reads all values again: only while these and its weights stay in caches.
  // The threads change who does what, not what is done.
  const bool by_blocks =
      !by_groups && tiles.run(0, most) == tiles.groups() && outputs.count >= threads() &&
      frequencies * inputs.padded * (tiles.starts.back() + outputs.width(0)) * Index(sizeof(T)) <=
          Index(6) << 20;
  const Scratch<T> turned(by_blocks ? 0 : frequencies * weights_plane);
  const TurnWeights<T> turn_weights{
      w,      to_coarse,     inputs,       outputs, TurnBlock<T, Turn::weights>(m),
      weight, weights_plane, turned.data()};
  if (!by_blocks) parallel_for(turn_weights.tasks(), 1, turn_weights);

  Scratch<double> parts;
  if (sink.moments) {
    const Index all = tiles.groups() * 2 * outputs.padded;
    std::fill_n(parts.grow(all), all, 0.0);
  }
  const Winograd<T> work{
      tiles,         inputs,        outputs, turn_feed,   TurnBlock<T, Turn::output>(m),
      turned.data(), weights_plane, sink,    parts.data()};
  if (by_groups) {
    parallel_for(tiles.groups(), 1, GroupByGroup<T>{work});
  } else {
    Scratch<T> room;
    for (Index begin = 0, end; begin < tiles.groups(); begin = end) {
      end = tiles.run(begin, most);
      const Index count = tiles.tiles_in(begin, end);
      typename Winograd<T>::Run run{begin, count, {inputs, count}, {outputs, count}};
      run.values.data = room.grow(frequencies * (run.values.plane + run.sums.plane));
      run.sums.data = run.values.data + frequencies * run.values.plane;
      parallel_for((end - begin) * inputs.count, 1, ReadRun<T>{work, run});
      if (by_blocks) {
        parallel_for(outputs.count, 1, BlockByBlock<T>{work, run, turn_weights});
        continue;
      }
      parallel_for(frequencies, 4, MultiplyRun<T>{work, run});
      parallel_for((end - begin) * outputs.count, 1, WriteRun<T>{work, run});
    }
  }
  if (sink.moments)
    parallel_for(target.pairs(), 64,
                 MergeMoments{parts.data(), tiles.groups_of_case(), target.channels,
                              target.channels, outputs.padded, outputs.padded, sink.moments});
}

}  // namespace segmed::SEGMED_SET
