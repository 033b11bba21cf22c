// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/backend/cpu.hpp>
#include <segmed/nn/block.hpp>

using namespace segmed;

namespace {

using F2 = Features<2, double, Cpu>;
using F3 = Features<3, double, Cpu>;

template <class F>
F noise(const Grid& grid, std::uint32_t stream = 0) {
  std::vector<double> values;
  for (Index i = 0; i < grid.size(); ++i)
    values.push_back(double(Philox{6, Purpose::noise, stream}.normal(i)) + 0.3);
  return F(grid, Storage<double, Cpu>(values));
}
template <class F>
std::vector<double> host(const F& x) {
  return value(x).dense().value.host();
}
/// Mean and variance of one channel over some cases and channels.
std::pair<double, double> moments(const std::vector<double>& x, const Grid& g, Index first_case,
                                  Index cases, Index first_channel, Index channels) {
  double sum = 0, square = 0;
  for (Index n = first_case; n < first_case + cases; ++n)
    for (Index v = 0; v < g.voxels(); ++v)
      for (Index c = first_channel; c < first_channel + channels; ++c) {
        const double value = x[std::size_t(g.index({n, v, c}))];
        sum += value, square += value * value;
      }
  const double count = double(cases * g.voxels() * channels);
  return {sum / count, square / count - sum / count * sum / count};
}

/// These tests only go forward: nothing shall wait on the tape for a backward that never comes.
struct Forward {
  Scope scope{[](Mode& m) { m.record = false; }};
};

}  // namespace

