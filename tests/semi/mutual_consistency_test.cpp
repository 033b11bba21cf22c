// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/losses/partial.hpp>
#include <segmed/semi/mutual_consistency.hpp>

using namespace trial;

namespace {

/// What the three decoders say of some images.
template <class N>
std::vector<typename N::Features> said(const N& net, const MutualConsistency<N>& policy,
                                       const typename N::Features& image) {
  const auto levels = net.encode(image);
  return {net.classify(net.decode(levels)), policy.linear(levels), policy.nearest(levels)};
}
/// The distances of all ordered pairs, the second sharpened by the tenth power over the classes.
template <class Map>
double distance(const std::vector<Map>& outputs) {
  double sum = 0;
  for (std::size_t i = 0; i < outputs.size(); ++i)
    for (std::size_t j = 0; j < outputs.size(); ++j) {
      if (i == j) continue;
      Doubles sharp = softmax_of(host(outputs[j]), 3);
      for (std::size_t v = 0; v < sharp.size(); v += 3) {
        double total = 0;
        for (std::size_t c = v; c < v + 3; ++c) total += sharp[c] = std::pow(sharp[c], 10);
        for (std::size_t c = v; c < v + 3; ++c) sharp[c] /= total;
      }
      sum += mean_square_of(softmax_of(host(outputs[i]), 3), sharp);
    }
  return sum;
}
template <class N>
double by_hand(const N& net, const MutualConsistency<N>& policy,
               const OneStep<typename N::Features>& step) {
  const Scope forward([](Mode& m) { m.record = false; });
  const double of_full = distance(said(net, policy, step.full.image));
  return 0.5 * (of_full + distance(said(net, policy, step.partial.image))) / 2;
}

}  // namespace

TEST_SUITE("semi/mutual_consistency") {
  TEST_CASE(
      "the term is the distance of all pairs of decoders, one of each sharpened, on all images") {
    Net net = small_net();
    MutualConsistency<Net> policy(net);
    OneStep step;
    auto now = step.now(net);
    const double term = policy.loss(now).host();
    CHECK(term == doctest::Approx(by_hand(net, policy, step)).epsilon(1e-5));
    Tape::current()->clear();
  }
  TEST_CASE("without D_1 it is asked of D_0 alone") {
    Net net = small_net();
    MutualConsistency<Net> policy(net);
    OneStep step;
    step.partial = {};
    auto now = step.now(net);
    const double labelled = policy.supervised(now).host(), term = policy.loss(now).host();
    CHECK(labelled > 0);
    const Scope forward([](Mode& m) { m.record = false; });
    CHECK(term ==
          doctest::Approx(0.5 * distance(said(net, policy, step.full.image))).epsilon(1e-5));
    Tape::current()->clear();
  }
  TEST_CASE("labels teach every decoder, those of D_1 as far as they go") {
    Net net = small_net();
    MutualConsistency<Net> policy(net);
    OneStep step;
    const Sum loss{Marginal{Dice{}}, Marginal{CrossEntropy{}}};
    auto now = step.now(net, loss);
    const double labelled = policy.supervised(now).host();
    const double term = policy.loss(now).host();  // of the same outputs, not of new ones
    Tape::current()->clear();
    const Scope forward([](Mode& m) { m.record = false; });
    double expected = 0;
    const Criterion<std::remove_const_t<decltype(loss)>> of{loss};
    for (const auto* samples : {&step.full, &step.partial})
      for (const F& output : said(net, policy, samples->image))
        expected += of(output, samples->labels).host() / 3;
    CHECK(labelled == doctest::Approx(expected).epsilon(1e-5));
    CHECK(term == doctest::Approx(by_hand(net, policy, step)).epsilon(1e-5));
  }
  TEST_CASE("a step leaves nothing behind for the next") {
    Net net = small_net();
    MutualConsistency<Net> policy(net);
    OneStep step, other;
    other.partial = made_up<F>({{}, {}}, 8);
    auto now = step.now(net);
    policy.supervised(now), policy.loss(now);
    auto then = other.now(net);
    const double term = policy.loss(then).host();
    CHECK(term == doctest::Approx(by_hand(net, policy, other)).epsilon(1e-5));
    Tape::current()->clear();
  }
  TEST_CASE("encoder and all three decoders learn from the term") {
    Net net = small_net();
    MutualConsistency<Net> policy(net);
    PolicyStep step(net, policy);
    const auto all = step.gradients();
    for (const char* weight :
         {"0.encode.stages.0.units.0.conv.weight", "0.decode.ups.0.conv.weight", "0.head.weight",
          "1.linear.decode.ups.0.conv.weight", "1.linear.head.weight", "1.nearest.head.weight"}) {
      CAPTURE(weight);
      CHECK(size_of(all.at(weight)) > 0);
    }
  }
  TEST_CASE("it trains an erased network of two axes") {
    using N = AnyNetwork<F2>;
    N net(small_net_2d());
    MutualConsistency<N> policy(net);
    OneStep<F2> step;
    auto now = step.now(net);
    const double term = policy.loss(now).host();
    CHECK(term == doctest::Approx(by_hand(net, policy, step)).epsilon(1e-5));
    Tape::current()->clear();
  }
  TEST_CASE("it resumes bit for bit") {
    check_resumes([](const Net& net) { return MutualConsistency<Net>(net); });
  }
}
