// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/semi/interpolation_consistency.hpp>

using namespace trial;

namespace {

using Policy = InterpolationConsistency<Net>;
const auto make = [](const auto& net) {
  return InterpolationConsistency<std::remove_cvref_t<decltype(net)>>{.teacher = {net}};
};
/// Case n of x, or its mirror image along the last axis.
F one_case(const F& x, Index n, bool mirrored = false) {
  Grid grid = x.grid();
  const auto all = x.dense().value.host();
  grid.cases = 1;
  std::vector<float> values;
  for (Index v = 0; v < grid.voxels(); ++v) {
    const Index w = v % grid.width, from = mirrored ? v - w + grid.width - 1 - w : v;
    values.push_back(all[std::size_t(n * grid.voxels() + from)]);
  }
  return F(grid, Storage<float, Cpu>(values));
}
double expected(const Net& student, const Policy& policy, const F& image, const Ticks& at) {
  const Philox random{at.seed, Purpose::view, 0, at.step};
  const Index cases = image.grid().cases;
  double total = 0;
  for (Index n = 0; n < cases; ++n) {
    const double share = double(random.beta(n, policy.shape));
    const F a = one_case(image, n), b = one_case(image, (n + 1) % cases, cases == 1);
    auto mix = a.dense().value.host();
    const auto other = b.dense().value.host();
    for (std::size_t i = 0; i < mix.size(); ++i)
      mix[i] = float((1 - share) * double(mix[i]) + share * double(other[i]));
    auto target = probabilities(policy.teacher.module, a);
    const auto second = probabilities(policy.teacher.module, b);
    for (std::size_t i = 0; i < target.size(); ++i)
      target[i] = (1 - share) * target[i] + share * second[i];
    const auto mine = probabilities(student, F(a.grid(), Storage<float, Cpu>(mix)));
    total += mean_square_of(mine, target) / double(cases);
  }
  return total;
}

}  // namespace

TEST_SUITE("semi/interpolation_consistency") {
  TEST_CASE("the term is its formula, for batches of any size") {
    auto net = small_net(1);
    Policy policy{.teacher = {small_net(2)}, .weight = 1.4f, .shape = 1};
    for (const Index cases : {1, 2, 3}) {
      PolicyStep step(net, policy, unlabelled<F>(cases));
      const double mean = expected(net, policy, step.partial.image, step.clock.host());
      CHECK(step.term() == doctest::Approx(0.7 * mean).epsilon(2e-5));
    }
  }
  TEST_CASE("the gradient reaches the student alone") {
    auto net = small_net(1);
    Policy policy{.teacher = {small_net(2)}};
    PolicyStep step(net, policy, unlabelled<F>(2));
    CHECK(Index(step.group.params().size()) ==
          Index(Group<float, Cpu>(Role::frozen, policy).params().size()));
    const auto gradient = step.gradient();
    CHECK(std::any_of(gradient.begin(), gradient.end(), [](float g) { return g != 0; }));
  }
  TEST_CASE("two dimensions, erased networks, any number of threads, and stops") {
    check_flat_and_erased(make);
    check_threads(make);
    check_resumes(make);
  }
}
