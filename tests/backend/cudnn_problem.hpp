// SPDX-License-Identifier: Apache-2.0
// Convolutions with made-up inputs on any device, and what they gave.
#pragma once
#include <vector>

#include <doctest/doctest.h>

#include <segmed/backend/convolution.hpp>
#include <segmed/core/bfloat16.hpp>
#include <segmed/core/random.hpp>
#include <segmed/tensor/storage.hpp>

namespace made_up {
using namespace segmed;

struct Problem {
  Window w = {};
  bool two_sources = false, two_parts = false, pending = false, gradient = false, add = false;
  bool bias = false;
  std::uint32_t seed = 1;

  /// Some mixtures of these, each met in networks.
  static constexpr int modes = 6;
  static Problem of_mode(int mode, const Window& w, std::uint32_t seed) {
    Problem p{.w = w, .seed = seed};
    p.pending = mode == 1 || mode == 2 || mode == 4, p.two_sources = mode == 2;
    p.gradient = mode == 3 || mode == 4, p.add = mode >= 4, p.two_parts = mode >= 4;
    p.bias = mode == 1 || mode == 5;
    return p;
  }
};

template <class T>
std::vector<T> numbers(Index n, std::uint32_t seed, std::uint32_t stream) {
  std::vector<T> x(static_cast<std::size_t>(n));
  const Philox philox{seed, Purpose::noise, stream, 0};
  for (Index i = 0; i < n; ++i) x[std::size_t(i)] = T(philox.normal(i));
  return x;
}

/// A feed over a grid, with everything that it points to.
template <class T, Device D>
struct Fed {
  using W = Wide<T>;
  Feed<T> feed;
  Storage<T, D> x[2], direct, seen;
  Storage<W, D> scale[2], shift[2], slope;
  Storage<double, D> moments;

  Fed(const Problem& p, const Grid& grid, std::uint32_t stream) {
    const bool two = p.two_sources && !p.gradient && grid.channels > 1;
    const Index first = two ? (grid.channels + 1) / 2 : grid.channels;
    for (int i = 0; i < (two ? 2 : 1); ++i) {
      Lane<T>& lane = p.gradient ? feed.gradient.view : feed.values.lane[i];
      lane.grid = grid.with_channels(i ? grid.channels - first : first);
      const std::uint32_t s = stream + 10 * std::uint32_t(i);
      x[i] = Storage<T, D>(numbers<T>(lane.grid.size(), p.seed, s));
      lane.x = x[i].read();
      if (!p.pending) continue;
      scale[i] = Storage<W, D>(numbers<W>(lane.grid.pairs(), p.seed, s + 1));
      shift[i] = Storage<W, D>(numbers<W>(lane.grid.pairs(), p.seed, s + 2));
      lane.scale = scale[i].read(), lane.shift = shift[i].read();
      if (i == 0) {
        slope = Storage<W, D>(numbers<W>(lane.grid.pairs(), p.seed, s + 3));
        lane.slope = slope.read();
      } else {
        lane.leak = W(0.01);
      }
    }
    if (!p.gradient) return;
    feed.is_gradient = true;
    direct = Storage<T, D>(numbers<T>(grid.size(), p.seed, stream + 4));
    feed.gradient.direct = direct.read();
    if (!p.pending) return;
    seen = Storage<T, D>(numbers<T>(grid.size(), p.seed, stream + 5));
    std::vector<double> sums;
    for (const double m : numbers<double>(2 * grid.pairs(), p.seed, stream + 6))
      sums.push_back(0.1 * m);
    moments = Storage<double, D>(sums);
    feed.gradient.seen = seen.read(), feed.gradient.moments = moments.read();
  }
};

/// A place to write to: what is in it before depends on the problem alone.
template <class T, Device D>
struct Drained {
  Sink<T> sink;
  Storage<T, D> out[2];
  Storage<Wide<T>, D> bias;
  Storage<double, D> moments;

