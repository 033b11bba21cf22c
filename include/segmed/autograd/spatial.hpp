// SPDX-License-Identifier: Apache-2.0
// Ops that move voxels: upsampling, pooling, flips, quarter turns, crops and padding.
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

/// The weights with which an output position of one axis reads input positions: nearest, or linear
/// between pixel centres with the edge repeated (PyTorch's align_corners = False).
struct AxisStretch {
  Index in, out;
  bool linear;

  struct Tap {
    Index first, second;
    double weight;  // of the second
  };
  SEGMED_HD Tap operator()(Index o) const {
    if (!linear) return {o * in / out, o * in / out, 0.0};
    double at = (double(o) + 0.5) * double(in) / double(out) - 0.5;
    if (at < 0) at = 0;
    const Index first = Index(at);
    return {first, first + 1 < in ? first + 1 : first, at - double(first)};
  }
  SEGMED_HD double weight(Index o, Index i) const {
    const Tap t = (*this)(o);
    return (t.first == i ? 1 - t.weight : 0) + (t.second == i ? t.weight : 0);
  }
  /// The output positions that may read input position i: from first_reader(i) to last_reader(i).
  SEGMED_HD Index first_reader(Index i) const {
    const Index o = Index((double(i) - 1) * double(out) / double(in)) - 1;
    return o < 0 || i == 0 ? 0 : o;
  }
  SEGMED_HD Index last_reader(Index i) const {
    const Index o = Index((double(i) + 2) * double(out) / double(in)) + 1;
    return o < out && i + 1 < in ? o : out - 1;
  }
};
template <class T>
struct StretchKernel {
  Grid in, out;
  AxisStretch z, y, x;
  const T* from;
  T* to;
  SEGMED_HD void operator()(Index row, Index c) const {
    using W = Wide<T>;
    const Index v = row % out.voxels();
    const T* base = from + row / out.voxels() * in.voxels() * in.channels + c;
    const AxisStretch::Tap tz = z(v / out.width / out.height), ty = y(v / out.width % out.height),
                           tx = x(v % out.width);
    const auto at = [&](Index d, Index h, Index w) {
      return W(base[((d * in.height + h) * in.width + w) * in.channels]);
    };
    if (!x.linear) {
      to[row * out.channels + c] = T(at(tz.first, ty.first, tx.first));
      return;
    }
    const auto along_x = [&](Index d, Index h) {
      return at(d, h, tx.first) * W(1 - tx.weight) + at(d, h, tx.second) * W(tx.weight);
    };
    const auto along_y = [&](Index d) {
      return along_x(d, ty.first) * W(1 - ty.weight) + along_x(d, ty.second) * W(ty.weight);
    };
    to[row * out.channels + c] =
        T(along_y(tz.first) * W(1 - tz.weight) + along_y(tz.second) * W(tz.weight));
  }
};
template <class T>
struct StretchPull {  // one item per (input row, channel)
  Grid in, out;
  AxisStretch z, y, x;
  const T* g;
  T* gx;
  SEGMED_HD void operator()(Index row, Index c) const {
    using W = Wide<T>;
    const Index v = row % in.voxels();
    const Index d = v / in.width / in.height, h = v / in.width % in.height, w = v % in.width;
    const T* base = g + row / in.voxels() * out.voxels() * out.channels + c;
    W total = 0;
    for (Index oz = z.first_reader(d); oz <= z.last_reader(d); ++oz) {
      const double wz = z.weight(oz, d);
      for (Index oy = y.first_reader(h); wz != 0 && oy <= y.last_reader(h); ++oy) {
        const double wy = wz * y.weight(oy, h);
        for (Index ox = x.first_reader(w); wy != 0 && ox <= x.last_reader(w); ++ox)
          total += W(wy * x.weight(ox, w)) *
                   W(base[((oz * out.height + oy) * out.width + ox) * out.channels]);
      }
    }
    T& to = gx[row * in.channels + c];
    to = T(W(to) + total);
  }
};

