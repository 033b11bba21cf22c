// SPDX-License-Identifier: Apache-2.0
// Ops that move voxels: upsampling, flips, quarter turns, crops and padding.
#pragma once
#include <algorithm>
#include <vector>

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

/// What an output position of one axis reads.
struct StretchTap {
  Index first, second;
  double weight;  // of the second
};
/// An output position that reads an input position, and with which weight.
struct StretchReader {
  Index at;
  double weight;
};
/// How one axis is stretched, both ways round: nearest, or linear between pixel centres with the
/// edge repeated (PyTorch's align_corners = False).
template <Device D>
class AxisStretch {
 public:
  struct View {
    const StretchTap* taps;        // of each output position
    const StretchReader* readers;  // of input position i those from begin[i] to begin[i + 1],
    const Index* begin;            // in the order of the output
  };
  AxisStretch(Index in, Index out, bool linear) {
    std::vector<StretchTap> taps;
    std::vector<std::vector<StretchReader>> readers(static_cast<std::size_t>(in));
    for (Index o = 0; o < out; ++o) {
      const StretchTap tap =
          linear ? between(o, in, out) : StretchTap{o * in / out, o * in / out, 0};
      taps.push_back(tap);
      const bool one = tap.first == tap.second;
      readers[std::size_t(tap.first)].push_back({o, one ? 1 : 1 - tap.weight});
      if (!one && tap.weight > 0) readers[std::size_t(tap.second)].push_back({o, tap.weight});
    }
    std::vector<Index> begin{0};
    std::vector<StretchReader> all;
    for (const auto& list : readers) {
      all.insert(all.end(), list.begin(), list.end());
      begin.push_back(Index(all.size()));
    }
    taps_ = Storage<StretchTap, D>(taps);
    readers_ = Storage<StretchReader, D>(all);
    begin_ = Storage<Index, D>(begin);
  }
  View view() const { return {taps_.read(), readers_.read(), begin_.read()}; }

 private:
  static StretchTap between(Index o, Index in, Index out) {
    const double at = std::max(0.0, (double(o) + 0.5) * double(in) / double(out) - 0.5);
    const Index first = Index(at);
    return {first, std::min(first + 1, in - 1), at - double(first)};
  }
  Storage<StretchTap, D> taps_;
  Storage<StretchReader, D> readers_;
  Storage<Index, D> begin_;
};

/// Output voxels from input voxels.
template <class T, Device D>
struct StretchKernel {
  using Axis = typename AxisStretch<D>::View;
  Grid in, out;
  bool linear;
  Axis z, y, x;
  const T* from;
  T* to;
  SEGMED_HD void operator()(Index row, Index c) const { columns<1>(row, c); }
  template <int n>
  SEGMED_HD void columns(Index row, Index c) const {
    using W = Wide<T>;
    const Index v = row % out.voxels(), w = v % out.width, dh = v / out.width;
    const StretchTap tz = z.taps[dh / out.height], ty = y.taps[dh % out.height], tx = x.taps[w];
    const T* const base = from + row / out.voxels() * in.voxels() * in.channels + c;
    const auto at = [&](Index d, Index h, Index i) {
      return base + ((d * in.height + h) * in.width + i) * in.channels;
    };
    T* const put = to + row * out.channels + c;
    if (!linear) {
      const T* const one = at(tz.first, ty.first, tx.first);
      for (int k = 0; k < n; ++k) put[k] = one[k];
      return;
    }
    W sum[n];
    for (int k = 0; k < n; ++k) sum[k] = 0;
    for (int d = 0; d < 2; ++d)
      for (int h = 0; h < 2; ++h) {
        const Index dz = d ? tz.second : tz.first, dy = h ? ty.second : ty.first;
        const T *const left = at(dz, dy, tx.first), *const right = at(dz, dy, tx.second);
        const W by = W((d ? tz.weight : 1 - tz.weight) * (h ? ty.weight : 1 - ty.weight));
        const W a = by * W(1 - tx.weight), b = by * W(tx.weight);
        for (int k = 0; k < n; ++k) sum[k] += W(left[k]) * a + W(right[k]) * b;
      }
    for (int k = 0; k < n; ++k) put[k] = T(sum[k]);
  }
};
/// The gradient of input voxels, each from the output voxels that read it.
template <class T, Device D>
struct StretchPull {
  using Axis = typename AxisStretch<D>::View;
  Grid in, out;
  Axis z, y, x;
  const T* g;
  Additions<T> gx;
  SEGMED_HD void operator()(Index row, Index c) const { columns<1>(row, c); }
  template <int n>
  SEGMED_HD void columns(Index row, Index c) const {
    using W = Wide<T>;
    const Index v = row % in.voxels();
    const Index w = v % in.width, h = v / in.width % in.height, d = v / in.width / in.height;
    const T* const base = g + row / in.voxels() * out.voxels() * out.channels + c;
    W total[n];
    for (int k = 0; k < n; ++k) total[k] = 0;
    for (Index i = z.begin[d]; i < z.begin[d + 1]; ++i)
      for (Index j = y.begin[h]; j < y.begin[h + 1]; ++j)
        for (Index l = x.begin[w]; l < x.begin[w + 1]; ++l) {
          const StretchReader rz = z.readers[i], ry = y.readers[j], rx = x.readers[l];
          const W by = W(rz.weight * ry.weight * rx.weight);
          const T* const from =
              base + ((rz.at * out.height + ry.at) * out.width + rx.at) * out.channels;
          for (int k = 0; k < n; ++k) total[k] += by * W(from[k]);
        }
    for (int k = 0; k < n; ++k) gx.add(row * in.channels + c + k, total[k]);
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
  const AxisStretch<D> z(in.depth, out.depth, linear), y(in.height, out.height, linear),
      x(in.width, out.width, linear);
  F result(out, source.tracked());
  D::launch_rows(out.rows(), out.channels,
                 StretchKernel<T, D>{in, out, linear, z.view(), y.view(), x.view(), source.data(),
                                     result.mutable_data()});
  record_dense(result, {}, [=](const T* g) {
    D::launch_rows(
        in.rows(), in.channels,
        StretchPull<T, D>{in, out, z.view(), y.view(), x.view(), g, source.gradient_additions()});
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

}  // namespace segmed
