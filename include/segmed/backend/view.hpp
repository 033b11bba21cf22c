// SPDX-License-Identifier: Apache-2.0
// What kernels are given: grids, and tensors as their readers and writers see them. Plain data with
// three spatial axes; ranks and other template parameters end here.
#pragma once
#include <cmath>
#include <ostream>

#include <segmed/core/config.hpp>

namespace segmed {

/// One element of a feature map: case, voxel, channel.
struct At {
  Index n, v, c;
};

/// Channels last, always three spatial axes: a 2-D map has depth 1.
struct Grid {
  Index cases = 1, depth = 1, height = 1, width = 1, channels = 1;

  SEGMED_HD Index voxels() const { return depth * height * width; }
  SEGMED_HD Index rows() const { return cases * voxels(); }
  SEGMED_HD Index pairs() const { return cases * channels; }
  SEGMED_HD Index size() const { return cases * voxels() * channels; }
  SEGMED_HD Index index(At p) const { return (p.n * voxels() + p.v) * channels + p.c; }
  SEGMED_HD Index pair(At p) const { return p.n * channels + p.c; }
  SEGMED_HD At at(Index row, Index c) const { return {row / voxels(), row % voxels(), c}; }
  SEGMED_HD Grid with_channels(Index c) const { return {cases, depth, height, width, c}; }
  friend bool operator==(const Grid&, const Grid&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Grid& g) {
    return out << '(' << g.cases << ", " << g.depth << ", " << g.height << ", " << g.width << ", "
               << g.channels << ')';
  }
};

/// A dense tensor seen through pending work: leak(scale * x + shift), where leak(z) is z above zero
/// and slope * z elsewhere; scale, shift and slope belong to a (case, channel).
template <class T>
struct Lane {
  using W = Wide<T>;
  Grid grid{0, 0, 0, 0, 0};
  const T* x = nullptr;
  const W *scale = nullptr, *shift = nullptr;  // none: scale 1, shift 0
  const W* slope = nullptr;                    // none: `leak` everywhere
  W leak = 1;

  SEGMED_HD bool plain() const { return !scale && !slope && leak == W(1); }
  SEGMED_HD W raw(At p) const { return W(x[grid.index(p)]); }
  SEGMED_HD W before_leak(At p) const {
    // An explicit fma: fused and materialised reading give the same bits on every target.
    return scale ? std::fma(scale[grid.pair(p)], raw(p), shift[grid.pair(p)]) : raw(p);
  }
  SEGMED_HD W slope_at(At p) const { return slope ? slope[grid.pair(p)] : leak; }
  SEGMED_HD W operator()(At p) const {
    const W z = before_leak(p);
    return z > W(0) ? z : slope_at(p) * z;
  }
  /// A gradient of what readers see, carried through the leak, and through the scale as well.
  SEGMED_HD W through_leak(At p, W g) const { return before_leak(p) > W(0) ? g : slope_at(p) * g; }
  SEGMED_HD W through(At p, W g) const {
    return scale ? through_leak(p, g) * scale[grid.pair(p)] : through_leak(p, g);
  }
};

/// One or two tensors side by side in the channels: a concatenation that was never written down.
template <class T>
struct Reader {
  Lane<T> lane[2];

  SEGMED_HD Index channels() const { return lane[0].grid.channels + lane[1].grid.channels; }
  SEGMED_HD Wide<T> operator()(At p) const {
    const Index first = lane[0].grid.channels;
    return p.c < first ? lane[0](p) : lane[1]({p.n, p.v, p.c - first});
  }
};

/// The gradient that reaches the producer of a tensor, summed on load: a dense gradient, that of
/// one view (not yet carried through the view), and that of the moments.
template <class T>
struct Incoming {
  Lane<T> view;  // always has the tensor itself as x
  const T *direct = nullptr, *seen = nullptr;
  const double* moments = nullptr;  // (cases, channels, 2)

