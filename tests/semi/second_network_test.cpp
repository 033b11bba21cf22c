// SPDX-License-Identifier: Apache-2.0
// Policies with two networks: cross pseudo supervision and cross teaching.
#include "one_step.hpp"
#include <segmed/losses/partial.hpp>
#include <segmed/semi/cross_pseudo_supervision.hpp>
#include <segmed/semi/cross_teaching.hpp>
#include <segmed/semi/marginal_training.hpp>

using namespace trial;

namespace {

Net deeper_net(std::uint64_t seed = 2) {
  return Net({.classes = 3, .widths = {4, 6, 8}, .encoder_convs = 1, .seed = seed});
}
/// What each network learns from the other, by `measure(probabilities, labels)`.
template <class Measure>
double expected(OneStep<>& step, const Net& net, const Net& second, Measure measure) {
  const auto mine = host(net(step.partial.image)), theirs = host(second(step.partial.image));
  return measure(softmax_of(mine, 3), completed(step.partial.labels, theirs)) +
         measure(softmax_of(theirs, 3), completed(step.partial.labels, mine));
}
double labelled_by(OneStep<>& step, Net& second) { return step.now(second).labelled_full().host(); }

}  // namespace

TEST_SUITE("semi/second_network") {
  TEST_CASE("another start has other weights, of any network") {
    const Net net = small_net();
    CHECK(weights_of(with_other_start(net, 2)) != weights_of(net));
    CHECK(weights_of(with_other_start(net, 2)) == weights_of(with_other_start(net, 2)));
    const AnyNetwork<F> any{net};
    CHECK(weights_of(with_other_start(any, 2)) == weights_of(with_other_start(net, 2)));
    CHECK(weights_of(any) == weights_of(net));
  }
  TEST_CASE("cross pseudo supervision is the cross-entropy with the other's answers") {
    OneStep step;
    Net net = small_net();
    CrossPseudoSupervision<Net> policy{with_other_start(net, 2), 0.8f};
    const double cross = expected(step, net, policy.second, [](const auto& p, const auto& labels) {
      return cross_entropy(p, labels, 3);
    });
    auto now = step.now(net);
    const double labelled = labelled_by(step, policy.second);
    CHECK(policy.loss(now).host() == doctest::Approx(labelled + 0.4 * cross).epsilon(1e-5));
  }
  TEST_CASE("both networks learn the labels as the policy beside says") {
    OneStep step;
    Net net = small_net();
    Both policy{MarginalTraining{}, CrossPseudoSupervision<Net>{with_other_start(net, 2), 0.8f}};
    const double cross =
        expected(step, net, policy.second.second,
                 [](const auto& p, const auto& labels) { return cross_entropy(p, labels, 3); });
    auto then = step.now(policy.second.second);
    const double labelled = labelled_marginally(then).host();
    CHECK(labelled != doctest::Approx(labelled_by(step, policy.second.second)));  // D_1 is learnt
    auto now = step.now(net);
    CHECK(policy.loss(now).host() == doctest::Approx(labelled + 0.4 * cross).epsilon(1e-5));
    CHECK(supervised_by(policy, now).host() ==
          doctest::Approx(labelled_marginally(now).host()).epsilon(1e-6));
  }
  TEST_CASE("cross teaching is the overlap with the other's answers") {
    OneStep step;
    Net net = small_net();
    CrossTeaching<Net> policy{deeper_net(), 0.8f};
    const double cross = expected(step, net, policy.second, [](const auto& p, const auto& labels) {
      return dice(p, labels, 3, 2);
    });
    auto now = step.now(net);
    const double labelled = labelled_by(step, policy.second);
    CHECK(policy.loss(now).host() == doctest::Approx(labelled + 0.4 * cross).epsilon(1e-5));
  }
  TEST_CASE("answers are constants: each network learns as from labels") {
    OneStep step;
    Net net = small_net(), second = small_net(2);
    Group<float, Cpu> mine(Role::trained, net), theirs(Role::trained, second);
    const auto gradients = [&](auto loss) {
      mine.clear_grads(), theirs.clear_grads();
      auto now = step.now(net);
      auto then = beside(now, second);
      backward(loss(now, then));
      return std::pair{mine.grads.host(), theirs.grads.host()};
    };
    const auto both = gradients(
        [&](auto& now, auto& then) { return CrossPseudoSupervision<Net>::answers(now, then); });
    const auto labels = complete(step.partial.labels, second(step.partial.image));
    const auto one = gradients([&](auto& now, auto&) {
      return now.criterion_with(CrossEntropy{}, now.logits_partial(), labels);
    });
    CHECK(both.first == one.first);
    CHECK(one.second == std::vector<float>(one.second.size()));
    CHECK(both.second != one.second);
  }
  TEST_CASE("the second network learns partial labels if the loss can") {
    OneStep<F, Marginal<Loss>> step;
    Net net = small_net();
    CrossPseudoSupervision<Net> policy{small_net(2), 0};
    auto now = step.now(net);
    auto then = beside(now, policy.second);
    const double both = then.labelled_full().host() + then.labelled_partial().host();
    CHECK(policy.loss(now).host() == doctest::Approx(both));
  }
  TEST_CASE("without D_1 the second network learns the labels alone") {
    OneStep step;
    step.partial = {};
    Net net = small_net();
    CrossPseudoSupervision<Net> policy{small_net(2)};
    auto now = step.now(net);
    CHECK(policy.loss(now).host() == labelled_by(step, policy.second));
  }
  TEST_CASE("both networks are saved and go on bit for bit") {
    check_resumes(
        [](const Net& net) { return CrossPseudoSupervision<Net>{with_other_start(net, 2)}; });
    check_resumes([](const Net&) { return CrossTeaching<Net>{deeper_net()}; });
  }
  TEST_CASE("two dimensions, and two kinds of networks") {
    OneStep<F2> step;
    Net2 net = small_net_2d();
    CrossTeaching<Net2, AnyNetwork<F2>> policy{AnyNetwork<F2>(small_net_2d(2))};
    auto now = step.now(net);
    Group<float, Cpu> all(Role::trained, net, policy);
    const auto term = policy.loss(now);
    CHECK(std::isfinite(term.host()));
    backward(term);
  }
}
