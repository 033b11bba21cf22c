// SPDX-License-Identifier: Apache-2.0
// Normalisation and LeakyReLU, written down by value(): alone they would only be noted on the map
// and cost nothing here. How they are meant to be used is BM_ConvNormActConv: between two
// convolutions, which read and sum what they need. LayerNorm, of each voxel by itself, is always
// written down.
#include "workload.hpp"
#include <segmed/autograd/group.hpp>
#include <segmed/autograd/scalar.hpp>
#include <segmed/nn/layer.hpp>

namespace {
using namespace segmed;
using F = Features<3, float, Cpu>;

template <class Norm>
struct Layer {
  Norm norm;
  F operator()(const F& x) const { return leaky_relu(norm(x), 0.01); }
  static void members(auto& self, auto&& visit) { visit("norm", self.norm); }
};
struct Chain {
  Conv<F> first;
  InstanceNorm<F> norm;
  Conv<F> second;
  explicit Chain(Index channels)
      : first(channels, channels, {.bias = false}),
        norm(channels),
        second(channels, channels, {.bias = false}) {
    initialize(*this, 1);
  }
  F operator()(const F& x) const { return second(leaky_relu(norm(first(x)), 0.01)); }
  static void members(auto& self, auto&& visit) {
    visit("first", self.first);
    visit("norm", self.norm);
    visit("second", self.second);
  }
};

/// A module, an input, and the gradient that comes back.
template <class M>
struct Case {
  M module;
  GroupOf<F> group;
  Grid grid;
  F x;
  Storage<float, Cpu> incoming;

