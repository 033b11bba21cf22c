// SPDX-License-Identifier: Apache-2.0
// Convolutions of stride 1 with kernels of three taps by Winograd's minimal filtering, nested over
// the axes. Read once per instruction set: see simd.hpp.
//
// The target is walked in tiles of m voxels a side. What tiles read is turned into frequencies; a
// frequency of all outputs is a small matrix product over the channels; what comes out is turned
// back.
#include <segmed/backend/kernels/turn_weights.hpp>

namespace segmed::SEGMED_SET {

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
      multiply_block(run, at, at, b,
                     weights + f * weights_plane + inputs.padded * outputs.first(b));
  }
  // A frequency of one block of outputs, whose weights begin at w; its numbers in both planes.
  void multiply_block(const Run& run, Index f, Index to, Index b, const T* w) const {
    Index* starts = thread_scratch<Index, 2>(inputs.count);
    for (Index i = 0; i < inputs.count; ++i) starts[i] = run.values.room * inputs.first(i);
    const Index width = inputs.width(0);
    const Runs runs{starts, inputs.count, inputs.count == 1 ? inputs.channels : width, 1};
    const Index numbers = inputs.padded * outputs.width(b);
    if (outputs.vectors(b) == 2)
      multiply_tiles<2>(run.values.at(f, 0, 0), width, runs, w, numbers, run.tiles,
                        run.sums.at(to, b, 0));
    else
      multiply_tiles<1>(run.values.at(f, 0, 0), width, runs, w, numbers, run.tiles,
                        run.sums.at(to, b, 0));
  }
  void write(const Run& run, Index group, Index b) const {
    const Tiles::Group g = tiles.at(group);
    alignas(vector_bytes) T slices[6 * 16 * lanes<T>];
    const Index at = tiles.tiles_in(run.begin, group);
    for (Index i = 0; i < g.tiles(); ++i)
      for (Index v = 0; v < outputs.vectors(b); ++v) {
        for (Index k = 0; k < tiles.slices(); ++k)
          turn_slice(run, k * tiles.plane(), b, at + i, v,
                     slices + k * turn_back.count() * lanes<T>);
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
  // Asks for the weights that come next, as many as these, while it uses these: one cache line of
  // each row, which may have two.
  template <int vectors>
  static void multiply_tiles(const T* values, Index step, Runs runs, const T* w, Index weights,
                             Index count, T* to) {
    constexpr Index rows = block_rows<vectors>, width = vectors * lanes<T>;
    runs.next = weights;
    for (Index q = 0; q < count; q += rows, to += rows * width) {
      if (count - q > rows / 2)
        multiply_some<vectors, rows>(values, step, runs, w, q, count, to);
      else
        multiply_some<vectors, rows / 2>(values, step, runs, w, q, count, to);
      runs.next = weights + (weights + width / 2 - runs.next);
    }
  }
  template <int vectors, Index rows>
  [[gnu::always_inline]] static void multiply_some(const T* values, Index step, const Runs& runs,
                                                   const T* w, Index q, Index count, T* to) {
    constexpr Index width = vectors * lanes<T>;
    static constexpr T zero[width] = {};
    const T* row[rows];
    for (Index r = 0; r < rows; ++r) row[r] = values + std::min(q + r, count - 1) * step;
    multiply<T, vectors, Put::cached, rows, true>(row, runs, w, zero, 0, to, width);
  }
};

// Each thread a group, slice by slice of the frequencies along depth: what a slice needs stays in
// the second-level cache.
template <class T>
struct SliceBySlice {
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
    const Index part = work.turn_back.count() * L;
    const Boxes<T, Turn::input> boxes{work.turn_feed, work.inputs};
    typename Winograd<T>::Run run{i, count, {work.inputs, count}, {work.outputs, count}};
    // What comes of a frequency takes the place of the one before: half the room.
    run.values.plane = run.sums.plane = std::max(run.values.plane, run.sums.plane);
    Index numbers = (tiles.plane() + 1) * run.values.plane;
    const Index parts = numbers;
    numbers += work.outputs.padded / L * count * depth * part;
    const Index box = numbers;
    numbers += boxes.numbers(i);
    T* const data = thread_scratch<T, 1>(numbers);
    run.sums.data = data, run.values.data = data + run.values.plane;

    for (Index c = 0; c < boxes.chunks(); ++c) boxes.read(i, c, data + box);
    for (Index k = 0; k < depth; ++k) {
      boxes.turn_slice(i, data + box, k, run.values, 0);
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
// into the product, block by block of outputs and slice by slice, and never to memory.
template <class T>
struct BlockByBlock {
  const Winograd<T>& work;
  const typename Winograd<T>::Run& run;
  const TurnWeights<T>& turn_weights;
  void operator()(Index begin, Index end) const {
    for (Index b = begin; b < end; ++b) write(b);
  }

 private:
  void write(Index b) const {
    constexpr Index L = lanes<T>;
    const Tiles& tiles = work.tiles;
    const Index inside = work.inputs.padded, width = work.outputs.width(b), depth = tiles.slices();
    const Index weights = inside * width * turn_weights.taps(), part = work.turn_back.count() * L;
    const Index plane = inside * width + 16;
    typename Winograd<T>::Run own = run;
    Index numbers = depth * weights;
    const Index turned = numbers;
    numbers += tiles.plane() * plane;
    const Index sums = numbers;
    numbers += tiles.plane() * own.sums.plane;
    const Index parts = numbers;
    numbers += run.tiles * width * depth * work.turn_back.count();
    T* const data = thread_scratch<T, 1>(numbers);
    own.sums.data = data + sums;
    for (Index c = 0; c < inside; c += L) {
      if (c + L < inside) turn_weights.ask_for(c + L, b);
      turn_weights.turn_depth(c, b, data + c * width * turn_weights.taps(), weights);
    }
    for (Index k = 0; k < depth; ++k) {
      turn_weights.turn_slice(data + k * weights, inside, b, data + turned, plane);
      for (Index f = 0; f < tiles.plane(); ++f)
        work.multiply_block(own, k * tiles.plane() + f, f, b, data + turned + f * plane);
      T* to = data + parts + k * part;
      for (Index t = 0; t < run.tiles; ++t)
        for (Index v = 0; v < work.outputs.vectors(b); ++v, to += depth * part)
          work.turn_slice(own, 0, b, t, v, to);
    }
    const T* from = data + parts;
    for (Index i = 0; i < tiles.groups(); ++i) {
      const Tiles::Group g = tiles.at(i);
      for (Index t = 0; t < g.tiles(); ++t)
        for (Index v = 0; v < work.outputs.vectors(b); ++v, from += depth * part)
          work.write_tile(i, g, t, b, v, from);
    }
  }
};

template <class T>
void convolve_tiles(const Window& w, bool to_coarse, const Feed<T>& feed,
                    const WeightFeed<T>& weight, const Sink<T>& sink, const Index (&m)[3]) {
  const Grid &source = to_coarse ? w.fine : w.coarse, &target = to_coarse ? w.coarse : w.fine;
  const TiledWeights<T> weights(w, to_coarse, m);
  const ChannelBlocks<T>&inputs = weights.inputs, &outputs = weights.outputs;
  const Index frequencies = weights.frequencies;
  const Index bytes = frequencies * (inputs.padded + outputs.padded) * Index(sizeof(T));
  // A slice's frequencies and what comes of them stay in the second-level cache; of tiles there are
  // enough that the weights' way to the product is short beside it.
  const Index slice_bytes = bytes / reach_of(m[0]);
  const Tiles tiles(target, m, std::clamp<Index>((Index(448) << 10) / slice_bytes, 12, 96),
                    double(frequencies * outputs.padded) / 24);
  Index low[3];
  for (int a = 0; a < 3; ++a) low[a] = to_coarse ? -w.padding[a] : w.padding[a] - (w.kernel[a] - 1);
  const TurnFeed<T, Turn::input> turn_feed(tiles, feed, source, low);

  const Index weights_bytes = weights.numbers() * Index(sizeof(T));
  const bool given = weight.formed && std::equal(m, m + 3, weight.form.tile);
  const Index most = std::max<Index>(24, (Index(16) << 20) / bytes);
  // The threads change who does what, not what is done.
  const bool by_blocks =
      !given && tiles.starts.back() <= std::min<Index>(most, 48) && outputs.count >= threads();
  const bool by_groups =
      !by_blocks && tiles.groups() >= 2 * threads() && weights_bytes <= Index(16) << 20;
  const bool at_once = !given && !by_blocks;
  const Scratch<T> turned(at_once ? weights.numbers() : 0);
  if (at_once) weights.turn(weight.given, turned.data());
  const TurnWeights<T> turn_weights = weights.turning(weight.given, nullptr);

  Scratch<double> parts;
  if (sink.moments) {
    const Index all = tiles.groups() * 2 * outputs.padded;
    std::fill_n(parts.grow(all), all, 0.0);
  }
  const Winograd<T> work{tiles,
                         inputs,
                         outputs,
                         turn_feed,
                         TurnPlane<T, Turn::output>(m),
                         lines_of<T, Turn::output>(m[0]),
                         given ? weight.formed : turned.data(),
                         weights.plane,
                         sink,
                         parts.data()};
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
