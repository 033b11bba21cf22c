// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/autograd/gradient_check.hpp>
#include <segmed/autograd/group.hpp>
#include <segmed/backend/backend.hpp>
#include <segmed/losses/composition.hpp>
#include <segmed/losses/criterion.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/region.hpp>
#include <segmed/nn/any_network.hpp>
#include <segmed/nn/dynamic_head.hpp>

using namespace segmed;

namespace {

using F = Features<3, float, Cpu>;
using Flat = Features<2, float, Cpu>;
using Net = DynamicUNet<UNetParts<F>>;
static_assert(Network<Net> && Network<DynamicUNet<UNetParts<Flat>>>);

const Net::Options tiny{.classes = 4, .widths = {4, 8}, .encoder_convs = 1, .decoder_convs = 1};

template <class F>
F noise(const Grid& grid, std::uint64_t seed) {
  const Philox random{seed, Purpose::noise};
  std::vector<float> values;
  for (Index i = 0; i < grid.size(); ++i) values.push_back(random.normal(i));
  return F(grid, Storage<float, Cpu>(values));
}
double host_layers(const float* x, const float* w) {
  std::vector<double> in(x, x + 8);
  for (int layer = 0; layer < 3; ++layer) {
    const std::size_t out = layer < 2 ? 8 : 1;
    std::vector<double> y(out);
    for (std::size_t o = 0; o < out; ++o) {
      y[o] = double(w[8 * out + o]);
      for (std::size_t i = 0; i < 8; ++i) y[o] += double(w[o * 8 + i]) * in[i];
      if (layer < 2) y[o] = std::max(0.0, y[o]);
    }
    w += 9 * out, in = y;
  }
  return in[0];
}

}  // namespace

TEST_SUITE("nn/dynamic_head") {
  TEST_CASE("the controller reads the mean of the bottleneck and a class, as its formula says") {
    const Scope scope([](Mode& m) { m.record = false; });
    DynamicHead<F> head(4, 6, 4);
    initialize(head, 3);
    const F low = noise<F>({2, 2, 3, 2, 6}, 1), features = noise<F>({2, 3, 4, 2, 4}, 2);
    const auto weights = value(head.weights(low)).dense().value.host();
    const auto w = head.controller.weight.value().host();
    const auto values = low.dense().value.host();
    REQUIRE(weights.size() == 2 * 3 * 153);
    for (std::size_t n = 0; n < 2; ++n)
      for (std::size_t k = 0; k < 3; ++k)
        for (std::size_t o = 0; o < 153; ++o) {
          double expected = double(w[(6 + k) * 153 + o]);
          for (std::size_t c = 0; c < 6; ++c)
            for (std::size_t v = 0; v < 12; ++v)
              expected += double(w[c * 153 + o]) * double(values[(n * 12 + v) * 6 + c]) / 12;
          CHECK(double(weights[(n * 3 + k) * 153 + o]) == doctest::Approx(expected).epsilon(1e-4));
        }
    const F x = value(head.narrow(features));
    const auto narrow = x.dense().value.host();
    const auto y = head(features, low).dense().value.host();
    for (std::size_t row = 0; row < 48; ++row) {
      CHECK(y[row * 4] == 0);
      for (std::size_t k = 0; k < 3; ++k)
        CHECK(double(y[row * 4 + 1 + k]) ==
              doctest::Approx(host_layers(&narrow[row * 8], &weights[(row / 24 * 3 + k) * 153]))
                  .epsilon(1e-4));
    }
  }
  TEST_CASE("every parameter learns, and maps of any extents fit") {
    Net net(tiny);
    Group<float, Cpu> group(Role::trained, net);
    const F image = noise<F>({2, 7, 8, 9, 1}, 1);
    const F y = net(image);
    CHECK(y.grid() == Grid{2, 7, 8, 9, 4});
    backward(probe(y));
    for (const auto& p : group.params()) {
      const auto slopes = p->grad.host();
      const bool any = std::any_of(slopes.begin(), slopes.end(), [](float s) { return s != 0; });
      CHECK_MESSAGE(any, p->name);
    }
  }
  TEST_CASE("trained by sigmoids, the largest logit is right, and background is the rest") {
    Net net(tiny);
    Group<float, Cpu> group(Role::trained, net);
    const Grid grid{1, 8, 8, 8, 1};
    std::vector<float> image(512, -1);
    std::vector<std::uint8_t> drawn(512, 0);
    for (std::size_t v = 0; v < 512; ++v) {
      const std::size_t block = v / 64 / 4 * 4 + v / 8 % 8 / 4 * 2 + v % 8 / 4;
      if (block >= 1 && block <= 3) drawn[v] = std::uint8_t(block), image[v] = float(block) - 1;
    }
    const F x(grid, Storage<float, Cpu>(image));
    const auto labels = labels_of<Cpu>(grid, drawn, Index(4));
    const Criterion loss{Sum{Independent{Dice{}}, BinaryCrossEntropy{.include_background = false}}};
    for (int step = 0; step < 150; ++step) {
      group.clear_grads();
      backward(loss(net(x), labels));
      auto values = group.values.host();
      const auto slopes = group.grads.host();
      double norm = 0;
      for (const float s : slopes) norm += double(s) * double(s);
      const float rate = 0.1f / std::max(1.0f, float(std::sqrt(norm)));
      for (std::size_t i = 0; i < values.size(); ++i) values[i] -= rate * slopes[i];
      group.values.assign(values);
    }
    const auto z = evaluating([&] { return net(x); }).dense().value.host();
    int right = 0;
    for (std::size_t v = 0; v < 512; ++v)
      right += std::max_element(&z[4 * v], &z[4 * v] + 4) - &z[4 * v] == drawn[v];
    CHECK(right > 500);
  }
  TEST_CASE("in two dimensions, and behind AnyNetwork") {
    const DynamicUNet<UNetParts<Flat>> flat({.classes = 3, .widths = {4, 8}});
    const Flat image = noise<Flat>({2, 1, 9, 8, 1}, 1);
    const Flat y = flat(image);
    CHECK(y.grid() == Grid{2, 1, 9, 8, 3});
    const AnyNetwork<Flat> any = flat;
    CHECK_FALSE(any.splits());
    CHECK(any(image).dense().value.host() == y.dense().value.host());
    CHECK_THROWS_AS(Net({.widths = {4, 8, 8}, .deep_supervision = true}), ConfigError);
  }
}
