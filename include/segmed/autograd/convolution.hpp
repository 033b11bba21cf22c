// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/features.hpp>
#include <segmed/backend/convolution.hpp>
#include <segmed/tensor/reduce.hpp>

namespace segmed {

/// A kernel's geometry, in the order of the spatial axes (depth, height, width or height, width).
template <std::size_t Dim>
struct ConvGeometry {
  std::array<Index, Dim> kernel, stride, padding, dilation;
  Index groups = 1;

  /// The same number on every axis; `padding` -1 keeps the extent at stride 1.
  static ConvGeometry cubic(Index kernel, Index stride = 1, Index padding = -1, Index dilation = 1,
                            Index groups = 1) {
    ConvGeometry g;
    g.kernel.fill(kernel), g.stride.fill(stride), g.dilation.fill(dilation);
    g.padding.fill(padding >= 0 ? padding : (kernel - 1) * dilation / 2);
    g.groups = groups;
    return g;
  }
  Window window() const {
    Window w;
    for (std::size_t a = 0; a < Dim; ++a) {
      const std::size_t to = a + 3 - Dim;
      w.kernel[to] = kernel[a], w.stride[to] = stride[a];
      w.padding[to] = padding[a], w.dilation[to] = dilation[a];
    }
    w.groups = groups;
    return w;
  }
};

template <class T>
struct ChannelSum {  // one item per row
  Incoming<T> g;
  SEGMED_HD void operator()(Index, Index row, double* sums) const {
    const Grid& grid = g.view.grid;
    for (Index c = 0; c < grid.channels; ++c) sums[c] += double(g(grid.at(row, c)));
  }
};
template <FeatureMap F>
void pull_bias(const Incoming<typename F::value_type>& g,
               ParamState<typename F::Wide, typename F::device>& bias) {
  using D = typename F::device;
  using T = typename F::value_type;
  if constexpr (HasRows<D, T>) {
    D::total(g, bias.grad.write());
  } else {
    const Grid grid = g.view.grid;
    const auto sums = reduce<D>(1, grid.rows(), grid.channels, ChannelSum<T>{g});
    D::launch(grid.channels, AddSums<typename F::Wide>{sums.read(), bias.grad.write()});
  }
}

template <std::size_t Dim>
void check_geometry(const ConvGeometry<Dim>& g, const char* who) {
  for (std::size_t a = 0; a < Dim; ++a)
    require<ConfigError>(
        g.kernel[a] > 0 && g.stride[a] > 0 && g.dilation[a] > 0 && g.padding[a] >= 0, who,
        "kernel ", g.kernel[a], ", stride ", g.stride[a], ", padding ", g.padding[a], ", dilation ",
        g.dilation[a], " on axis ", a);
  require<ConfigError>(g.groups > 0, who, g.groups, " groups");
}

/// An incoming gradient for several readers. Devices whose convolutions read dense tensors would
/// write it down for each of them, so there it is written down once.
template <Device D, class T>
Incoming<T> written_once(const Grid& grid, const Incoming<T>& g, Storage<T, D>& dense) {
  if constexpr (ConvolvesDense<D, T>) {
    if (g.seen || g.moments) {
      dense = Storage<T, D>(grid.size(), Uninitialized{});
      Sink<T> sink;
      sink.out[0] = dense.write(), sink.grid[0] = grid;
      deposit<D>(grid, g, sink);
      Incoming<T> written;
      written.view.grid = grid, written.view.x = g.view.x, written.direct = dense.read();
      return written;
    }
  }
  return g;
}

/// The gradient of what was stored as leak(z), carried through the leak to z: both have one sign.
template <Device D, class T>
Incoming<T> before_leak(const Grid& grid, const Incoming<T>& g, Wide<T> leak,
                        Storage<T, D>& dense) {
  Incoming<T> before;
  before.view.grid = grid, before.view.x = g.view.x, before.view.leak = leak;
  before.seen = g.direct;
  if (g.seen || g.moments) {
    dense = Storage<T, D>(grid.size(), Uninitialized{});
    Sink<T> sink;
    sink.out[0] = dense.write(), sink.grid[0] = grid;
    deposit<D>(grid, g, sink);
    before.seen = dense.read();
  }
  return before;
}

/// Runs a window forward, down to its coarse grid or up to its fine one, and records the other way.
/// Going down, with a leak that is not 1, stores leak(z); an empty map where the device cannot.
template <bool Down, FeatureMap F>
F convolved(const F& x, const typename F::P& weight, const typename F::P& bias, const Window& w,
            typename F::Wide leak = 1) {
  using T = typename F::value_type;
  using D = typename F::device;
  const Grid to = Down ? w.coarse : w.fine;
  const bool weights = weight.trained(), inputs = x.tracked();
  F y(to, weights || inputs);
  Dense<T, D>& raw = y.dense();
  Feed<T> in;
  in.values = x.reader();
  Sink<T> out;
  out.out[0] = raw.value.write(), out.grid[0] = to;
  if (!bias.empty()) {
    out.bias = bias.value().read();
  } else {  // a normalisation is likely to follow; elsewhere it sums the moments itself
    raw.moments = Storage<double, D>(2 * to.pairs());
    out.moments = raw.moments.write();
  }
  const bool activates = Down && leak != 1;
  if (activates && !gather_activated<D, T>(w, in, weight.value().read(), out, leak)) return {};
  const auto run = [&](const auto& numbers) {
    if constexpr (Down)
      gather<D>(w, in, numbers, out);
    else
      scatter<D>(w, in, numbers, out);
  };
  if (weights) {  // which are written soon
    weight.state()->forms.forget();
    if (!activates) run(weight.value().read());
  } else if (!activates) {
    run(weight.state()->lasting());
  }
  Uses uses;
  if (weights) uses.push_back(weight.state());
  if (weights && !bias.empty()) uses.push_back(bias.state());
  record_map(y, uses,
             [=, weight = weight.state(),
              bias = bias.empty() ? nullptr : bias.state()](const Incoming<T>& stored) {
               Storage<T, D> added, dense;
               const Incoming<T> sum = activates ? before_leak<D>(to, stored, leak, added) : stored;
               const Incoming<T> g = weights && inputs ? written_once<D>(to, sum, dense) : sum;
               Feed<T> incoming, values;
               incoming.gradient = g, incoming.is_gradient = true;
               values.values = x.reader();
               if (weights)
                 weigh<D>(w, Down ? values : incoming, Down ? incoming : values,
                          weight->grad.write());
               if (weights && bias) pull_bias<F>(g, *bias);
               if (!inputs) return;
               const auto carry = [&](const auto& numbers) {
                 if constexpr (Down)
                   scatter<D>(w, incoming, numbers, x.gradient_sink());
                 else
                   gather<D>(w, incoming, numbers, x.gradient_sink());
               };
               weights ? carry(weight->value.read()) : carry(weight->lasting());
             });
  return y;
}

/// The window of a convolution, once all that it is given fits.
template <FeatureMap F>
Window conv_window(const F& x, const typename F::P& weight, const typename F::P& bias,
                   const ConvGeometry<F::dim>& geometry) {
  check_geometry(geometry, "conv");
  Window w = geometry.window();
  w.fine = x.grid();
  const auto shrunk = [&](int a, Index extent) {
    const Index reach = (w.kernel[a] - 1) * w.dilation[a] + 1;
    require(extent + 2 * w.padding[a] >= reach, "conv", "input ", w.fine,
            " is smaller than the kernel, which covers ", reach, " voxels");
    return (extent + 2 * w.padding[a] - reach) / w.stride[a] + 1;
  };
  const Index taken = w.taps() * w.fine.channels / w.groups;
  require(w.fine.channels % w.groups == 0 && weight.size() > 0 && weight.size() % taken == 0,
          "conv", "input ", w.fine, " has ", w.fine.channels, " channels in ", w.groups,
          " groups; the weight has ", weight.size(), " numbers, no multiple of ", taken);
  w.coarse = {w.fine.cases, shrunk(0, w.fine.depth), shrunk(1, w.fine.height),
              shrunk(2, w.fine.width), weight.size() / taken};
  require(bias.empty() || bias.size() == w.coarse.channels, "conv", "the weight gives ",
          w.coarse.channels, " channels, the bias has ", bias.size());
  require(w.coarse.channels % w.groups == 0, "conv", w.coarse.channels,
          " output channels do not divide into ", w.groups, " groups");
  return w;
}
/// Convolution with zero padding. Reads sources on load and, without a bias, sums moments on store,
/// so neither a normalisation before nor one after it costs a pass over the voxels.
///
///   shapes   x (N, spatial..., Ci); weight (taps, Ci / groups, Co); bias (Co) or empty
///   throws   ShapeError when channels, groups or weights do not fit
template <FeatureMap F>
F conv(const F& x, const typename F::P& weight, const typename F::P& bias,
       const ConvGeometry<F::dim>& geometry) {
  return convolved<true>(x, weight, bias, conv_window(x, weight, bias, geometry));
}

/// Transposed convolution: the adjoint of `conv` with the same geometry.
///
///   shapes   x (N, spatial..., Ci); weight (taps, Co / groups, Ci); bias (Co) or empty;
///            result extents (extent - 1) * stride - 2 * padding + reach of the kernel
template <FeatureMap F>
F transposed_conv(const F& x, const typename F::P& weight, const typename F::P& bias,
                  const ConvGeometry<F::dim>& geometry) {
  check_geometry(geometry, "transposed_conv");
  Window w = geometry.window();
  w.coarse = x.grid();
  const auto grown = [&](int a, Index extent) {
    return (extent - 1) * w.stride[a] - 2 * w.padding[a] + (w.kernel[a] - 1) * w.dilation[a] + 1;
  };
  const Index taken = w.taps() * w.coarse.channels;
  require(w.coarse.channels % w.groups == 0 && weight.size() > 0 && weight.size() % taken == 0,
          "transposed_conv", "input ", w.coarse, " has ", w.coarse.channels, " channels in ",
          w.groups, " groups; the weight has ", weight.size(), " numbers, no multiple of ", taken);
  w.fine = {w.coarse.cases, grown(0, w.coarse.depth), grown(1, w.coarse.height),
            grown(2, w.coarse.width), weight.size() / taken * w.groups};
  require(w.fine.depth > 0 && w.fine.height > 0 && w.fine.width > 0, "transposed_conv", "input ",
          w.coarse, " leaves no voxel");
  require(bias.empty() || bias.size() == w.fine.channels, "transposed_conv", "the weight gives ",
          w.fine.channels, " channels, the bias has ", bias.size());
  return convolved<false>(x, weight, bias, w);
}

}  // namespace segmed
