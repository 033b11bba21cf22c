// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/losses/deep_supervision.hpp>
#include <segmed/losses/partial.hpp>
#include <segmed/semi/pyramid_consistency.hpp>

using namespace trial;

namespace {

Net deep_net(std::uint64_t seed) {
  return Net({.classes = 3,
              .widths = {4, 6, 8, 8},
              .encoder_convs = 1,
              .decoder_convs = 1,
              .deep_supervision = true,
              .seed = seed});
}

/// One axis of linear interpolation between voxel centres: `outer` rows of `in` by `inner` numbers.
Doubles longer(const Doubles& x, std::size_t in, std::size_t out, std::size_t inner) {
  const std::size_t outer = x.size() / in / inner;
  Doubles y(outer * out * inner);
  for (std::size_t o = 0; o < out; ++o) {
    const double at = std::max(0.0, (double(o) + 0.5) * double(in) / double(out) - 0.5);
    const std::size_t first = std::size_t(at), second = std::min(first + 1, in - 1);
    for (std::size_t a = 0; a < outer; ++a)
      for (std::size_t i = 0; i < inner; ++i)
        y[(a * out + o) * inner + i] =
            x[(a * in + first) * inner + i] * (1 - (at - double(first))) +
            x[(a * in + second) * inner + i] * (at - double(first));
  }
  return y;
}
/// An output's logits on the finest grid.
template <class Map>
Doubles raised(const Map& output, const Grid& fine) {
  const Grid g = output.grid();
  const std::size_t w = std::size_t(g.width), h = std::size_t(g.height), d = std::size_t(g.depth);
  Doubles x = longer(host(output), w, std::size_t(fine.width), 3);
  x = longer(x, h, std::size_t(fine.height), 3 * std::size_t(fine.width));
  return longer(x, d, std::size_t(fine.depth), 3 * std::size_t(fine.width * fine.height));
}
template <class N>
double by_hand(const N& net, OneStep<typename N::Features>& step) {
  const Scope forward([](Mode& m) { m.record = false; });
  std::vector<Doubles> p;
  const auto outputs = net.outputs(step.partial.image);
  for (const auto& output : outputs) p.push_back(softmax_of(raised(output, outputs[0].grid()), 3));
  Doubles mean(p[0].size(), 0);
  for (const Doubles& one : p)
    for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += one[i] / double(p.size());
  double value = 0;
  for (const Doubles& one : p) {
    double distance = 0, sure = 0, divergences = 0;
    for (std::size_t v = 0; v < mean.size(); v += 3) {
      double divergence = 0, square = 0;
      for (std::size_t i = v; i < v + 3; ++i) {
        divergence += mean[i] * std::log(mean[i] / one[i]);
        square += (mean[i] - one[i]) * (mean[i] - one[i]) / 3;
      }
      distance += square * std::exp(-divergence);
      sure += std::exp(-divergence), divergences += divergence;
    }
    value += (distance / sure + 3 * divergences / double(mean.size())) / double(p.size());
  }
  return 0.35 * value;
}

}  // namespace

TEST_SUITE("semi/pyramid_consistency") {
  TEST_CASE("the term is the rectified distance of all outputs to their mean") {
    Net net = deep_net(1);
    PyramidConsistency policy{.weight = 0.7f};
    OneStep step;
    auto now = step.now(net);
    CHECK(now.outputs_partial().size() == 3);
    const double term = policy.loss(now).host();
    CHECK(term == doctest::Approx(by_hand(net, step)).epsilon(1e-5));
    Tape::current()->clear();
    step.partial = {};
    auto alone = step.now(net);
    CHECK_FALSE(policy.loss(alone));
  }
  TEST_CASE("labels teach every output on the finest grid, whether or not the loss is deep") {
    Net net = deep_net(1);
    PyramidConsistency policy;
    OneStep step;
    const Marginal<Dice> plain{};
    const DeepSupervision<Marginal<Dice>> deep{plain};
    auto now = step.now(net, plain);
    const double labelled = policy.supervised(now).host();
    auto deeply = step.now(net, deep);
    CHECK(policy.supervised(deeply).host() == labelled);
    Tape::current()->clear();
    const Scope forward([](Mode& m) { m.record = false; });
    double expected = 0;
    for (const auto* samples : {&step.full, &step.partial})
      for (const F& output : net.outputs(samples->image)) {
        const Grid fine = samples->image.grid().with_channels(3);
        const Doubles z = raised(output, fine);
        expected +=
            Criterion<Marginal<Dice>>{plain}(map_of<F>(fine, z), samples->labels).host() / 3;
      }
    CHECK(labelled == doctest::Approx(expected).epsilon(1e-5));
  }
  TEST_CASE("every head learns from the term") {
    Net net = deep_net(1);
    PyramidConsistency policy;
    PolicyStep step(net, policy);
    const auto all = step.gradients();
    for (const char* weight : {"0.encode.stages.0.units.0.conv.weight", "0.head.weight",
                               "0.lower_heads.0.weight", "0.lower_heads.1.weight"}) {
      CAPTURE(weight);
      CHECK(size_of(all.at(weight)) > 0);
    }
  }
  TEST_CASE("a network with one output is refused") {
    Net net = small_net();
    PyramidConsistency policy;
    OneStep step;
    auto now = step.now(net);
    CHECK_THROWS_WITH_AS(policy.supervised(now),
                         "segmed: PyramidConsistency: this network has an output at one "
                         "resolution only; give it deep_supervision = true and at least 3 widths",
                         ConfigError);
    Tape::current()->clear();
  }
  TEST_CASE("it trains an erased network of two axes") {
    AnyNetwork<F2> net(
        UNet<UNetParts<F2>>({.classes = 3, .widths = {4, 6, 8}, .deep_supervision = true}));
    PyramidConsistency policy{.weight = 0.7f};
    OneStep<F2> step;
    auto now = step.now(net);
    const double term = policy.loss(now).host();
    CHECK(term == doctest::Approx(by_hand(net, step)).epsilon(1e-5));
    Tape::current()->clear();
  }
  TEST_CASE("it resumes bit for bit") {
    check_resumes([](const Net&) { return PyramidConsistency{}; }, deep_net);
  }
}
