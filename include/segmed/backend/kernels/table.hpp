// SPDX-License-Identifier: Apache-2.0
// One instruction set's kernels as they are enlisted. Read once per instruction set: see simd.hpp.
#include <segmed/backend/kernels/columns.hpp>

namespace segmed::SEGMED_SET {

// Which algorithm a convolution takes, and which tiles: by the shape of one case, mode and
// instruction set alone, so that neither threads nor the other cases of a batch change a result.
template <class T>
struct Choice {
  bool minimal = false;  // by frequencies, in tiles of m
  Index m[3] = {1, 1, 1};
  bool precise = false;
  Index tiles = 0;  // of a case

  Choice(const Window& w, const Grid& target, Index inputs, Index outputs) {
    const ConvolutionMode mode = convolution_mode();
    if (mode == ConvolutionMode::direct || w.groups != 1 || w.taps() == 1) return;
    for (int a = 0; a < 3; ++a)
      if (w.stride[a] != 1 || w.dilation[a] != 1 || (w.kernel[a] != 1 && w.kernel[a] != 3)) return;
    precise = mode == ConvolutionMode::precise;
    const ChannelBlocks<T> in(inputs, true), out(outputs);
    const double vectors = double(out.padded / lanes<T>);
    double best = 1.1 * double(target.voxels() * w.taps() * inputs) * vectors;
    // Of equal tiles those come first that are short along depth: their gradients take less room.
    for (int fours = 0; fours < (precise ? 1 : 8); ++fours) {
      Index side[3];
      for (int a = 0; a < 3; ++a) side[a] = w.kernel[a] == 1 ? 1 : (fours >> (2 - a)) % 2 ? 4 : 2;
      const double found = cost(side, target, in, vectors);
      if (found >= best) continue;
      best = found, minimal = true;
      std::copy(side, side + 3, m), tiles = tiles_of(side, target);
    }
  }

 private:
  static constexpr double most_bytes = 64 << 20;  // of the weights' frequencies

  static Index tiles_of(const Index (&side)[3], const Grid& grid) {
    return pieces(grid.depth, side[0]) * pieces(grid.height, side[1]) * pieces(grid.width, side[2]);
  }
  // In products of vectors; the weights of what is not a product are measured.
  static double cost(const Index (&side)[3], const Grid& grid, const ChannelBlocks<T>& in,
                     double out) {
    const Index tiles = tiles_of(side, grid);
    const double frequencies = double(reach_of(side[0]) * reach_of(side[1]) * reach_of(side[2]));
    const double inputs = double(in.count == 1 ? in.channels : in.padded);
    const double products = inputs * out, turns = double(in.padded / lanes<T>) + out;
    if (frequencies * products * vector_bytes > most_bytes) return 1e300;
    return frequencies * (1.2 * double(std::max(tiles, block_rows<2>)) * products +
                          12 * double(tiles) * turns + 14 * products);
  }
};

template <class T>
void convolve(const Window& w, bool to_coarse, const Feed<T>& feed, const WeightFeed<T>& weight,
              const Sink<T>& sink) {
  const Grid &source = to_coarse ? w.fine : w.coarse, &target = to_coarse ? w.coarse : w.fine;
  if (target.size() == 0) return;
  if (is_depthwise(w)) return convolve_depthwise(w, to_coarse, feed, weight.given, sink);
  if constexpr (sizeof(T) == 4) {
    const Choice<T> choice(w, target, source.channels, target.channels);
    if (choice.minimal) return convolve_tiles(w, to_coarse, feed, weight, sink, choice.m);
  }
  if constexpr (sizeof(T) == 4 && vector_bytes > 16)
    if (is_projection<T>(w)) return convolve_projection(w, to_coarse, feed, weight.given, sink);
  convolve_plainly(w, to_coarse, feed, weight.given, sink);
}
template <class T>
void gather(const Window& w, const Feed<T>& feed, const WeightFeed<T>& weight,
            const Sink<T>& sink) {
  convolve(w, true, feed, weight, sink);
}
template <class T>
void scatter(const Window& w, const Feed<T>& feed, const WeightFeed<T>& weight,
             const Sink<T>& sink) {
  convolve(w, false, feed, weight, sink);
}
// To turn weights into frequencies costs as much as the products of a dozen tiles.
inline constexpr Index most_tiles_of_a_form = 100;
template <class T>
WeightForm form(const Window& w, bool to_coarse) {
  WeightForm form;
  if constexpr (sizeof(T) == 4) {
    const Grid &source = to_coarse ? w.fine : w.coarse, &target = to_coarse ? w.coarse : w.fine;
    const Choice<T> choice(w, target, source.channels, target.channels);
    if (choice.minimal && choice.tiles * target.cases <= most_tiles_of_a_form) {
      std::copy(choice.m, choice.m + 3, form.tile);
      form.numbers = TiledWeights<T>(w, to_coarse, choice.m).numbers();
    }
  }
  return form;
}
template <class T>
void make_form(const Window& w, bool to_coarse, const T* weight, const WeightForm& form,
               T* numbers) {
  if constexpr (sizeof(T) == 4)
    if (form.numbers > 0) TiledWeights<T>(w, to_coarse, form.tile).turn(weight, numbers);
}
template <class T>
void weigh(const Window& w, const Feed<T>& fine, const Feed<T>& coarse, T* weight_grad) {
  if (w.coarse.size() == 0 || w.taps() == 0) return;
  if (is_depthwise(w)) return weigh_depthwise(w, fine, coarse, weight_grad);
  if constexpr (sizeof(T) == 4) {
    const Choice<T> choice(w, w.coarse, w.fine.channels, w.coarse.channels);
    if (choice.minimal) return weigh_tiles(w, fine, coarse, weight_grad, choice.m, choice.precise);
  }
  if constexpr (sizeof(T) == 4 && vector_bytes > 16)
    if (is_projection<T>(w)) return weigh_projection(w, fine, coarse, weight_grad);
  weigh_plainly(w, fine, coarse, weight_grad);
}

template <class T>
inline constexpr Kernels<T> entries{set_name,   vector_bytes,  narrower<T>, gather<T>,
                                    scatter<T>, weigh<T>,      form<T>,     make_form<T>,
                                    apply<T>,   spread<T>,     deposit<T>,  total<T>,
                                    moments<T>, to_columns<T>, to_rows<T>,  put_past<T>};

}  // namespace segmed::SEGMED_SET