  SEGMED_HD Wide<T> operator()(At p) const {
    using W = Wide<T>;
    const Index i = view.grid.index(p);
    W g = direct ? W(direct[i]) : W(0);
    // Explicitly an fma, as every product that is added to something.
    if (seen) {
      const W leaked = view.through_leak(p, W(seen[i]));
      g = view.scale ? std::fma(leaked, view.scale[view.grid.pair(p)], g) : g + leaked;
    }
    if (!moments) return g;
    const Index m = 2 * view.grid.pair(p);
    return g + std::fma(W(2) * W(moments[m + 1]), view.raw(p), W(moments[m]));
  }
};

/// What a convolution reads: values, or the gradient that comes in.
template <class T>
struct Feed {
  Reader<T> values;
  Incoming<T> gradient;
  bool is_gradient = false;

  SEGMED_HD Wide<T> operator()(At p) const { return is_gradient ? gradient(p) : values(p); }
};

/// Where a convolution writes: into a tensor (then with bias and moments), or to the gradients of
/// one or two sources, on top of what is there or as their start. A part without a pointer is not
/// wanted.
template <class T>
struct Sink {
  using W = Wide<T>;
  T* out[2] = {nullptr, nullptr};
  Grid grid[2] = {{0, 0, 0, 0, 0}, {0, 0, 0, 0, 0}};
  bool add[2] = {false, false};  // += instead of =
  const W* bias = nullptr;       // (channels)
  double* moments = nullptr;     // (cases, channels, 2): sum and sum of squares of what was stored

  SEGMED_HD Index channels() const { return grid[0].channels + grid[1].channels; }
  SEGMED_HD void operator()(At p, W value) const {
    const int part = p.c < grid[0].channels ? 0 : 1;
    if (!out[part]) return;
    T& place = out[part][grid[part].index({p.n, p.v, part ? p.c - grid[0].channels : p.c})];
    place = T(add[part] ? W(place) + value : value);
  }
};

/// What a convolution does to a grid. Weights are (taps, fine channels / groups, coarse channels):
/// the fine grid is what a convolution reads and what a transposed convolution writes.
struct Window {
  Grid fine, coarse;
  Index kernel[3] = {1, 1, 1}, stride[3] = {1, 1, 1};  // depth, height, width
  Index padding[3] = {0, 0, 0}, dilation[3] = {1, 1, 1};
  Index groups = 1;

  SEGMED_HD Index taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  SEGMED_HD Index weights() const { return taps() * fine.channels / groups * coarse.channels; }
  /// The fine voxel under tap k of coarse voxel v, or -1 outside.
  SEGMED_HD Index fine_voxel(Index v, Index k) const {
    const Index z = v / coarse.width / coarse.height * stride[0] - padding[0] +
                    k / kernel[2] / kernel[1] * dilation[0];
    const Index y = v / coarse.width % coarse.height * stride[1] - padding[1] +
                    k / kernel[2] % kernel[1] * dilation[1];
    const Index x = v % coarse.width * stride[2] - padding[2] + k % kernel[2] * dilation[2];
    const bool inside =
        z >= 0 && z < fine.depth && y >= 0 && y < fine.height && x >= 0 && x < fine.width;
    return inside ? (z * fine.height + y) * fine.width + x : -1;
  }
  /// The coarse voxel whose tap k lies on fine voxel u, or -1 if there is none.
  SEGMED_HD Index coarse_voxel(Index u, Index k) const {
    const Index at[3] = {u / fine.width / fine.height, u / fine.width % fine.height,
                         u % fine.width};
    const Index tap[3] = {k / kernel[2] / kernel[1], k / kernel[2] % kernel[1], k % kernel[2]};
    const Index extent[3] = {coarse.depth, coarse.height, coarse.width};
    Index v = 0;
    for (int a = 0; a < 3; ++a) {
      const Index from = at[a] + padding[a] - tap[a] * dilation[a];
      if (from < 0 || from % stride[a] != 0 || from / stride[a] >= extent[a]) return -1;
      v = v * extent[a] + from / stride[a];
    }
    return v;
  }
};

}  // namespace segmed
