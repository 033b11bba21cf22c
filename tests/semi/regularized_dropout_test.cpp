// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/semi/regularized_dropout.hpp>

using namespace trial;

namespace {

/// The divergence of two predictions over the classes of each voxel, both ways, halved.
template <class N>
double by_hand(const N& net, OneStep<typename N::Features>& step) {
  const Scope forward([](Mode& m) { m.record = false; });
  const auto levels = net.encode(step.partial.image);
  step.again();  // the network has no random op of its own
  const auto p = softmax_of(host(net.classify(net.decode(channel_dropout(levels, 0.3f)))), 3);
  const auto q = softmax_of(host(net.classify(net.decode(channel_dropout(levels, 0.3f)))), 3);
  REQUIRE(p != q);
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i)
    sum += 0.5 * (p[i] * std::log(p[i] / q[i]) + q[i] * std::log(q[i] / p[i]));
  return 0.5 * 2 * sum / double(p.size() / 3);
}

}  // namespace

TEST_SUITE("semi/regularized_dropout") {
  TEST_CASE("the term is the divergence of two predictions under different dropout") {
    Net net = small_net();
    RegularizedDropout policy{.weight = 2};
    OneStep step;
    auto now = step.now(net);
    const double term = policy.loss(now).host();
    CHECK(term == doctest::Approx(by_hand(net, step)).epsilon(1e-5));
    Tape::current()->clear();
    step.partial = {};
    auto alone = step.now(net);
    CHECK_FALSE(policy.loss(alone));
  }
  TEST_CASE("probabilities are over the classes: what a voxel adds to all its logits is nothing") {
    const Grid grid{1, 2, 3, 4, 3};
    std::vector<float> a, b, shifted;
    for (Index i = 0; i < grid.size(); ++i) {
      a.push_back(Philox{1, Purpose::sample}.normal(i));
      b.push_back(Philox{2, Purpose::sample}.normal(i));
      shifted.push_back(a.back() + float(i / 3 % 5));
    }
    const auto of = [&](const std::vector<float>& values) {
      return F(grid, Storage<float, Cpu>(values));
    };
    CHECK(
        agreement(SymmetricDivergence{}, std::vector<F>{of(a), of(b)}).host() ==
        doctest::Approx(agreement(SymmetricDivergence{}, std::vector<F>{of(shifted), of(b)}).host())
            .epsilon(1e-5));
  }
  TEST_CASE("both predictions teach the whole network") {
    Net net = small_net();
    RegularizedDropout policy;
    PolicyStep step(net, policy);
    for (const auto& one : step.gradients())
      if (one.first.find("conv.weight") != std::string::npos)
        CHECK_MESSAGE(size_of(one.second) > 0, one.first);
  }
  TEST_CASE("it trains an erased network of two axes") {
    AnyNetwork<F2> net(small_net_2d());
    RegularizedDropout policy{.weight = 2};
    OneStep<F2> step;
    auto now = step.now(net);
    const double term = policy.loss(now).host();
    CHECK(term == doctest::Approx(by_hand(net, step)).epsilon(1e-5));
    Tape::current()->clear();
  }
  TEST_CASE("it resumes bit for bit") {
    check_resumes([](const Net&) { return RegularizedDropout{}; });
  }
}
