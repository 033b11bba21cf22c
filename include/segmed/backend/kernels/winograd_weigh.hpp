// SPDX-License-Identifier: Apache-2.0
// The gradient of convolution weights by Winograd's minimal filtering. Read once per instruction
// set: see simd.hpp.
//
// Runs of tiles are turned into frequencies on both sides. For each frequency the gradient is a
// matrix product over the tiles of a run, owned by one thread, turned back and added to what the
// runs before gave: sums never depend on threads, and are made in two stages, the second in S.
#include <segmed/backend/kernels/winograd.hpp>

namespace segmed::SEGMED_SET {

template <class T, class S>
struct WeighFrequencies {
  // Fine channels whose frequencies stay in the nearest cache.
  static constexpr Index slice = block_rows<2>;

  const Tiles& tiles;
  Index inside, padded;                           // fine channels, padded outputs
  TurnPlane<T, Turn::weights_adjoint> turn_back;  // but for depth
  S* sums;  // (frequency of depth, taps of height and width, fine channel, padded outputs)

  // Frequency `depth` along depth, of which those along the others begin with number f of the
  // planes; `count` tiles, fine channels from c0 on, block b of the coarse ones; before the `first`
  // run there are no sums.
  void operator()(Index depth, const Planes<T>& values, const Planes<T>& grads, Index f,
                  Index count, Index c0, Index b, bool first) const {
    constexpr Index L = lanes<T>;
    const Index plane = tiles.plane(), channels = std::min(slice, inside - c0);
    const Index width = grads.blocks.width(b), room = (slice + 8) * width + 16;
    T* const turned = thread_scratch<T, 0>(plane * room);
    const Index count_taps = turn_back.count();
    S* const to = sums + (depth * count_taps * inside + c0) * padded + grads.blocks.first(b);
    ask_for(to, channels, width);
    for (Index i = 0; i < plane; ++i)
      if (grads.blocks.vectors(b) == 2)
        sum<2>(values, grads, f + i, count, c0, channels, b, turned + i * room);
      else
        sum<1>(values, grads, f + i, count, c0, channels, b, turned + i * room);
    alignas(vector_bytes) T taps[9 * L];
    for (Index c = 0; c < channels; ++c)
      for (Index v = 0; v < grads.blocks.vectors(b); ++v) {
        turn_back(turned + c * width + v * L, reach_of(tiles.m[2]) * room, room, taps, L);
        for (Index k = 0; k < count_taps; ++k)
          add(taps + k * L, first, to + (k * inside + c) * padded + v * L);
      }
  }

 private:
  static void add(const T* vector, bool first, S* sum) {
    for (Index o = 0; o < lanes<T>; o += lanes<S>) {
      Vector<S> value;
      if constexpr (sizeof(S) == sizeof(T))
        value = load(vector + o);
      else
        value = widened(vector + o);
      store(sum + o, first ? value : load(sum + o) + value);
    }
  }
  // Lines that lie apart, which the processor does not foresee.
  void ask_for(const S* to, Index channels, Index width) const {
    for (Index k = 0; k < turn_back.count(); ++k)
      for (Index c = 0; c < channels; ++c)
        for (Index i = 0; i < width; i += 64 / Index(sizeof(S)))
          __builtin_prefetch(to + (k * inside + c) * padded + i, 1);
  }
  // Asks for the next frequency of the gradient, as products of values do for weights.
  template <int vectors>
  static void sum(const Planes<T>& values, const Planes<T>& grads, Index f, Index count, Index c0,
                  Index channels, Index b, T* to) {
    constexpr Index rows = block_rows<vectors>, width = vectors * lanes<T>;
    static constexpr T zero[width] = {};
    const Index start = 0, step = values.blocks.width(0);
    Runs runs{&start, 1, count, step, grads.plane};
    for (Index c = 0; c < channels; c += rows, to += rows * width) {
      const T* row[rows];
      for (Index r = 0; r < rows; ++r) {
        const Index at = c0 + std::min(c + r, channels - 1);
        row[r] = values.at(f, at / step, 0) + at % step;
      }
      multiply<T, vectors, Put::cached, rows, true>(row, runs, grads.at(f, b, 0), zero, 0, to,
                                                    width);
      runs.next = grads.plane + (grads.plane + width / 2 - runs.next);
    }
  }
};

// Both sides of a run of groups, all of its frequencies, and their products: where frequencies
// along depth are too few to have one thread each.
template <class T>
struct TurnBoth {
  const TurnFeed<T, Turn::input>& fine;
  const TurnFeed<T, Turn::output_adjoint>& coarse;
  const Planes<T>&values, &grads;
  Index first_group;
  Index blocks() const { return values.blocks.count + grads.blocks.count; }
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) {
      const Index group = first_group + i / blocks(), b = i % blocks();
      const Index at = fine.tiles.tiles_in(first_group, group);
      if (b < values.blocks.count)
        fine(group, b, values, at);
      else
        coarse(group, b - values.blocks.count, grads, at);
    }
  }
};
template <class T, class S>
struct WeighRun {
  const WeighFrequencies<T, S>& weigh;
  const Planes<T>&values, &grads;
  Index count;  // of tiles
  bool first;
  Index slices() const { return pieces(weigh.inside, weigh.slice); }
  Index tasks() const { return weigh.tiles.slices() * slices() * grads.blocks.count; }
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) {
      const Index b = i / slices() % grads.blocks.count, depth = i / slices() / grads.blocks.count;
      weigh(depth, values, grads, depth * weigh.tiles.plane(), count, i % slices() * weigh.slice, b,
            first);
    }
  }
};