  Case(M m, const Grid& on)
      : module(std::move(m)),
        group(Role::trained, module),
        grid(on),
        x(F::leaf(on, bench::normal_numbers(on.size()))),
        incoming(bench::normal_numbers(on.size(), 1)) {}
  void forget() {
    x.dense().moments = {};  // a second run would find them
    x.dense().grad->sum = {};
    group.clear_grads();
  }
  F forward() { return value(module(x)); }
  // The gradient is the map's own, as in a network, whose ops may hand it on.
  void backward(const F& y, Storage<float, Cpu> gradient) {
    y.dense().grad->sum = std::move(gradient);
    Tape::current()->pull_all({});
  }
};
template <class M>
bench::Run forward(M module, const Grid& grid) {
  const auto s = std::make_shared<Case<M>>(std::move(module), grid);
  return [s] {
    s->forget();
    return bench::seconds_of([&] { no_grad([&] { return s->forward(); }); });
  };
}
template <class M>
bench::Run backward_only(M module, const Grid& grid) {
  const auto s = std::make_shared<Case<M>>(std::move(module), grid);
  return [s] {
    s->forget();
    const F y = s->forward();
    auto gradient = s->incoming.clone();
    return bench::seconds_of([&] { s->backward(y, std::move(gradient)); });
  };
}
template <class M>
bench::Run forward_backward(M module, const Grid& grid) {
  const auto s = std::make_shared<Case<M>>(std::move(module), grid);
  return [s] {
    s->forget();
    auto gradient = s->incoming.clone();
    return bench::seconds_of([&] { s->backward(s->forward(), std::move(gradient)); });
  };
}

/// Normalisation over groups of channels and LeakyReLU in double, forward and backward.
template <class M>
void check(const char* what, M module, Index groups, std::vector<bench::Check>& found) {
  const Grid grid{2, 5, 6, 7, 16};
  Case<M> s(std::move(module), grid);
  const F y = s.forward();
  s.backward(y, s.incoming.clone());
  const auto x = s.x.dense().value.host(), g = s.incoming.host();
  std::vector<double> made(x.size()), slope(x.size());
  const Index width = grid.channels / groups;
  for (Index n = 0; n < grid.cases; ++n)
    for (Index set = 0; set < groups; ++set) {
      const auto each = [&](auto body) {
        for (Index v = 0; v < grid.voxels(); ++v)
          for (Index c = set * width; c < (set + 1) * width; ++c)
            body(std::size_t((n * grid.voxels() + v) * grid.channels + c));
      };
      const double count = double(grid.voxels() * width);
      double mean = 0, variance = 0, of_mean = 0, of_product = 0;
      each([&](std::size_t i) { mean += double(x[i]) / count; });
      each([&](std::size_t i) {
        variance += (double(x[i]) - mean) * (double(x[i]) - mean) / count;
      });
      const double inverse = 1 / std::sqrt(variance + 1e-5);
      const auto normal = [&](std::size_t i) { return (double(x[i]) - mean) * inverse; };
      const auto back = [&](std::size_t i) { return double(g[i]) * (normal(i) > 0 ? 1 : 0.01); };
      each([&](std::size_t i) {
        made[i] = normal(i) * (normal(i) > 0 ? 1 : 0.01);
        of_mean += back(i) / count, of_product += back(i) * normal(i) / count;
      });
      each([&](std::size_t i) {
        slope[i] = inverse * (back(i) - of_mean - normal(i) * of_product);
      });
    }
  found.push_back({what, bench::relative_error(y.dense().value.host(), made), 1e-5});
  found.push_back({std::string(what) + "'s gradient",
                   bench::relative_error(s.x.gradient().host(), slope), 1e-5});
}
/// LayerNorm with gains and biases in double, forward and backward.
void check_layer_norm(std::vector<bench::Check>& found) {
  const Grid grid{2, 5, 6, 7, 24};
  const auto width = std::size_t(grid.channels);
  Case<LayerNorm<F>> s(LayerNorm<F>(24), grid);
  const auto gain = bench::normal_numbers(24, 2), bias = bench::normal_numbers(24, 3);
  s.module.gain.value().assign(gain), s.module.bias.value().assign(bias);
  const F y = s.forward();
  s.backward(y, s.incoming.clone());
  const auto x = s.x.dense().value.host(), g = s.incoming.host();
  std::vector<double> made(x.size()), slope(x.size()), weights(2 * width);
  for (std::size_t row = 0; row < x.size(); row += width) {
    double mean = 0, variance = 0, level = 0, tilt = 0;
    for (std::size_t c = 0; c < width; ++c) mean += double(x[row + c]) / 24;
    for (std::size_t c = 0; c < width; ++c)
      variance += (double(x[row + c]) - mean) * (double(x[row + c]) - mean) / 24;
    const double inverse = 1 / std::sqrt(variance + 1e-5);
    const auto normal = [&](std::size_t c) { return (double(x[row + c]) - mean) * inverse; };
    const auto up = [&](std::size_t c) { return double(g[row + c]) * double(gain[c]); };
    for (std::size_t c = 0; c < width; ++c) {
      made[row + c] = normal(c) * double(gain[c]) + double(bias[c]);
      level += up(c) / 24, tilt += up(c) * normal(c) / 24;
      weights[c] += double(g[row + c]) * normal(c), weights[width + c] += double(g[row + c]);
    }
    for (std::size_t c = 0; c < width; ++c)
      slope[row + c] = inverse * (up(c) - level - normal(c) * tilt);
  }
  found.push_back({"LayerNorm", bench::relative_error(y.dense().value.host(), made), 1e-5});
  found.push_back(
      {"LayerNorm's gradient", bench::relative_error(s.x.gradient().host(), slope), 1e-5});
  auto of_weights = s.module.gain.grad().host();
  for (const float b : s.module.bias.grad().host()) of_weights.push_back(b);
  found.push_back(
      {"the gradient of LayerNorm's weights", bench::relative_error(of_weights, weights), 1e-5});
}
std::vector<bench::Check> checks() {
  std::vector<bench::Check> found;
  check("InstanceNorm + LeakyReLU", Layer<InstanceNorm<F>>{InstanceNorm<F>(16)}, 16, found);
  check("GroupNorm + LeakyReLU", Layer<GroupNorm<F>>{GroupNorm<F>(16)}, 8, found);
  check_layer_norm(found);
  // Fused or written down, two convolutions with a normalisation between them are the same.
  Case<Chain> s(Chain(16), {1, 8, 9, 10, 16});
  const auto fused = s.forward().dense().value.host();
  s.forget();
  const auto apart = materialized([&] { return s.forward(); }).dense().value.host();
  Tape::current()->clear();
  found.push_back({"conv, norm, act, conv", bench::relative_error(fused, apart), 1e-6});
  return found;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<bench::Workload> workloads;
  for (const auto& [channels, extent] : {std::pair<Index, Index>{32, 96}, {64, 48}}) {
    const auto shape = "/" + std::to_string(channels) + "/" + std::to_string(extent);
    const Grid grid{1, extent, extent, extent, channels};
    const double bytes = 4.0 * double(grid.size()), voxels = double(grid.voxels());
    const Index c = channels;
    const auto add = [&](const std::string& name, auto make, bool chain) {
      // Forward reads twice and writes once; backward reads both tensors twice and writes one.
      workloads.push_back(
          {name + "Fwd" + shape, [=] { return forward(make(c), grid); }, 0, 3 * bytes});
      if (chain) {
        const double flops = 2 * 2 * 27 * voxels * double(c) * double(c);
        workloads.back().flops = flops;
        workloads.push_back({name + "FwdBwd" + shape,
                             [=] { return forward_backward(make(c), grid); }, 3 * flops, 0});
      } else {
        workloads.push_back(
            {name + "Bwd" + shape, [=] { return backward_only(make(c), grid); }, 0, 5 * bytes});
      }
    };
    add(
        "BM_InstNormLRelu", [](Index n) { return Layer<InstanceNorm<F>>{InstanceNorm<F>(n)}; },
        false);
    if (channels == 32)
      add(
          "BM_GroupNorm8LRelu", [](Index n) { return Layer<GroupNorm<F>>{GroupNorm<F>(n)}; },
          false);
    if (channels == 64)
      add(
          "BM_LayerNorm", [](Index n) { return LayerNorm<F>(n); }, false);
    add(
        "BM_ConvNormActConv", [](Index n) { return Chain(n); }, true);
  }
  return bench::run_program(argc, argv, checks, std::move(workloads));
}
