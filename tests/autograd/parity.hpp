// SPDX-License-Identifier: Apache-2.0
// The same ops on two devices: what tests of a device ask.
#pragma once
#include "check.hpp"
#include <segmed/autograd/convolution.hpp>
#include <segmed/autograd/layer_norm.hpp>
#include <segmed/autograd/normalize.hpp>
#include <segmed/autograd/pool.hpp>
#include <segmed/autograd/weighted.hpp>

namespace check {

/// Whatever a run gave, part by part.
using Parts = std::vector<std::vector<double>>;

template <class T, class D>
std::vector<double> doubles(const Storage<T, D>& values) {
  std::vector<double> out;
  for (const T& x : values.host()) out.push_back(double(Wide<T>(x)));
  return out;
}
/// The largest distance between two runs, each part relative to its largest number.
inline double apart(const Parts& a, const Parts& b) {
  double worst = a.size() == b.size() ? 0 : 1e300;
  for (std::size_t k = 0; k < a.size() && k < b.size(); ++k) {
    double largest = 1e-30, most = a[k].size() == b[k].size() ? 0 : 1e300;
    for (const double x : b[k]) largest = std::max(largest, std::abs(x));
    for (std::size_t i = 0; i < a[k].size() && i < b[k].size(); ++i) {
      const double d = std::abs(a[k][i] - b[k][i]);
      most = !(d <= most) ? d : most;
    }
    const double relative = most / largest;
    worst = !(relative <= worst) ? relative : worst;
  }
  return worst;
}

/// y = op(maps, weights), and the gradients of every map and weight under random upstream ones.
template <class F, class MapOp>
Parts run_op(const std::vector<Grid>& grids, const std::vector<Index>& sizes, MapOp op) {
  Tape::current()->clear();
  std::vector<F> maps;
  for (std::size_t i = 0; i < grids.size(); ++i)
    maps.push_back(F::leaf(grids[i], numbers<typename F::value_type>(grids[i].size(), 10 + i)));
  Weights<F> weights(sizes);
  GroupOf<F> group(Role::trained, weights);
  const F y = value(op(maps, weights));
  backward(probe(y));
  Parts parts = {doubles(y.dense().value)};
  for (const F& x : maps) parts.push_back(doubles(x.gradient()));
  if (!sizes.empty()) parts.push_back(doubles(group.grads));
  return parts;
}
/// The parts that `work` gives on device D, twice and with the same bits: in the other order of
/// threads where the device has one.
template <class D, class Work>
Parts twice(Work work) {
  const Parts first = work();
  if constexpr (requires { D::reversed; }) D::reversed = true;
  const Parts second = work();
  if constexpr (requires { D::reversed; }) D::reversed = false;
  CHECK(first == second);
  return first;
}

/// Norms, activations, sums, concatenations and biases on device D and on the processor.
template <std::size_t Dim, class T, class D>
void check_ops(double tolerance) {
  using Here = Features<Dim, T, D>;
  using There = Features<Dim, T, Cpu>;
  const auto compare = [&](const std::string& name, const std::vector<Grid>& grids,
                           const std::vector<Index>& sizes, auto op) {
    CAPTURE(name);
    CAPTURE(grids[0]);
    const Parts expected = run_op<There>(grids, sizes, op);
    CHECK(apart(twice<D>([&] { return run_op<Here>(grids, sizes, op); }), expected) < tolerance);
  };
  const auto geometry = ConvGeometry<Dim>::cubic(1);
  for (const Index c : {1, 3, 8, 11, 32, 33}) {
    const Grid grid = Dim == 3 ? Grid{2, 3, 7, 9, c} : Grid{2, 1, 13, 15, c};
    const Index groups = c % 4 == 0 ? 4 : 1, more = c % 8 == 0 ? 8 : 5;
    compare("instance norm", {grid}, {c, c},
            [](auto& x, auto& w) { return leaky_relu(instance_norm(x[0], w[0], w[1]), 0.01); });
    compare("group norm", {grid}, {c, c},
            [=](auto& x, auto& w) { return leaky_relu(group_norm(x[0], groups, w[0], w[1]), 0); });
    compare("batch norm", {grid}, {c, c},
            [](auto& x, auto& w) { return leaky_relu(batch_norm(x[0], w[0], w[1]), 0.2); });
    if (c > 1)  // of one channel nothing but its bias is left
      compare("layer norm", {grid}, {c, c},
              [](auto& x, auto& w) { return layer_norm(x[0], w[0], w[1], 1e-2); });
    compare("activation alone", {grid}, {}, [](auto& x, auto&) { return leaky_relu(x[0], 0.1); });
    compare("slope per channel", {grid}, {c, c, c},
            [](auto& x, auto& w) { return prelu(instance_norm(x[0], w[0], w[1]), w[2]); });
    compare("one slope", {grid}, {1}, [](auto& x, auto& w) { return prelu(x[0], w[0]); });
    compare("residual sum", {grid, grid}, {c, c}, [](auto& x, auto& w) {
      return leaky_relu(leaky_relu(instance_norm(x[0], w[0], w[1]), 0.01) + x[1], 0.1);
    });
    compare("concatenation", {grid, grid.with_channels(more)}, {c, c, c + more, c + more},
            [](auto& x, auto& w) {
              const auto left = leaky_relu(instance_norm(x[0], w[0], w[1]), 0.01);
              return leaky_relu(instance_norm(concat(left, x[1]), w[2], w[3]), 0.1);
            });
    compare("bias", {grid}, {c * 4, 4, 4, 4, 4 * 3, 3}, [=](auto& x, auto& w) {
      const auto inner = instance_norm(conv(x[0], w[0], w[1], geometry), w[2], w[3]);
      return conv(leaky_relu(inner, 0.01), w[4], w[5], geometry);
    });
    compare("spatial mean", {grid}, {c, c}, [](auto& x, auto& w) {
      return spatial_mean(leaky_relu(instance_norm(x[0], w[0], w[1]), 0.01));
    });
  }
  const auto means = [&](auto like) {
    using F = decltype(like);
    const Grid grid = Dim == 3 ? Grid{2, 5, 31, 17, 3} : Grid{2, 1, 71, 37, 3};
    const auto map = [&](Index channels, std::uint64_t seed) {
      const Grid on = grid.with_channels(channels);
      return F::leaf(on, numbers<T>(on.size(), seed));
    };
    Tape::current()->clear();
    const F a = map(3, 1), b = map(3, 2), weight = leaky_relu(map(1, 3), 0);
    const auto plain = mean_square(a, b);
    const auto loss = plain + weighted_mean_square(a, b, weight);
    backward(loss);
    return Parts{
        {double(plain.host()), double(loss.host())}, doubles(a.gradient()), doubles(b.gradient())};
  };
  CHECK(apart(twice<D>([&] { return means(Here()); }), means(There())) < tolerance);
}

}  // namespace check