/// Resamples a map onto another number of voxels.
template <FeatureMap F>
F stretch(const F& input, const std::array<Index, F::dim>& extent, Interpolation how) {
  using T = typename F::value_type;
  using D = typename F::device;
  const F source = value(input);
  const Grid in = source.grid();
  Grid out = in;
  Index* const to[3] = {&out.depth, &out.height, &out.width};
  for (std::size_t a = 0; a < F::dim; ++a) {
    require(extent[a] > 0, "stretch", "extent ", extent[a], " on axis ", a);
    *to[a + 3 - F::dim] = extent[a];
  }
  const bool linear = how == Interpolation::linear;
  const AxisStretch z{in.depth, out.depth, linear}, y{in.height, out.height, linear},
      x{in.width, out.width, linear};
  F result(out, source.tracked());
  D::launch_rows(out.rows(), out.channels,
                 StretchKernel<T>{in, out, z, y, x, source.data(), result.mutable_data()});
  record_dense(result, {}, [=](const T* g) {
    D::launch_rows(in.rows(), in.channels,
                   StretchPull<T>{in, out, z, y, x, g, source.gradient_to_add()});
  });
  return result;
}
/// Stretches every axis by its factor.
template <FeatureMap F>
F upsample(const F& x, const std::array<Index, F::dim>& factor, Interpolation how) {
  const Grid g = x.grid();
  const Index extents[3] = {g.depth, g.height, g.width};
  std::array<Index, F::dim> extent;
  for (std::size_t a = 0; a < F::dim; ++a) extent[a] = extents[a + 3 - F::dim] * factor[a];
  return stretch(x, extent, how);
}

template <class T>
struct PoolKernel {
  Window w;
  const T* x;
  T* y;
  std::uint8_t* winner;  // which tap
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index n = row / w.coarse.voxels(), v = row % w.coarse.voxels();
    const Index i = row * w.coarse.channels + c;
    bool any = false;
    for (Index k = 0; k < w.taps(); ++k) {
      const Index u = w.fine_voxel(v, k);
      if (u < 0) continue;
      const T value = x[(n * w.fine.voxels() + u) * w.fine.channels + c];
      // As in PyTorch: the first of equals wins, and a NaN wins over all.
      if (any && !(Wide<T>(value) > Wide<T>(y[i])) && Wide<T>(value) == Wide<T>(value)) continue;
      y[i] = value, winner[i] = std::uint8_t(k), any = true;
    }
  }
};
template <class T>
struct PoolPull {  // one item per (input row, channel), because windows may overlap
  Window w;
  const T* g;
  const std::uint8_t* winner;
  T* gx;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index n = row / w.fine.voxels(), u = row % w.fine.voxels();
    Wide<T> total = 0;
    for (Index k = 0; k < w.taps(); ++k)
      if (const Index v = w.coarse_voxel(u, k); v >= 0) {
        const Index i = (n * w.coarse.voxels() + v) * w.coarse.channels + c;
        if (winner[i] == k) total += Wide<T>(g[i]);
      }
    T& to = gx[row * w.fine.channels + c];
    to = T(Wide<T>(to) + total);
  }
};
/// The largest value under a window of `kernel` voxels that moves by `stride`.
template <FeatureMap F>
F max_pool(const F& input, const std::array<Index, F::dim>& kernel,
           const std::array<Index, F::dim>& stride) {
  using T = typename F::value_type;
  using D = typename F::device;
  const F x = value(input);
  Window w;
  w.fine = w.coarse = x.grid();
  Index* const to[3] = {&w.coarse.depth, &w.coarse.height, &w.coarse.width};
  for (std::size_t a = 0; a < F::dim; ++a) {
    const std::size_t axis = a + 3 - F::dim;
    w.kernel[axis] = kernel[a], w.stride[axis] = stride[a];
    require(kernel[a] > 0 && stride[a] > 0 && *to[axis] >= kernel[a], "max_pool", "a kernel of ",
            kernel[a], " and stride ", stride[a], " on axis ", a, " of ", w.fine);
    *to[axis] = (*to[axis] - kernel[a]) / stride[a] + 1;
  }
  require(w.taps() <= 255, "max_pool", "a window of ", w.taps(), " voxels; at most 255");
  F y(w.coarse, x.tracked());
  Storage<std::uint8_t, D> winner(w.coarse.size(), Uninitialized{});
  D::launch_rows(w.coarse.rows(), w.coarse.channels,
                 PoolKernel<T>{w, x.data(), y.mutable_data(), winner.write()});
  record_dense(y, {}, [=](const T* g) {
    D::launch_rows(w.fine.rows(), w.fine.channels,
                   PoolPull<T>{w, g, winner.read(), x.gradient_to_add()});
  });
  return y;
}

}  // namespace segmed