// The boxes of a batch of runs, both sides.
template <class T, class S>
struct WeighBatch {
  const Boxes<T, Turn::input>& fine;
  const Boxes<T, Turn::output_adjoint>& coarse;
  const WeighFrequencies<T, S>& weigh;
  Index begin, end, most;  // groups; tiles of a run
  std::vector<T*> boxes;   // of each group, one side behind the other
};
template <class T, class S>
struct ReadBatch {
  const WeighBatch<T, S>& batch;
  Index chunks() const { return batch.fine.chunks() + batch.coarse.chunks(); }
  Index tasks() const { return (batch.end - batch.begin) * chunks(); }
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) {
      const Index group = batch.begin + i / chunks(), c = i % chunks();
      T* const box = batch.boxes[std::size_t(group - batch.begin)];
      if (c < batch.fine.chunks())
        batch.fine.read(group, c, box);
      else
        batch.coarse.read(group, c - batch.fine.chunks(), box + batch.fine.numbers(group));
    }
  }
};
// Each thread a frequency along depth, run by run: what it needs of a run stays in caches near by.
template <class T, class S>
struct WeighSlices {
  const WeighBatch<T, S>& batch;
  void operator()(Index begin, Index end) const {
    for (Index depth = begin; depth < end; ++depth)
      for (Index first = batch.begin, last; first < batch.end; first = last) {
        last = batch.weigh.tiles.run(first, batch.most);
        run(depth, first, last);
      }
  }

 private:
  void run(Index depth, Index first, Index last) const {
    const Tiles& tiles = batch.weigh.tiles;
    const Index count = tiles.tiles_in(first, last);
    Planes<T> values(batch.fine.blocks, count), grads(batch.coarse.blocks, count);
    values.data = thread_scratch<T, 1>(tiles.plane() * (values.plane + grads.plane));
    grads.data = values.data + tiles.plane() * values.plane;
    for (Index i = first; i < last; ++i) {
      T* const box = batch.boxes[std::size_t(i - batch.begin)];
      const Index at = tiles.tiles_in(first, i);
      batch.fine.turn_slice(i, box, depth, values, at);
      batch.coarse.turn_slice(i, box + batch.fine.numbers(i), depth, grads, at);
    }
    for (Index b = 0; b < grads.blocks.count; ++b)
      for (Index c = 0; c < batch.weigh.inside; c += batch.weigh.slice)
        batch.weigh(depth, values, grads, 0, count, c, b, first == 0);
  }
};

// The last turn, along depth, of some of all outputs.
template <class T, class S>
struct MergeDepth {
  Index depth, plane_taps, inside, outside, padded, all;
  TurnLines<S> lines;
  const S* sums;
  T* weight_grad;
  void operator()(Index begin, Index end) const {
    constexpr Index L = lanes<S>;
    S taps[3 * L];
    const Index step = plane_taps * inside * padded;
    for (Index row = begin; row < end; ++row)
      for (Index o = 0; o < outside; o += L) {
        lines(sums + row * padded + o, step, 0, taps, L, 0, 1);
        for (Index k = 0; k < depth; ++k)
          for (Index i = 0; i < std::min(L, outside - o); ++i)
            weight_grad[(k * plane_taps * inside + row) * all + o + i] += T(taps[k * L + i]);
      }
  }
};

