// SPDX-License-Identifier: Apache-2.0
// Convolutions of stride 1 with kernels of three taps by Winograd's minimal filtering, nested over
// the axes. Read once per instruction set: see simd.hpp.
//
// The target is walked in tiles of m voxels a side. What tiles read is turned into frequencies; a
// frequency of all outputs is a small matrix product over the channels; what comes out is turned
// back.
#include <segmed/backend/kernels/tiles.hpp>

namespace segmed::SEGMED_SET {

// Weights to [frequency][block of outputs][input, padded][output].
template <class T>
struct TurnWeights {
  const Window& w;
  bool to_coarse;
  const ChannelBlocks<T>&inputs, &outputs;
  Index slices;  // frequencies along depth
  TurnLines<T> along_depth;
  TurnPlane<T, Turn::weights> turn_plane;
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
    T* const taps = thread_scratch<T, 0>(vectors * vector_step);
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
    const Index slice = w.kernel[1] * w.kernel[2] * L, depth = turn_plane.count() * out_step;
    alignas(vector_bytes) T turned[6 * 9 * L];
    for (Index c = 0; c < L; ++c)
      for (Index v = 0; v < vectors; ++v) {
        along_depth(taps + v * vector_step + c * count * L, slice, L, turned, slice, L, slice / L);
        for (Index k = 0; k < slices; ++k)
          turn_plane(turned + k * slice, w.kernel[2] * L, L, out + c * width + v * L + k * depth,
                     out_step);
      }
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
  TurnPlane<T, Turn::output> turn_back;
  TurnLines<T> along_depth;
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
  // Frequency f of the weights, which is number `at` of the planes.
  void multiply_frequency(const Run& run, Index f, Index at) const {
    for (Index b = 0; b < outputs.count; ++b)
      multiply_block(run, at, b, weights + f * weights_plane + inputs.padded * outputs.first(b));
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
    const Tiles::Group g = tiles.at(group);
    alignas(vector_bytes) T slices[6 * 16 * lanes<T>];
    const Index at = tiles.tiles_in(run.begin, group);
    for (Index i = 0; i < g.tiles(); ++i)
      for (Index v = 0; v < outputs.vectors(b); ++v) {
        for (Index k = 0; k < tiles.slices(); ++k)
          turn_slice(run, k * tiles.plane(), b, at + i, v, slices + k * turn_back.count() * lanes<T>);
        write_tile(group, g, i, b, v, slices);
      }
  }
  // What a slice's frequencies, the first of them number f, give to a vector of outputs of a tile.
  void turn_slice(const Run& run, Index f, Index b, Index tile, Index v, T* to) const {
    const Index plane = run.sums.plane;
    turn_back(run.sums.at(f, b, tile) + v * lanes<T>, reach_of(tiles.m[2]) * plane, plane, to,
              lanes<T>);
  }
  // The last turn, along depth, of tile i of a group.
  void write_tile(Index group, const Tiles::Group& g, Index i, Index b, Index v,
                  const T* slices) const {
    constexpr Index L = lanes<T>;
    alignas(vector_bytes) T tile[64 * L];
    const Index count = turn_back.count();
    along_depth(slices, count * L, L, tile, count * L, L, count);
    const Grid& grid = tiles.grid;
    const Index whole[3] = {grid.depth, grid.height, grid.width};
    const Index place[3] = {i / g.extent[2] / g.extent[1], i / g.extent[2] % g.extent[1],
                            i % g.extent[2]};
    Index first[3], extent[3];
    for (int a = 0; a < 3; ++a) {
      first[a] = (g.first[a] + place[a]) * tiles.m[a];
      extent[a] = std::min(tiles.m[a], whole[a] - first[a]);
    }
    const Index voxel =
        g.n * grid.voxels() + (first[0] * grid.height + first[1]) * grid.width + first[2];
    const Index c = outputs.first(b) + v * L;
    put_box(sink, extent, voxel, {grid.height * grid.width, grid.width, 1}, c,
            std::min(L, outputs.channels - c), tile, {count * L, tiles.m[2] * L, L},
            sink.bias ? sink.bias + c : nullptr,
            moments ? moments + group * 2 * outputs.padded + c : nullptr, outputs.padded);
  }

 private:
  template <int vectors>
  static void multiply_tiles(const T* values, Index step, const Runs& runs, const T* w, Index count,
                             T* to) {
    constexpr Index rows = block_rows<vectors>;
    for (Index q = 0; q < count; q += rows, to += rows * vectors * lanes<T>)
      if (count - q > rows / 2)
        multiply_some<vectors, rows>(values, step, runs, w, q, count, to);
      else
        multiply_some<vectors, rows / 2>(values, step, runs, w, q, count, to);
  }
  template <int vectors, Index rows>
  [[gnu::always_inline]] static void multiply_some(const T* values, Index step, const Runs& runs,
                                                   const T* w, Index q, Index count, T* to) {
    constexpr Index width = vectors * lanes<T>;
    static constexpr T zero[width] = {};
    const T* row[rows];
    for (Index r = 0; r < rows; ++r) row[r] = values + std::min(q + r, count - 1) * step;
    multiply<T, vectors, Put::cached, rows>(row, runs, w, zero, 0, to, width);
  }
};

// Each thread a group, slice by slice of the frequencies along depth: what a slice needs stays in
// the second-level cache.
template <class T>
struct SliceBySlice {
  static constexpr Index chunk = Pending<T>::most;  // channels read at once

