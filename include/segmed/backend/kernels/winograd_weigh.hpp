// SPDX-License-Identifier: Apache-2.0
// The gradient of convolution weights by Winograd's minimal filtering. Read once per instruction
// set: see simd.hpp.
//
// Runs of tiles are turned into frequencies on both sides. For each frequency the gradient is a
// matrix product over the tiles of a run, owned by one thread, turned back and added to what the
// runs before gave: sums never depend on threads, and are made in two stages.
#include <segmed/backend/kernels/winograd.hpp>

namespace segmed::SEGMED_SET {

template <class T>
struct WeighFrequencies {
  const Tiles& tiles;
  const Planes<T>&values, &grads;
  Index count;                                    // of tiles
  Index inside, slice;                            // fine channels, and those of a task
  TurnPlane<T, Turn::weights_adjoint> turn_back;
  T* sums;  // (frequency of depth, taps of height and width, fine channel, padded outputs)

  Index slices() const { return pieces(inside, slice); }
  Index tasks() const { return reach_of(tiles.m[0]) * slices() * grads.blocks.count; }
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) {
      const Index b = i % grads.blocks.count, s = i / grads.blocks.count % slices();
      run(i / grads.blocks.count / slices(), s * slice, std::min(slice, inside - s * slice), b);
    }
  }

 private:
  void run(Index depth, Index c0, Index channels, Index b) const {
    constexpr Index L = lanes<T>;
    const Index plane = reach_of(tiles.m[1]) * reach_of(tiles.m[2]);
    const Index width = grads.blocks.width(b), room = (channels + 8) * width;
    T* const turned = thread_scratch<T, 0>(plane * room);
    alignas(vector_bytes) T taps[9 * L];
    for (Index f = 0; f < plane; ++f) {
      if (grads.blocks.vectors(b) == 2)
        sum<2>(depth * plane + f, c0, channels, b, turned + f * room);
      else
        sum<1>(depth * plane + f, c0, channels, b, turned + f * room);
    }
    const Index count_taps = taps_of(tiles.m[1]) * taps_of(tiles.m[2]);
    const Index padded = grads.blocks.padded;
    for (Index c = 0; c < channels; ++c)
      for (Index v = 0; v < grads.blocks.vectors(b); ++v) {
        turn_back(turned + c * width + v * L, reach_of(tiles.m[2]) * room, room, taps, L);
        for (Index k = 0; k < count_taps; ++k) {
          T* to = sums + ((depth * count_taps + k) * inside + c0 + c) * padded +
                  grads.blocks.first(b) + v * L;
          store(to, load(to) + load(taps + k * L));
        }
      }
  }
  template <int vectors>
  void sum(Index f, Index c0, Index channels, Index b, T* to) const {
    constexpr Index rows = block_rows<vectors>, width = vectors * lanes<T>;
    static constexpr T zero[width] = {};
    const Index start = 0, step = values.blocks.width(0);
    const Runs runs{&start, 1, count, step};
    for (Index c = 0; c < channels; c += rows, to += rows * width) {
      const T* row[rows];
      for (Index r = 0; r < rows; ++r) {
        const Index at = c0 + std::min(c + r, channels - 1);
        row[r] = values.at(f, at / step, 0) + at % step;
      }
      multiply<T, vectors>(row, runs, grads.at(f, b, 0), zero, 0, to, vectors * lanes<T>);
    }
  }
};

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

// The last turn, along depth.
template <class T>
struct MergeDepth {
  Index depth, plane_taps, inside, outside, padded;
  TurnLines<T> lines;
  const T* sums;
  T* weight_grad;
  void operator()(Index begin, Index end) const {
    constexpr Index L = lanes<T>;
    T taps[3 * L];
    const Index step = plane_taps * inside * padded;
    for (Index row = begin; row < end; ++row)
      for (Index o = 0; o < outside; o += L) {
        lines(sums + row * padded + o, step, 0, taps, L, 0, 1);
        for (Index k = 0; k < depth; ++k)
          for (Index i = 0; i < std::min(L, outside - o); ++i)
            weight_grad[(k * plane_taps * inside + row) * outside + o + i] += taps[k * L + i];
      }
  }
};

template <class T>
void weigh_tiles(const Window& w, const Feed<T>& fine, const Feed<T>& coarse, T* weight_grad,
                 const Index (&m)[3]) {
  const ChannelBlocks<T> inputs(w.fine.channels, true), outputs(w.coarse.channels);
  const Tiles tiles(w.coarse, m, 32, 0);
  const Index frequencies = tiles.frequencies();
  const Index bytes = frequencies * (inputs.padded + outputs.padded) * Index(sizeof(T));
  const Index low[3] = {-w.padding[0], -w.padding[1], -w.padding[2]};
  const TurnFeed<T, Turn::input> turn_fine(tiles, fine, w.fine, low);
  const TurnFeed<T, Turn::output_adjoint> turn_coarse(tiles, coarse, w.coarse, {0, 0, 0});

  const Index plane_taps = taps_of(m[1]) * taps_of(m[2]);
  const Index numbers = reach_of(m[0]) * plane_taps * w.fine.channels * outputs.padded;
  Scratch<T> sums(numbers), room;
  std::fill_n(sums.data(), numbers, T(0));
  const Index most = std::max<Index>(32, (Index(6) << 20) / bytes);
  for (Index begin = 0, end; begin < tiles.groups(); begin = end) {
    end = tiles.run(begin, most);
    const Index count = tiles.tiles_in(begin, end);
    Planes<T> values(inputs, count), grads(outputs, count);
    values.data = room.grow(frequencies * (values.plane + grads.plane));
    grads.data = values.data + frequencies * values.plane;
    parallel_for((end - begin) * (inputs.count + outputs.count), 1,
                 TurnBoth<T>{turn_fine, turn_coarse, values, grads, begin});
    const WeighFrequencies<T> weighing{tiles,
                                       values,
                                       grads,
                                       count,
                                       w.fine.channels,
                                       std::min<Index>(w.fine.channels, 48),
                                       TurnPlane<T, Turn::weights_adjoint>(m),
                                       sums.data()};
    parallel_for(weighing.tasks(), 1, weighing);
  }
  parallel_for(
      plane_taps * w.fine.channels, 16,
      MergeDepth<T>{taps_of(m[0]), plane_taps, w.fine.channels, w.coarse.channels, outputs.padded,
                    lines_of<T, Turn::weights_adjoint>(m[0]), sums.data(), weight_grad});
}

}  // namespace segmed::SEGMED_SET
