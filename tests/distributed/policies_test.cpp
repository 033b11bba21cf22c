// SPDX-License-Identifier: Apache-2.0
// What a policy adds, and its gradient, are the same whether one process has the whole batch or
// every rank a share of it. Every rank does both, and compares.
#include "one_step.hpp"
#include "world.hpp"
#include <segmed/semi/adversarial.hpp>
#include <segmed/semi/copy_paste.hpp>
#include <segmed/semi/cross_consistency.hpp>
#include <segmed/semi/cross_pseudo_supervision.hpp>
#include <segmed/semi/cross_teaching.hpp>
#include <segmed/semi/deformation_consistency.hpp>
#include <segmed/semi/dual_task.hpp>
#include <segmed/semi/entropy_minimization.hpp>
#include <segmed/semi/fix_match.hpp>
#include <segmed/semi/interpolation_consistency.hpp>
#include <segmed/semi/mean_teacher.hpp>
#include <segmed/semi/mutual_consistency.hpp>
#include <segmed/semi/partial_completion.hpp>
#include <segmed/semi/pyramid_consistency.hpp>
#include <segmed/semi/regularized_dropout.hpp>
#include <segmed/semi/transform_consistency.hpp>
#include <segmed/semi/uncertainty_aware_mean_teacher.hpp>
#include <segmed/semi/uni_match.hpp>

using namespace trial;

namespace {

/// The share of a rank, in the order of the ranks.
Samples<F> shared(const Samples<F>& whole, const Ranks& ranks) {
  Grid grid = whole.image.grid();
  grid.cases /= ranks.size();
  const auto part = [&](const auto& all, Index per_case) {
    const auto first = all.begin() + ranks.rank() * grid.cases * per_case;
    return std::remove_cvref_t<decltype(all)>(first, first + grid.cases * per_case);
  };
  const auto map = [&](const F& x) {
    return F(grid, Storage<float, Cpu>(part(x.dense().value.host(), grid.voxels())));
  };
  return {map(whole.image),
          labels_of<Cpu>(grid, part(whole.labels.classes.host(), grid.voxels()),
                         part(whole.labels.annotated, 1)),
          map(whole.strong), part(whole.cases, 1)};
}

/// Of D_0 and D_1 `share` cases a rank. In D_1 one class, the other or none is annotated.
template <class Policy>
void check_policy(Policy policy, Index share, Net net = small_net()) {
  const Ranks ranks(world());
  const auto cases = std::size_t(share * ranks.size());
  std::vector<AnnotatedSet> some(cases);
  for (std::size_t n = 0; n < cases; ++n)
    if (n % 3 != 2) some[n] = AnnotatedSet{}.with(n % 3 == 0 ? 1 : 2);
  PolicyStep step(net, policy);
  step.full = made_up<F>(std::vector<AnnotatedSet>(cases, everything()), 1, {8, 8, 8});
  step.partial = made_up<F>(some, 2, {8, 8, 8});
  const double value = step.term();
  const auto gradient = step.gradient();
  CHECK(size_of(gradient) > 0);

  const RanksScope scope(ranks);
  step.full = shared(step.full, ranks), step.partial = shared(step.partial, ranks);
  CHECK(step.term() == doctest::Approx(value).epsilon(1e-5));
  const auto parts = ranks.gathered(step.gradient());
  std::vector<float> sum(gradient.size());
  for (std::size_t i = 0; i < parts.size(); ++i) sum[i % sum.size()] += parts[i];
  CHECK(distance(sum, gradient) < 2e-4);
}
/// With one case a rank and with two; `make(net)` gives the policy.
template <class Make>
void check_shares(Make make, Net net = small_net()) {
  for (const Index share : {1, 2}) check_policy(make(net), share, net);
}
/// Its terms stand in place of the labels'.
struct Pasting : CopyPaste<Net> {
  template <class Now>
  typename Now::Value loss(Now& now) {
    return supervised(now);
  }
};
}  // namespace

TEST_SUITE("distributed/policies") {
  TEST_CASE("teachers") {
    const Frozen<Net> teacher{small_net(2)};
    check_shares([&](const Net&) { return MeanTeacher<Net>{.teacher = teacher, .noise = 0.4f}; });
    check_shares([&](const Net&) {
      return UncertaintyAwareMeanTeacher<Net>{.teacher = teacher, .passes = 3, .noise = 0.4f};
    });
    check_shares([&](const Net&) {
      return PartialCompletion<Net>{.teacher = teacher, .confidence = 0.4f, .agree = {.weight = 2}};
    });
  }
  TEST_CASE("images are mixed with those of the next rank") {
    check_shares([](const Net&) {
      return InterpolationConsistency<Net>{.teacher = {small_net(2)}, .weight = 1, .shape = 1};
    });
  }
  TEST_CASE("boxes are pasted between the cases of all ranks") {
    Pasting policy{{.teacher = {small_net(2)}}};
    check_policy(policy, 2);
    policy.after = 1;  // mixtures within D_0
    check_policy(policy, 1);
    check_policy(policy, 2);
  }
  TEST_CASE("every rank changes its own cases as one process does") {
    check_shares([](const Net&) { return DeformationConsistency{.weight = 1, .cell = 4}; });
    check_shares([](const Net&) { return TransformConsistency{.weight = 1}; });
    check_shares([](const Net&) { return UniMatch{.confidence = 0.36f}; });
    check_shares([](const Net&) { return FixMatch{.weight = 1, .confidence = 0.36f}; });
  }
  TEST_CASE("features are dropped and spoilt case by case") {
    check_shares([](const Net&) { return RegularizedDropout{}; });
    check_shares([](const Net& net) { return CrossConsistency<Net>(net); });
  }
  TEST_CASE("terms of one answer, or of several of one network") {
    check_shares([](const Net&) { return EntropyMinimization{.weight = 1}; });
    check_shares([](const Net& net) { return MutualConsistency<Net>(net); });
    check_shares([](const Net&) { return PyramidConsistency{.weight = 1}; }, deep_net());
  }
  TEST_CASE("second heads, critics and networks") {
    check_shares([](const Net& net) {
      auto policy = DualTask<Net>::of(net, 3);
      policy.steepness = 20;  // as it is by default, rounding counts a hundred times
      return policy;
    });
    check_shares([](const Net&) { return Adversarial<Net>::of(3, 1, 2); });
    check_shares([](const Net& net) {
      return CrossPseudoSupervision<Net>{.second = with_other_start(net, 2), .weight = 1};
    });
    check_shares([](const Net& net) {
      return CrossTeaching<Net>{.second = with_other_start(net, 2), .weight = 1};
    });
  }
}
