// SPDX-License-Identifier: Apache-2.0
// Ops that move voxels: flips, quarter turns, crops and padding.
#pragma once
#include <segmed/autograd/features.hpp>

namespace segmed {

/// An axis-aligned rearrangement: output voxel (z, y, x) comes from one input voxel, or from none.
struct Rearrange {
  Grid in, out;
  Index offset[3] = {0, 0, 0};  // of the input voxel under output voxel 0, per input axis
  Index axis[3] = {0, 1, 2};    // the output axis along which input axis a runs
  Index step[3] = {1, 1, 1};    // 1 or -1

  /// The input voxel, or -1 outside.
  SEGMED_HD Index operator()(Index v) const {
    const Index at[3] = {v / out.width / out.height, v / out.width % out.height, v % out.width};
    const Index extent[3] = {in.depth, in.height, in.width};
    Index from = 0;
    for (int a = 0; a < 3; ++a) {
      const Index i = offset[a] + step[a] * at[axis[a]];
      if (i < 0 || i >= extent[a]) return -1;
      from = from * extent[a] + i;
    }
    return from;
  }
};
template <class T>
struct RearrangeKernel {
  Rearrange r;
  const T* x;
  T fill;
  T* y;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index n = row / r.out.voxels(), from = r(row % r.out.voxels());
    y[row * r.out.channels + c] =
        from < 0 ? fill : x[(n * r.in.voxels() + from) * r.in.channels + c];
  }
};
template <class T>
struct RearrangePull {  // no two output voxels come from one input voxel
  Rearrange r;
  const T* g;
  T* gx;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index n = row / r.out.voxels(), from = r(row % r.out.voxels());
    if (from < 0) return;
    T& to = gx[(n * r.in.voxels() + from) * r.in.channels + c];
    to = T(Wide<T>(to) + Wide<T>(g[row * r.out.channels + c]));
  }
};
template <FeatureMap F>
F rearranged(const F& input, Rearrange r, double fill = 0) {
  using T = typename F::value_type;
  using D = typename F::device;
  const F x = value(input);
  F y(r.out, x.tracked());
  D::launch_rows(r.out.rows(), r.out.channels,
                 RearrangeKernel<T>{r, x.data(), T(typename F::Wide(fill)), y.mutable_data()});
  forget(input, x);
  record_dense(y, {}, [=](const T* g) {
    D::launch_rows(r.out.rows(), r.out.channels, RearrangePull<T>{r, g, x.gradient_to_add()});
  });
  return y;
}

/// Spatial axis `a` of an F as one of the three axes of a grid.
template <FeatureMap F>
std::size_t grid_axis(std::size_t a, const char* who) {
  require(a < F::dim, who, "axis ", a, " of an image with ", F::dim, " axes");
  return a + 3 - F::dim;
}

