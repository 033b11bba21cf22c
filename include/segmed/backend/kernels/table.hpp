// SPDX-License-Identifier: Apache-2.0
// One instruction set's entries of the kernel table. Read once per instruction set: see simd.hpp.
#include <segmed/backend/kernels/rows.hpp>

namespace segmed::SEGMED_SET {

// Which algorithm a convolution of one target grid takes, and which tiles: by shape, mode and
// instruction set alone.
template <class T>
struct Choice {
  bool minimal = false;  // by frequencies, in tiles of m
  Index m[3] = {1, 1, 1};

  Choice(const Window& w, const Grid& target, Index inputs, Index outputs) {
    const ConvolutionMode mode = convolution_mode();
    if (mode == ConvolutionMode::direct || w.groups != 1 || w.taps() == 1) return;
    for (int a = 0; a < 3; ++a)
      if (w.stride[a] != 1 || w.dilation[a] != 1 || (w.kernel[a] != 1 && w.kernel[a] != 3)) return;
    const double in = double(pieces(inputs, lanes<T>)), out = double(pieces(outputs, lanes<T>));
    double best = 1.1 * double(target.rows() * w.taps() * inputs) * out;
    for (int fours = 0; fours < (mode == ConvolutionMode::precise ? 1 : 8); ++fours) {
      Index side[3];
      for (int a = 0; a < 3; ++a) side[a] = w.kernel[a] == 1 ? 1 : (fours >> a) % 2 ? 4 : 2;
      const double found = cost(side, target, double(inputs), in, out);
      if (found >= best) continue;
      best = found, minimal = true;
      std::copy(side, side + 3, m);
    }
  }

 private:
  // In products of vectors; the weights of what is not a product are measured.
  static double cost(const Index (&side)[3], const Grid& grid, double inputs, double in,
                     double out) {
    const Index tiles = grid.cases * pieces(grid.depth, side[0]) * pieces(grid.height, side[1]) *
                        pieces(grid.width, side[2]);
    const double frequencies = double(reach_of(side[0]) * reach_of(side[1]) * reach_of(side[2]));
    const double all = double(std::max(tiles, block_rows<2>));
    return frequencies *
           (1.2 * all * inputs * out + 12 * double(tiles) * (in + out) + 14 * inputs * out);
  }
};

template <class T>
void convolve(const Window& w, bool to_coarse, const Feed<T>& feed, const T* weight,
              const Sink<T>& sink) {
  const Grid &source = to_coarse ? w.fine : w.coarse, &target = to_coarse ? w.coarse : w.fine;
  if (target.size() == 0) return;
  if constexpr (sizeof(T) == 4) {
    const Choice<T> choice(w, target, source.channels, target.channels);
    if (choice.minimal) return convolve_tiles(w, to_coarse, feed, weight, sink, choice.m);
  }
  convolve_plainly(w, to_coarse, feed, weight, sink);
}
template <class T>
void gather(const Window& w, const Feed<T>& feed, const T* weight, const Sink<T>& sink) {
  convolve(w, true, feed, weight, sink);
}
template <class T>
void scatter(const Window& w, const Feed<T>& feed, const T* weight, const Sink<T>& sink) {
  convolve(w, false, feed, weight, sink);
}
template <class T>
void weigh(const Window& w, const Feed<T>& fine, const Feed<T>& coarse, T* weight_grad) {
  if (w.coarse.size() == 0 || w.taps() == 0) return;
  if constexpr (sizeof(T) == 4) {
    const Choice<T> choice(w, w.coarse, w.fine.channels, w.coarse.channels);
    if (choice.minimal) return weigh_tiles(w, fine, coarse, weight_grad, choice.m);
  }
  weigh_plainly(w, fine, coarse, weight_grad);
}

template <class T>
inline constexpr Kernels<T> entries{gather<T>, scatter<T>, weigh<T>, apply<T>,
                                    spread<T>, deposit<T>, total<T>, moments<T>};
inline constexpr KernelTable table{set_name, entries<float>, entries<double>};

}  // namespace segmed::SEGMED_SET