// Of outputs [first, first + count).
template <class T, class S>
void weigh_tiles(const Window& w, const Feed<T>& fine, const Feed<T>& coarse, Index first,
                 Index outside, T* weight_grad, const Index (&m)[3]) {
  const ChannelBlocks<T> inputs(w.fine.channels, true), outputs(outside);
  const Tiles tiles(w.coarse, m, 24, 0);
  const Index frequencies = tiles.frequencies();
  const Index low[3] = {-w.padding[0], -w.padding[1], -w.padding[2]};
  const TurnFeed<T, Turn::input> turn_fine(tiles, fine, w.fine, low);
  const TurnFeed<T, Turn::output_adjoint> turn_coarse(tiles, coarse, w.coarse, {0, 0, 0}, first);

  const Index plane_taps = taps_of(m[1]) * taps_of(m[2]);
  const Index numbers = reach_of(m[0]) * plane_taps * w.fine.channels * outputs.padded;
  const Scratch<S> sums(numbers);
  Scratch<T> room;
  const WeighFrequencies<T, S> weighing{tiles, w.fine.channels, outputs.padded,
                                        TurnPlane<T, Turn::weights_adjoint>(m), sums.data()};
  // Runs are long, so that turning back is little, and their slices stay in caches. The threads
  // change who does what, not what is done.
  const Index bytes = tiles.plane() * (inputs.padded + outputs.padded) * Index(sizeof(T));
  const Index most = std::clamp<Index>((Index(896) << 10) / bytes, 48, 96);
  const bool by_slices = tiles.slices() >= threads();
  const Boxes<T, Turn::input> fine_boxes{turn_fine, inputs};
  const Boxes<T, Turn::output_adjoint> coarse_boxes{turn_coarse, outputs};
  for (Index begin = 0, end; begin < tiles.groups(); begin = end) {
    end = tiles.run(begin, most);
    const Index count = tiles.tiles_in(begin, end);
    if (by_slices) {
      WeighBatch<T, S> batch{fine_boxes, coarse_boxes, weighing, begin, end, most, {}};
      Index all = 0;
      for (Index i = begin; i < end; ++i) all += fine_boxes.numbers(i) + coarse_boxes.numbers(i);
      T* box = room.grow(all);
      for (Index i = begin; i < end; ++i) {
        batch.boxes.push_back(box);
        box += fine_boxes.numbers(i) + coarse_boxes.numbers(i);
      }
      const ReadBatch<T, S> reading{batch};
      parallel_for(reading.tasks(), 1, reading);
      parallel_for(tiles.slices(), 1, WeighSlices<T, S>{batch});
      continue;
    }
    Planes<T> values(inputs, count), grads(outputs, count);
    values.data = room.grow(frequencies * (values.plane + grads.plane));
    grads.data = values.data + frequencies * values.plane;
    parallel_for((end - begin) * (inputs.count + outputs.count), 1,
                 TurnBoth<T>{turn_fine, turn_coarse, values, grads, begin});
    const WeighRun<T, S> products{weighing, values, grads, count, begin == 0};
    parallel_for(products.tasks(), 1, products);
  }
  parallel_for(plane_taps * w.fine.channels, 16,
               MergeDepth<T, S>{taps_of(m[0]), plane_taps, w.fine.channels, outside, outputs.padded,
                                w.coarse.channels, lines_of<S, Turn::weights_adjoint>(m[0]),
                                sums.data(), weight_grad + first});
}

// Precise sums over the runs are in double, and of as many outputs at once as take 16 MiB.
template <class T>
void weigh_tiles(const Window& w, const Feed<T>& fine, const Feed<T>& coarse, T* weight_grad,
                 const Index (&m)[3], bool precise) {
  const Index all = w.coarse.channels;
  if (!precise) return weigh_tiles<T, T>(w, fine, coarse, 0, all, weight_grad, m);
  const Index bytes =
      reach_of(m[0]) * taps_of(m[1]) * taps_of(m[2]) * w.fine.channels * Index(sizeof(double));
  constexpr Index block = 2 * lanes<T>;
  const Index fit = std::max(block, (Index(16) << 20) / bytes / block * block);
  const Index part = pieces(pieces(all, block), pieces(all, fit)) * block;
  for (Index first = 0; first < all; first += part)
    weigh_tiles<T, double>(w, fine, coarse, first, std::min(part, all - first), weight_grad, m);
}

}  // namespace segmed::SEGMED_SET