  const Winograd<T>& work;
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) run(i);
  }

 private:
  void run(Index i) const {
    constexpr Index L = lanes<T>;
    const Tiles& tiles = work.tiles;
    const Tiles::Group g = tiles.at(i);
    const Index count = g.tiles(), depth = tiles.slices();
    const Index padded = work.inputs.padded, part = work.turn_back.count() * L;
    typename Winograd<T>::Run run{i, count, {work.inputs, count}, {work.outputs, count}};
    Index numbers = tiles.plane() * (run.values.plane + run.sums.plane);
    const Index parts = numbers;
    numbers += work.outputs.padded / L * count * depth * part;
    const Index boxes = numbers;
    for (Index c = 0; c < padded; c += chunk)
      numbers += work.turn_feed.numbers(work.turn_feed.slices(g, c, std::min(chunk, padded - c)));
    T* const data = thread_scratch<T, 1>(numbers);
    run.values.data = data, run.sums.data = data + tiles.plane() * run.values.plane;

    T* box = data + boxes;
    for (Index c = 0; c < padded; c += chunk) {
      const auto s = slices_of(g, c, box);
      work.turn_feed.read(g, std::min(s.width, work.inputs.channels - c), s);
      box += work.turn_feed.numbers(s);
    }
    for (Index k = 0; k < depth; ++k) {
      box = data + boxes;
      for (Index c = 0, b = 0; c < padded; c += chunk) {
        const auto s = slices_of(g, c, box);
        for (; b < work.inputs.count && work.inputs.first(b) < c + s.width; ++b)
          work.turn_feed.turn_slice(g, s, k, b, run.values, 0, 0);
        box += work.turn_feed.numbers(s);
      }
      for (Index f = 0; f < tiles.plane(); ++f)
        work.multiply_frequency(run, k * tiles.plane() + f, f);
      T* to = data + parts + k * part;
      for (Index b = 0; b < work.outputs.count; ++b)
        for (Index t = 0; t < count; ++t)
          for (Index v = 0; v < work.outputs.vectors(b); ++v, to += depth * part)
            work.turn_slice(run, 0, b, t, v, to);
    }
    const T* from = data + parts;
    for (Index b = 0; b < work.outputs.count; ++b)
      for (Index t = 0; t < count; ++t)
        for (Index v = 0; v < work.outputs.vectors(b); ++v, from += depth * part)
          work.write_tile(i, g, t, b, v, from);
  }
  typename TurnFeed<T, Turn::input>::Slices slices_of(const Tiles::Group& g, Index c,
                                                      T* data) const {
    auto s = work.turn_feed.slices(g, c, std::min(chunk, work.inputs.padded - c));
    s.data = data;
    return s;
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
    for (Index f = begin; f < end; ++f) work.multiply_frequency(run, f, f);
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
  // A slice's frequencies and what comes of them stay in the second-level cache; of tiles there are
  // enough that the weights' way to the product is short beside it.
  const Index slice_bytes = bytes / reach_of(m[0]);
  const Tiles tiles(target, m, std::clamp<Index>((Index(448) << 10) / slice_bytes, 8, 96),
                    double(frequencies * outputs.padded) / 24);
  Index low[3];
  for (int a = 0; a < 3; ++a) low[a] = to_coarse ? -w.padding[a] : w.padding[a] - (w.kernel[a] - 1);
  const TurnFeed<T, Turn::input> turn_feed(tiles, feed, source, low);

  const Index weights_plane = inputs.padded * outputs.padded + 16;
  const Index weights_bytes = frequencies * weights_plane * Index(sizeof(T));
  const bool by_groups = tiles.groups() >= 8 && weights_bytes <= Index(16) << 20;
  const Index most = std::max<Index>(24, (Index(16) << 20) / bytes);
  // Every block of outputs reads all values again: only while these and its weights stay in caches.
  // The threads change who does what, not what is done.
  const bool by_blocks =
      !by_groups && tiles.run(0, most) == tiles.groups() && outputs.count >= threads() &&
      frequencies * inputs.padded * (tiles.starts.back() + outputs.width(0)) * Index(sizeof(T)) <=
          Index(6) << 20;
  const Scratch<T> turned(by_blocks ? 0 : frequencies * weights_plane);
  const TurnWeights<T> turn_weights{
      w,      to_coarse,     inputs,       outputs, reach_of(m[0]), lines_of<T, Turn::weights>(m[0]), TurnPlane<T, Turn::weights>(m),
      weight, weights_plane, turned.data()};
  if (!by_blocks) parallel_for(turn_weights.tasks(), 1, turn_weights);

  Scratch<double> parts;
  if (sink.moments) {
    const Index all = tiles.groups() * 2 * outputs.padded;
    std::fill_n(parts.grow(all), all, 0.0);
  }
  const Winograd<T> work{
      tiles,         inputs,        outputs, turn_feed,   TurnPlane<T, Turn::output>(m), lines_of<T, Turn::output>(m[0]),
      turned.data(), weights_plane, sink,    parts.data()};
  if (by_groups) {
    parallel_for(tiles.groups(), 1, SliceBySlice<T>{work});
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