/// Voxels from `begin`, `extent` many on each axis; where that reaches outside, `fill`. So a
/// negative begin pads.
template <FeatureMap F>
F window(const F& x, const std::array<Index, F::dim>& begin,
         const std::array<Index, F::dim>& extent, double fill = 0) {
  Rearrange r;
  r.in = r.out = x.grid();
  Index* const out[3] = {&r.out.depth, &r.out.height, &r.out.width};
  for (std::size_t a = 0; a < F::dim; ++a) {
    require(extent[a] > 0, "window", "extent ", extent[a], " on axis ", a);
    r.offset[a + 3 - F::dim] = begin[a];
    *out[a + 3 - F::dim] = extent[a];
  }
  return rearranged(x, r, fill);
}
/// Leaves out `low` and `high` voxels on each axis.
template <FeatureMap F>
F crop(const F& x, const std::array<Index, F::dim>& low, const std::array<Index, F::dim>& high) {
  const Grid g = x.grid();
  const Index extents[3] = {g.depth, g.height, g.width};
  std::array<Index, F::dim> extent;
  for (std::size_t a = 0; a < F::dim; ++a) {
    extent[a] = extents[a + 3 - F::dim] - low[a] - high[a];
    require(low[a] >= 0 && high[a] >= 0 && extent[a] > 0, "crop", "taking ", low[a], " and ",
            high[a], " voxels off axis ", a, " of ", g);
  }
  return window(x, low, extent);
}
/// Adds `low` and `high` voxels of `fill` on each axis.
template <FeatureMap F>
F pad(const F& x, const std::array<Index, F::dim>& low, const std::array<Index, F::dim>& high,
      double fill = 0) {
  const Grid g = x.grid();
  const Index extents[3] = {g.depth, g.height, g.width};
  std::array<Index, F::dim> begin, extent;
  for (std::size_t a = 0; a < F::dim; ++a) {
    require(low[a] >= 0 && high[a] >= 0, "pad", "adding ", low[a], " and ", high[a],
            " voxels on axis ", a);
    begin[a] = -low[a];
    extent[a] = extents[a + 3 - F::dim] + low[a] + high[a];
  }
  return window(x, begin, extent, fill);
}
template <class T>
struct ChannelRangeKernel {
  const T* x;
  Index first, from, count;  // of `from` channels
  T* y;
  SEGMED_HD void operator()(Index row, Index c) const {
    y[row * count + c] = x[row * from + first + c];
  }
};
template <class T>
struct ChannelRangePull {
  const T* g;
  Index first, from, count;
  T* gx;
  SEGMED_HD void operator()(Index row, Index c) const {
    T& to = gx[row * from + first + c];
    to = T(Wide<T>(to) + Wide<T>(g[row * count + c]));
  }
};
/// `count` channels from `first` on.
template <FeatureMap F>
F channel_range(const F& input, Index first, Index count) {
  using T = typename F::value_type;
  using D = typename F::device;
  const F x = value(input);
  const Grid grid = x.grid();
  require(first >= 0 && count > 0 && first + count <= grid.channels, "channel_range", "channels ",
          first, " to ", first + count - 1, " of ", grid);
  F y(grid.with_channels(count), x.tracked());
  D::launch_rows(grid.rows(), count,
                 ChannelRangeKernel<T>{x.data(), first, grid.channels, count, y.mutable_data()});
  forget(input, x);
  record_dense(y, {}, [=](const T* g) {
    D::launch_rows(grid.rows(), count,
                   ChannelRangePull<T>{g, first, grid.channels, count, x.gradient_to_add()});
  });
  return y;
}
/// Mirrors one spatial axis.
template <FeatureMap F>
F flip(const F& x, std::size_t axis) {
  Rearrange r;
  r.in = r.out = x.grid();
  const std::size_t a = grid_axis<F>(axis, "flip");
  const Index extents[3] = {r.in.depth, r.in.height, r.in.width};
  r.offset[a] = extents[a] - 1;
  r.step[a] = -1;
  return rearranged(x, r);
}
/// Quarter turns from the first axis towards the second, as numpy.rot90 counts them.
template <FeatureMap F>
F rot90(const F& x, int turns, std::size_t first, std::size_t second) {
  const std::size_t a = grid_axis<F>(first, "rot90"), b = grid_axis<F>(second, "rot90");
  require(a != b, "rot90", "axis ", first, " twice");
  turns = (turns % 4 + 4) % 4;
  if (turns == 0) return x;
  if (turns == 2) return flip(flip(x, first), second);
  Rearrange r;
  r.in = r.out = x.grid();
  Index* const out[3] = {&r.out.depth, &r.out.height, &r.out.width};
  const Index extents[3] = {r.in.depth, r.in.height, r.in.width};
  *out[a] = extents[b], *out[b] = extents[a];
  r.axis[a] = Index(b), r.axis[b] = Index(a);
  const std::size_t turned = turns == 1 ? b : a;
  r.offset[turned] = extents[turned] - 1;
  r.step[turned] = -1;
  return rearranged(x, r);
}

}  // namespace segmed