TEST_SUITE("nn/layer") {
  TEST_CASE_FIXTURE(Forward, "Conv keeps extents, and a stride divides them, rounded up") {
    const Grid grid{2, 7, 6, 5, 3};
    for (const Index kernel : {1, 3, 5})
      for (const Index stride : {1, 2, 3}) {
        const Conv<F3> conv(3, 4, {.kernel = kernel, .stride = stride});
        const auto up = [&](Index extent) { return (extent + stride - 1) / stride; };
        CHECK(conv(noise<F3>(grid)).grid() == Grid{2, up(7), up(6), up(5), 4});
        CHECK(conv.weight.size() == kernel * kernel * kernel * 3 * 4);
      }
    const Conv<F2> wide(4, 6, {.kernel = 3, .dilation = 3, .groups = 2, .bias = false});
    CHECK(wide(noise<F2>({1, 1, 9, 8, 4})).grid() == Grid{1, 1, 9, 8, 6});
    CHECK(wide.weight.size() == 9 * 2 * 6);
    CHECK(wide.bias.empty());
    CHECK_THROWS_WITH_AS((Conv<F3>(3, 4, {.groups = 2})),
                         "segmed: Conv: 3 channels in and 4 out do not fit 2 groups", ConfigError);
  }

  TEST_CASE_FIXTURE(Forward,
                    "a convolution starts with the deviation that keeps activations in size") {
    Conv<F3> conv(16, 64);
    conv.weight.initialize(1, "some.path");
    double square = 0, sum = 0;
    const auto weights = conv.weight.value().host();
    for (const double w : weights) square += w * w, sum += w;
    CHECK(std::sqrt(square / double(weights.size())) ==
          doctest::Approx(std::sqrt(2.0 / (27 * 16))).epsilon(0.02));
    CHECK(std::abs(sum / double(weights.size())) < 1e-3);
    for (const double b : conv.bias.value().host()) CHECK(b == 0);
  }

  TEST_CASE_FIXTURE(Forward,
                    "TransposedConv multiplies extents by its stride, each voxel on its own") {
    TransposedConv<F3> up(2, 3, {2, 1, 3});
    const F3 x = noise<F3>({1, 2, 3, 4, 2});
    const F3 y = up(x);
    CHECK(y.grid() == Grid{1, 4, 3, 12, 3});
    const auto in = host(x), out = host(y), w = up.weight.value().host();
    const auto at = [&](Index n, Index z, Index yy, Index xx, Index c, const Grid& g) {
      return g.index({n, (z * g.height + yy) * g.width + xx, c});
    };
    for (Index z = 0; z < 4; ++z)
      for (Index xx = 0; xx < 12; ++xx)
        for (Index c = 0; c < 3; ++c) {
          double sum = 0;
          const Index tap = z % 2 * 3 + xx % 3;
          for (Index i = 0; i < 2; ++i)
            sum += in[std::size_t(at(0, z / 2, 1, xx / 3, i, x.grid()))] *
                   w[std::size_t((tap * 3 + c) * 2 + i)];
          CHECK(out[std::size_t(at(0, z, 1, xx, c, y.grid()))] ==
                doctest::Approx(sum).epsilon(1e-12));
        }
  }

  TEST_CASE_FIXTURE(Forward, "each norm takes mean and variance over its own part") {
    const Grid grid{2, 4, 5, 6, 8};
    const F3 x = noise<F3>(grid);
    const auto instance = host(InstanceNorm<F3>(8)(x));
    const auto batch = host(BatchNorm<F3>(8)(x));
    const auto group = host(GroupNorm<F3, 4>(8)(x));
    for (Index c = 0; c < 8; ++c) {
      for (Index n = 0; n < 2; ++n) {
        const auto [mean, variance] = moments(instance, grid, n, 1, c, 1);
        CHECK(std::abs(mean) < 1e-12);
        CHECK(variance == doctest::Approx(1).epsilon(1e-4));
        const auto [of_two, spread] = moments(group, grid, n, 1, c / 2 * 2, 2);
        CHECK(std::abs(of_two) < 1e-12);
        CHECK(spread == doctest::Approx(1).epsilon(1e-4));
      }
      const auto [mean, variance] = moments(batch, grid, 0, 2, c, 1);
      CHECK(std::abs(mean) < 1e-12);
      CHECK(variance == doctest::Approx(1).epsilon(1e-4));
    }
  }

  TEST_CASE_FIXTURE(Forward, "GroupNorm takes as many groups as divide the channels") {
    CHECK(GroupNorm<F3>(16).groups == 8);
    CHECK(GroupNorm<F3>(12).groups == 6);
    CHECK(GroupNorm<F3>(7).groups == 7);
    CHECK(GroupNorm<F3>(11).groups == 1);
  }

  TEST_CASE_FIXTURE(Forward, "LayerNorm gives each voxel mean 0 and variance 1, then its gain") {
    const Grid grid{2, 3, 4, 5, 24};
    LayerNorm<F3> norm(24);
    CHECK(norm.epsilon == 1e-5);
    const auto plain = host(norm(noise<F3>(grid)));
    norm.gain.value().assign(std::vector<double>(24, 3.0));
    norm.bias.value().assign(std::vector<double>(24, -2.0));
    const auto scaled = host(norm(noise<F3>(grid)));
    for (std::size_t row = 0; row < 120; ++row) {
      double sum = 0, square = 0;
      for (std::size_t c = 0; c < 24; ++c) {
        const double y = plain[24 * row + c];
        sum += y, square += y * y;
        CHECK(scaled[24 * row + c] == doctest::Approx(3 * y - 2));
      }
      CHECK(std::abs(sum / 24) < 1e-12);
      CHECK(square / 24 == doctest::Approx(1).epsilon(1e-3));
    }
    const ConvBlock<F2, LayerNorm<F2>, Gelu> block(3, 8);
    CHECK(block(noise<F2>({1, 1, 6, 6, 3})).grid() == Grid{1, 1, 6, 6, 8});
  }

  TEST_CASE("BatchNorm follows the batches while training and uses what it learned afterwards") {
    const Grid grid{2, 3, 4, 5, 2};
    BatchNorm<F3> norm(2);
    for (std::uint32_t step = 0; step < 200; ++step) norm(noise<F3>(grid, step));
    Tape::current()->clear();
    const auto mean = norm.mean.running().host(), variance = norm.variance.running().host();
    CHECK(mean[0] == doctest::Approx(0.3).epsilon(0.2));
    CHECK(variance[1] == doctest::Approx(1).epsilon(0.2));
    const F3 x = noise<F3>(grid, 1000);
    const auto y = host(evaluating([&] { return norm(x); })), in = host(x);
    CHECK(norm.mean.running().host() == mean);
    for (std::size_t i = 0; i < y.size(); ++i)
      CHECK(
          y[i] ==
          doctest::Approx((in[i] - mean[i % 2]) / std::sqrt(variance[i % 2] + 1e-5)).epsilon(1e-9));
  }

  TEST_CASE_FIXTURE(Forward, "activations have the values of their definitions") {
    const F2 x(Grid{1, 1, 1, 5, 1}, Storage<double, Cpu>(std::vector<double>{-2, -0.5, 0, 1, 3}));
    const auto check = [&](const auto& act, auto expected) {
      const auto y = host(act(x)), in = host(x);
      for (std::size_t i = 0; i < y.size(); ++i)
        CHECK(y[i] == doctest::Approx(expected(in[i])).epsilon(1e-7));
    };
    check(Relu{}, [](double v) { return v > 0 ? v : 0; });
    check(LeakyRelu{}, [](double v) { return v > 0 ? v : double(0.01f) * v; });
    check(LeakyRelu{0.2f}, [](double v) { return v > 0 ? v : double(0.2f) * v; });
    check(Prelu<F2>(1), [](double v) { return v > 0 ? v : 0.25 * v; });
    check(Gelu{}, [](double v) { return 0.5 * v * (1 + std::erf(v / std::sqrt(2.0))); });
    check(Silu{}, [](double v) { return v / (1 + std::exp(-v)); });
  }

  TEST_CASE_FIXTURE(Forward, "an activation is made for its channels where it has parameters") {
    CHECK(activation_for<Prelu<F2>>(5).slope.size() == 5);
    CHECK(activation_for<LeakyRelu>(5).leak == 0.01f);
  }
}
