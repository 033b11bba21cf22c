// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/semi/uncertainty_aware_mean_teacher.hpp>

using namespace trial;

namespace {

using Policy = UncertaintyAwareMeanTeacher<Net>;
const auto make = [](const auto& net) {
  return UncertaintyAwareMeanTeacher<std::remove_cvref_t<decltype(net)>>{.teacher = {net}};
};
/// The noise that the n-th random op of the step draws.
F noisy(const F& image, const Ticks& at, std::uint32_t n, float deviation) {
  const Philox random{at.seed, Purpose::noise, n, at.step};
  auto values = image.dense().value.host();
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] +=
        std::fmax(-2 * deviation, std::fmin(2 * deviation, deviation * random.normal(Index(i))));
  return F(image.grid(), Storage<float, Cpu>(values));
}
/// The term by its formula, and how many voxels took part.
std::pair<double, double> expected(const Net& student, const Policy& policy, const F& image,
                                   const Ticks& at) {
  const auto mine = probabilities(student, image);
  Doubles target, mean(mine.size());
  for (std::uint32_t n = 0; n < std::uint32_t(policy.passes); ++n) {
    const auto p = probabilities(policy.teacher.module, noisy(image, at, n, policy.noise));
    if (n == 0) target = p;
    for (std::size_t i = 0; i < p.size(); ++i) mean[i] += p[i] / double(policy.passes);
  }
  const double rest = 1 - double(at.progress);
  const double bound = (0.75 + 0.25 * std::exp(-5 * rest * rest)) * std::log(3.0);
  double total = 0, voxels = 0;
  for (std::size_t v = 0; v < mean.size(); v += 3) {
    double entropy = 0;
    for (std::size_t c = 0; c < 3; ++c) entropy -= mean[v + c] * std::log(mean[v + c]);
    if (entropy >= bound) continue;
    ++voxels;
    for (std::size_t c = 0; c < 3; ++c)
      total += (mine[v + c] - target[v + c]) * (mine[v + c] - target[v + c]);
  }
  return {total / (3 * voxels), voxels};
}

}  // namespace

TEST_SUITE("semi/uncertainty_aware_mean_teacher") {
  TEST_CASE("the term is its formula, noise and mask drawn again") {
    auto net = small_net(1);
    Policy policy{.teacher = {small_net(2)}, .passes = 4, .weight = 1.4f, .noise = 0.5f};
    for (const float progress : {0.1f, 0.8f}) {
      PolicyStep step(net, policy, unlabelled<F>(2));
      step.clock.set({.seed = 11, .step = 3, .progress = progress, .ramp = 0.5f});
      const auto [mean, voxels] = expected(net, policy, step.partial.image, step.clock.host());
      CHECK(voxels > 100);
      CHECK(voxels < 1000);  // of 1024
      CHECK(step.term() == doctest::Approx(0.7 * mean).epsilon(1e-5));
    }
  }
  TEST_CASE("the bound follows the number of classes") {
    // Three classes, two of them equally probable: an entropy of ln 2, below 3/4 of ln 3. A bound
    // made of ln 2 would let nobody in.
    const Clock<Cpu> clock;
    const Grid grid{1, 1, 1, 3, 3};
    const F total(grid,
                  Storage<float, Cpu>(std::vector<float>{1, 1, 0, 0.66f, 0.67f, 0.67f, 2, 0, 0}));
    CHECK(certain(total, 2, clock.ticks()).dense().value.host() == std::vector<float>{1, 0, 1});
  }
  TEST_CASE("the gradient reaches the student alone, and not where the teacher is undecided") {
    auto net = small_net(1);
    Policy policy{.teacher = {small_net(2)}, .passes = 2, .noise = 0.5f};
    PolicyStep step(net, policy, unlabelled<F>(2));
    CHECK(Index(step.group.params().size()) ==
          Index(Group<float, Cpu>(Role::frozen, policy).params().size()));
    const auto gradient = step.gradient();
    CHECK(std::any_of(gradient.begin(), gradient.end(), [](float g) { return g != 0; }));
    // Logits that are zero everywhere decide nothing.
    for (auto& at : Inventory(policy.teacher.module).leaves)
      if (at.path.starts_with("head")) {
        auto* head = dynamic_cast<F::P*>(at.leaf);
        REQUIRE(head != nullptr);
        head->value().assign(std::vector<float>(std::size_t(head->size())));
      }
    CHECK(step.term() == 0);
    for (const float g : step.gradient()) CHECK(g == 0);
  }
  TEST_CASE("noise is cut off where it is told to be") {
    const F zero(Grid{1, 8, 8, 8, 1}, Storage<float, Cpu>(512, 0.0f));
    float most = 0;
    for (const float x : add_noise(zero, 0.5f, 0.75f).dense().value.host())
      most = std::max(most, std::abs(x));
    CHECK(most == 0.75f);
  }
  TEST_CASE("two dimensions, erased networks, any number of threads, and stops") {
    check_flat_and_erased(make);
    check_threads(make);
    check_resumes(make);
  }
}
