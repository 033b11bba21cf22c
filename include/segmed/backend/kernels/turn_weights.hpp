// SPDX-License-Identifier: Apache-2.0
// Weights turned into frequencies for Winograd's minimal filtering. Read once per instruction set:
// see simd.hpp.
#include <segmed/backend/kernels/tiles.hpp>

namespace segmed::SEGMED_SET {

// Weights to [frequency][block of outputs][input, padded][output], first along depth: slices are
// [input][vector of outputs][tap].
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

  Index taps() const { return w.kernel[1] * w.kernel[2]; }  // of a slice
  Index tasks() const { return inputs.padded / lanes<T> * outputs.count; }
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) {
      const Index c0 = i / outputs.count * lanes<T>, b = i % outputs.count;
      const Index step = lanes<T> * outputs.width(b) * taps();
      T* const scratch = thread_scratch<T, 3>(slices * step);
      if (b + 1 < outputs.count) ask_for(c0, b + 1);
      turn_depth(c0, b, scratch, step);
      for (Index k = 0; k < slices; ++k)
        turn_slice(scratch + k * step, lanes<T>, b,
                   to + k * turn_plane.count() * plane + inputs.padded * outputs.first(b) +
                       c0 * outputs.width(b),
                   plane);
    }
  }
  // A vector of source channels from c0 on and a block of outputs to slices `step` apart.
  void turn_depth(Index c0, Index b, T* out, Index step) const {
    constexpr Index L = lanes<T>;
    const Index count = w.taps(), slice = taps() * L, vectors = outputs.vectors(b);
    T* const given = thread_scratch<T, 0>(L * count * L);
    const Index live_inputs = std::clamp<Index>(inputs.channels - c0, 0, L);
    for (Index v = 0; v < vectors; ++v) {
      const Index first = outputs.first(b) + v * L;
      const Index live = std::min(L, outputs.channels - first);
      if (live < L || live_inputs < L) std::fill_n(given, L * count * L, T(0));
      for (Index k = 0; k < count; ++k)
        if (to_coarse)
          read(k, c0, live_inputs, first, live, given + k * L);
        else
          read_turned(k, c0, live_inputs, first, live, given + k * L);
      for (Index c = 0; c < L; ++c)
        along_depth(given + c * count * L, slice, L, out + (c * vectors + v) * slice, step, L,
                    slice / L);
    }
  }
  // A slice of `count` source channels and a block of outputs to frequencies `step` apart.
  void turn_slice(const T* from, Index count, Index b, T* out, Index step) const {
    constexpr Index L = lanes<T>, line = 64 / Index(sizeof(T));
    const Index width = outputs.width(b), frequencies = turn_plane.count();
    for (Index c = 0; c < count; ++c, out += width) {
      // Lines that lie apart, which the processor does not foresee.
      for (Index i = 0; i < width; i += line)
        for (Index f = 0; f < frequencies; ++f)
          __builtin_prefetch(out + 2 * width + f * step + i, 1);
      for (Index v = 0; v < width; v += L, from += taps() * L)
        turn_plane(from, w.kernel[2] * L, L, out + v, step);
    }
  }
  // Likewise, of the weights as they are given.
  void ask_for(Index c0, Index b) const {
    if (!to_coarse || c0 + lanes < T >> inputs.channels) return;
    const Index first = outputs.first(b), live = outputs.live(b);
    for (Index k = 0; k < w.taps(); ++k)
      for (Index c = 0; c < lanes<T>; ++c)
        for (Index o = 0; o < live; o += 64 / Index(sizeof(T)))
          __builtin_prefetch(weight + (k * w.fine.channels + c0 + c) * w.coarse.channels + first +
                             o);
  }

 private:
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

// All weights of a convolution in tiles of m, as they are turned at once.
template <class T>
struct TiledWeights {
  const Window& w;
  bool to_coarse;
  ChannelBlocks<T> inputs, outputs;
  Index m[3], frequencies, plane;  // numbers of a frequency

  TiledWeights(const Window& window, bool coarse, const Index (&size)[3])
      : w(window),
        to_coarse(coarse),
        inputs(coarse ? w.fine.channels : w.coarse.channels, true),
        outputs(coarse ? w.coarse.channels : w.fine.channels),
        m{size[0], size[1], size[2]},
        frequencies(reach_of(m[0]) * reach_of(m[1]) * reach_of(m[2])),
        plane(inputs.padded * outputs.padded + 16) {}
  Index numbers() const { return frequencies * plane; }
  TurnWeights<T> turning(const T* weight, T* to) const {
    return {w,
            to_coarse,
            inputs,
            outputs,
            reach_of(m[0]),
            lines_of<T, Turn::weights>(m[0]),
            TurnPlane<T, Turn::weights>(m),
            weight,
            plane,
            to};
  }
  void turn(const T* weight, T* to) const {
    const TurnWeights<T> turns = turning(weight, to);
    parallel_for(turns.tasks(), 1, turns);
  }
};

}  // namespace segmed::SEGMED_SET
