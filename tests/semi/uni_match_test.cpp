// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/semi/uni_match.hpp>

using namespace trial;

namespace {

/// The labels of which the network is sure, voxel by voxel; drawn ones stay.
template <class Map>
Labels<Cpu> sure_labels(const Doubles& logits, const Samples<Map>& samples, double confidence) {
  const auto labels = completed(samples.labels, logits, confidence);
  const auto doubtful = std::count(labels.begin(), labels.end(), ignored);
  REQUIRE(doubtful > 0);
  REQUIRE(doubtful < Index(labels.size()));
  return labels_of<Cpu>(samples.labels.grid, labels, 3);
}
/// What a term weighs in the middle of its warm-up.
constexpr double ramp = 0.5;

/// The second strong view of the defaults, from the draws that come next.
template <class Map>
Map changed(const Map& image) {
  const Grid grid = image.grid();
  const Philox once = Draws::next(Purpose::strong_view, 2 * grid.cases);
  const Philox random = Draws::next(Purpose::noise, grid.size());
  auto x = image.dense().value.host();
  const Index size = grid.voxels();
  for (Index i = 0; i < Index(x.size()); ++i) {
    const Index n = i / size;
    x[std::size_t(i)] *= 0.6f + 0.8f * once.uniform(2 * n);
    x[std::size_t(i)] += 0.8f * once.uniform(2 * n + 1) - 0.4f + 0.125f * random.normal(i);
  }
  return Map(grid, Storage<float, Cpu>(x));
}
template <class N>
double by_hand(const N& net, OneStep<typename N::Features>& step, float confidence, int views = 2) {
  const Scope forward([](Mode& m) { m.record = false; });
  const auto levels = net.encode(step.partial.image);
  const auto labels =
      sure_labels(host(net.classify(net.decode(levels))), step.partial, double(confidence));
  step.again();  // the network has no random op of its own
  const auto felt = net.classify(net.decode(channel_dropout(levels, 0.5f)));
  const Criterion<Loss> loss{};
  const double seen = loss(net(step.partial.strong), labels).host();
  const double of_features = ramp * 0.5 * loss(felt, labels).host();
  if (views == 1) return ramp * 0.5 * seen + of_features;
  const auto second = changed(step.partial.image);
  return ramp * 0.25 * (seen + loss(net(second), labels).host()) + of_features;
}

}  // namespace

TEST_SUITE("semi/uni_match") {
  TEST_CASE("confident labels of the weak view teach the strong one and the spoilt features") {
    for (const AnnotatedSet annotated : {AnnotatedSet{}, AnnotatedSet{}.with(1)}) {
      Net net = small_net();
      const int views = annotated.none() ? 2 : 1;
      UniMatch policy{.confidence = annotated.none() ? 0.5f : 0.7f, .views = views};
      OneStep step;
      step.partial = made_up<F>({annotated, annotated}, 2);
      auto now = step.now(net);
      const double term = policy.loss(now).host();
      CHECK(term == doctest::Approx(by_hand(net, step, policy.confidence, views)).epsilon(1e-5));
      Tape::current()->clear();
    }
    Net net = small_net();
    OneStep step;
    auto now = step.now(net);
    UniMatch three{.views = 3};
    CHECK_THROWS_WITH_AS(three.loss(now), "segmed: UniMatch: 3 strong views; give 1 or 2",
                         ConfigError);
    step.partial = {};
    auto alone = step.now(net);
    CHECK_FALSE(UniMatch{}.loss(alone));
  }
  TEST_CASE("a doubtful voxel is no background: where nothing is sure, nothing is learned") {
    Net net = small_net();
    UniMatch policy;
    policy.confidence = 1.1f;
    PolicyStep step(net, policy, unlabelled<F>(2, {16, 16, 16}));
    for (const auto& one : step.gradients()) CHECK_MESSAGE(size_of(one.second) == 0, one.first);
    policy.confidence = 0.5f;
    CHECK(size_of(step.gradients().at("0.head.weight")) > 0);
  }
  TEST_CASE("the weak view's own prediction is given") {
    // Without the spoilt features the gradient is that of the strong view alone.
    Net net = small_net();
    UniMatch policy;
    policy.confidence = 0.5f, policy.features = 0, policy.views = 1;
    PolicyStep step(net, policy);
    const auto all = step.gradients();
    Labels<Cpu> labels;
    {
      const Scope forward([](Mode& m) { m.record = false; });
      labels = sure_labels(host(net(step.partial.image)), step.partial, 0.5);
    }
    step.group.clear_grads();
    backward(float(ramp * 0.5) * Criterion<Loss>{}(net(step.partial.strong), labels));
    for (const auto& p : step.group.params()) {
      const auto alone = p->grad.host();
      const auto& term = all.at(p->name);
      for (std::size_t i = 0; i < alone.size(); ++i)
        REQUIRE(term[i] == doctest::Approx(alone[i]).epsilon(1e-4));
    }
  }
  TEST_CASE("it trains an erased network of two axes") {
    AnyNetwork<F2> net(small_net_2d());
    UniMatch policy{.confidence = 0.5f};
    OneStep<F2> step;
    auto now = step.now(net);
    const double term = policy.loss(now).host();
    CHECK(term == doctest::Approx(by_hand(net, step, 0.5f)).epsilon(1e-5));
    Tape::current()->clear();
  }
  TEST_CASE("it asks for a strong view and resumes bit for bit") {
    static_assert(needs_of<UniMatch>().strong_view);
    check_resumes([](const Net&) { return UniMatch{.confidence = 0.4f}; });
  }
}
