// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/semi/cross_consistency.hpp>

using namespace trial;

namespace {

template <class N>
CrossConsistency<N> made(const N& net) {
  CrossConsistency<N> policy(net);
  policy.weight = 0.7f;
  return policy;
}

/// The term from probabilities that three decoders give for spoilt levels.
template <class N>
double by_hand(const N& net, const CrossConsistency<N>& policy,
               OneStep<typename N::Features>& step) {
  using Map = typename N::Features;
  const Scope forward([](Mode& m) { m.record = false; });
  step.again();  // the network has no random op of its own
  const auto levels = net.encode(step.partial.image);
  const auto target = softmax_of(host(net.classify(net.decode(levels))), 3);
  double sum = 0;
  const auto add = [&](const auto& decoder, auto spoil) {
    std::vector<Map> spoilt;
    for (const Map& level : levels) spoilt.push_back(spoil(level));
    sum += mean_square_of(softmax_of(host(decoder(spoilt)), 3), target);
  };
  add(policy.noisy, [](const Map& x) { return feature_noise(x, 0.3f); });
  add(policy.dropped, [](const Map& x) { return channel_dropout(x, 0.3f); });
  add(policy.unattended, [](const Map& x) { return attention_dropout(x, 0.7f, 0.9f); });
  return 0.35 * sum / 3;
}

}  // namespace

TEST_SUITE("semi/cross_consistency") {
  TEST_CASE("the term is the mean squared distance of three decoders to the network's own") {
    Net net = small_net();
    auto policy = made(net);
    OneStep step;
    auto now = step.now(net);
    const double term = policy.loss(now).host();
    CHECK(term == doctest::Approx(by_hand(net, policy, step)).epsilon(1e-5));
    Tape::current()->clear();
    step.partial = {};
    auto alone = step.now(net);
    CHECK_FALSE(policy.loss(alone));
  }
  TEST_CASE("the further decoders and the encoder learn from it, the network's own decoder not") {
    Net net = small_net();
    auto policy = made(net);
    PolicyStep step(net, policy);
    const auto all = step.gradients();
    CHECK(size_of(all.at("0.encode.stages.0.units.0.conv.weight")) > 0);
    CHECK(size_of(all.at("0.decode.stages.0.units.0.conv.weight")) == 0);
    CHECK(size_of(all.at("0.head.weight")) == 0);
    for (const char* decoder : {"noisy", "dropped", "unattended"})
      CHECK(size_of(all.at("1." + std::string(decoder) + ".head.weight")) > 0);
  }
  TEST_CASE("a target that was asked for first still has a gradient for others") {
    Net net = small_net();
    auto policy = made(net);
    OneStep step;
    auto now = step.now(net);
    policy.loss(now);
    CHECK(now.logits_partial().tracked());
    Tape::current()->clear();
  }
  TEST_CASE("it trains an erased network of two axes") {
    AnyNetwork<F2> net(small_net_2d());
    auto policy = made(net);
    OneStep<F2> step;
    auto now = step.now(net);
    const double term = policy.loss(now).host();
    CHECK(term == doctest::Approx(by_hand(net, policy, step)).epsilon(1e-5));
    Tape::current()->clear();
  }
  TEST_CASE("it resumes bit for bit") {
    check_resumes([](const Net& net) { return CrossConsistency<Net>(net); });
  }
}