  Drained(const Problem& p, const Grid& grid) {
    const Index first = p.two_parts ? (grid.channels + 1) / 2 : grid.channels;
    for (int i = 0; i < 2; ++i) {
      sink.grid[i] = grid.with_channels(i ? grid.channels - first : first);
      if (sink.grid[i].channels == 0) continue;
      out[i] = Storage<T, D>(numbers<T>(sink.grid[i].size(), p.seed, 40 + std::uint32_t(i)));
      sink.out[i] = out[i].write();
    }
    sink.add[0] = sink.add[1] = p.add;
    if (p.bias) {
      bias = Storage<Wide<T>, D>(numbers<Wide<T>>(grid.channels, p.seed, 50));
      sink.bias = bias.read();
    }
    if (p.add || p.two_parts) return;
    moments = Storage<double, D>(2 * grid.pairs());
    sink.moments = moments.write();
  }
};

/// All that came out, as doubles.
struct Results {
  std::vector<double> out, moments;
};
template <class T, Device D>
Results results(const Drained<T, D>& drained) {
  Results r;
  for (const auto& part : drained.out)
    if (!part.empty())
      for (const T x : part.host()) r.out.push_back(double(Wide<T>(x)));
  if (!drained.moments.empty()) r.moments = drained.moments.host();
  return r;
}

/// `by(window, feed, weight, sink)`.
template <class T, Device D, class By>
Results written(const Problem& p, bool to_coarse, const By& by) {
  const Grid &from = to_coarse ? p.w.fine : p.w.coarse, &to = to_coarse ? p.w.coarse : p.w.fine;
  const Fed<T, D> fed(p, from, 1);
  const Storage<Wide<T>, D> weight(numbers<Wide<T>>(p.w.weights(), p.seed, 30));
  Drained<T, D> into(p, to);
  by(p.w, fed.feed, weight.read(), into.sink);
  return results(into);
}
/// `by(window, fine, coarse, weight_grad)`.
template <class T, Device D, class By>
Results weighed(const Problem& p, const By& by) {
  Problem values = p, gradient = p;
  values.gradient = false, gradient.gradient = true;
  const Fed<T, D> fine(values, p.w.fine, 1), coarse(gradient, p.w.coarse, 20);
  Storage<Wide<T>, D> grad(numbers<Wide<T>>(p.w.weights(), p.seed, 30));
  by(p.w, fine.feed, coarse.feed, grad.write());
  Results r;
  for (const Wide<T> x : grad.host()) r.out.push_back(double(x));
  return r;
}

/// The largest difference relative to the largest number.
inline double distance(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0, scale = 1e-30;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) < 1e300)) return 1e300;
    worst = std::max(worst, std::abs(a[i] - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  return worst / scale;
}

inline Window window(Grid fine, Index outputs, Index kernel, Index stride, Index padding,
                     Index dilation = 1, Index groups = 1) {
  Window w;
  w.fine = fine, w.coarse = fine.with_channels(outputs), w.groups = groups;
  Index* out[3] = {&w.coarse.depth, &w.coarse.height, &w.coarse.width};
  for (int a = fine.depth == 1 ? 1 : 0; a < 3; ++a) {
    w.kernel[a] = kernel, w.stride[a] = stride, w.padding[a] = padding, w.dilation[a] = dilation;
    *out[a] = (*out[a] + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
  }
  return w;
}

/// Two and three axes, strides, dilation, groups, channels that fill nothing, planes, borders that
/// differ on the two sides, voxels that nothing reaches.
inline std::vector<Window> windows() {
  std::vector<Window> all{
      window({2, 5, 6, 7, 3}, 5, 3, 1, 1),       window({1, 5, 6, 4, 16}, 16, 3, 1, 1),
      window({2, 7, 9, 5, 4}, 17, 3, 2, 1),      window({1, 6, 4, 6, 8}, 24, 2, 2, 0),
      window({1, 6, 7, 5, 32}, 3, 1, 1, 0),      window({2, 1, 17, 13, 6}, 9, 3, 1, 1),
      window({2, 1, 16, 12, 8}, 8, 3, 2, 1),     window({1, 9, 9, 9, 6}, 8, 3, 1, 2, 2, 2),
      window({1, 5, 4, 6, 8}, 8, 3, 1, 1, 1, 8), window({1, 7, 6, 5, 2}, 4, 5, 3, 2),
      window({1, 1, 1, 1, 20}, 20, 3, 1, 1),     window({2, 6, 5, 7, 1}, 8, 3, 1, 1),
  };
  Window flat = window({2, 3, 5, 6, 8}, 16, 3, 1, 1);  // a kernel of (1, 3, 3): planes
  flat.kernel[0] = 1, flat.padding[0] = 0;
  all.push_back(flat);
  Window longer = window({1, 4, 6, 4, 8}, 8, 2, 2, 0);
  longer.fine.width += 1;  // as a transposed convolution with output padding
  all.push_back(longer);
  Window lopsided = window({1, 3, 5, 6, 8}, 8, 3, 1, 1);
  lopsided.coarse.height += 1, lopsided.coarse.width -= 1;
  all.push_back(lopsided);
  return all;
}

}  // namespace made_up
