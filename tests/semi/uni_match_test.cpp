// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/semi/uni_match.hpp>

using namespace trial;

namespace {

/// The labels of which the network is sure, voxel by voxel; drawn ones stay.
template <class Map>
Labels<Cpu> sure_labels(const Doubles& logits, const Samples<Map>& samples, double confidence) {
  const AnnotatedSet annotated = samples.labels.annotated[0];
  auto labels = samples.labels.classes.host();
  Index doubtful = 0, sure = 0;
  for (std::size_t v = 0; v < labels.size(); ++v) {
    if (labels[v] != 0 && !annotated.none()) continue;
    double total = 0, best = -1;
    for (std::size_t c = 0; c < 3; ++c) {
      if (c > 0 && annotated.has(Index(c))) continue;
      const double e = std::exp(logits[3 * v + c]);
      total += e;
      if (e > best) best = e, labels[v] = std::uint8_t(c);
    }
    if (best / total < confidence)
      labels[v] = ignored, ++doubtful;
    else
      ++sure;
  }
  REQUIRE(doubtful > 0);
  REQUIRE(sure > 0);
  return labels_of<Cpu>(samples.labels.grid, labels, 3);
}
template <class N>
double by_hand(const N& net, OneStep<typename N::Features>& step, float confidence) {
  const Scope forward([](Mode& m) { m.record = false; });
  const auto levels = net.encode(step.partial.image);
  const auto labels =
      sure_labels(host(net.classify(net.decode(levels))), step.partial, double(confidence));
  step.again();  // the network has no random op of its own
  const auto felt = net.classify(net.decode(channel_dropout(levels, 0.5f)));
  const Criterion<Loss> loss{};
  return 0.5 * loss(net(step.partial.strong), labels).host() + 0.5 * loss(felt, labels).host();
}

}  // namespace

TEST_SUITE("semi/uni_match") {
  TEST_CASE("confident labels of the weak view teach the strong one and the spoilt features") {
    const Loss loss{};
    for (const AnnotatedSet annotated : {AnnotatedSet{}, AnnotatedSet{}.with(1)}) {
      Net net = small_net();
      UniMatch policy{.confidence = annotated.none() ? 0.5f : 0.7f};
      OneStep<F> step(true, annotated);
      auto now = step.now(net, loss);
      const double term = policy.loss(now).host();
      CHECK(term == doctest::Approx(by_hand(net, step, policy.confidence)).epsilon(1e-5));
      Tape::current()->clear();
    }
    Net net = small_net();
    OneStep<F> step(true);
    step.partial = {};
    auto alone = step.now(net, loss);
    CHECK_FALSE(UniMatch{}.loss(alone));
  }
  TEST_CASE("a doubtful voxel is no background: where nothing is sure, nothing is learned") {
    Net net = small_net();
    UniMatch policy;
    policy.confidence = 1.1f;
    OneStep<F> step(true);
    for (const auto& one : gradients_of(net, policy, step))
      CHECK_MESSAGE(size_of(one.second) == 0, one.first);
    policy.confidence = 0.5f;
    CHECK(size_of(gradients_of(net, policy, step).at("0.head.weight")) > 0);
  }
  TEST_CASE("the weak view's own prediction is given") {
    // Without the spoilt features the gradient is that of the strong view alone.
    Net net = small_net();
    UniMatch policy;
    policy.confidence = 0.5f, policy.features = 0;
    OneStep<F> step(true);
    const auto all = gradients_of(net, policy, step);
    Labels<Cpu> labels;
    {
      const Scope forward([](Mode& m) { m.record = false; });
      labels = sure_labels(host(net(step.partial.image)), step.partial, 0.5);
    }
    Group<float, Cpu> group(Role::trained, net);
    backward(0.5f * Criterion<Loss>{}(net(step.partial.strong), labels));
    for (const auto& p : group.params()) {
      const auto alone = p->grad.host();
      const auto& term = all.at("0." + p->name);
      for (std::size_t i = 0; i < alone.size(); ++i)
        REQUIRE(term[i] == doctest::Approx(alone[i]).epsilon(1e-4));
    }
  }
  TEST_CASE("it trains an erased network of two axes") {
    AnyNetwork<Flat> net(UNet<UNetParts<Flat>>({.classes = 3, .widths = {4, 8}}));
    UniMatch policy{.confidence = 0.5f};
    OneStep<Flat> step(true);
    const Loss loss{};
    auto now = step.now(net, loss);
    const double term = policy.loss(now).host();
    CHECK(term == doctest::Approx(by_hand(net, step, 0.5f)).epsilon(1e-5));
    Tape::current()->clear();
  }
  TEST_CASE("it asks for a strong view and resumes bit for bit") {
    static_assert(needs_of<UniMatch>().strong_view);
    check_resumes([](const Net&) { return UniMatch{.confidence = 0.4f}; });
  }
}
