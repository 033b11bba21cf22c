// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/semi/mean_teacher.hpp>

using namespace trial;

namespace {

using Policy = MeanTeacher<Net>;
const auto make = [](const auto& net) {
  return MeanTeacher<std::remove_cvref_t<decltype(net)>>{.teacher = {net}};
};
/// The image with the first noise that the step draws, cut off at two deviations.
F noisy(const F& image, const Ticks& at, float deviation) {
  const Philox random{at.seed, Purpose::noise, 0, at.step};
  auto values = image.dense().value.host();
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] += deviation * std::clamp(random.normal(Index(i)), -2.0f, 2.0f);
  return F(image.grid(), Storage<float, Cpu>(values));
}

}  // namespace

TEST_SUITE("semi/mean_teacher") {
  TEST_CASE("the term is the mean squared distance to what the teacher says under noise") {
    auto net = small_net(1);
    Policy policy{.teacher = {small_net(2)}, .weight = 1.4f, .noise = 0.5f};
    PolicyStep step(net, policy, unlabelled<F>(2));
    step.clock.set({.seed = 11, .step = 3, .progress = 0.2f, .ramp = 0.5f});
    const auto mine = probabilities(net, step.partial.image);
    const auto target =
        probabilities(policy.teacher.module, noisy(step.partial.image, step.clock.host(), 0.5f));
    double sum = 0;
    for (std::size_t i = 0; i < mine.size(); ++i)
      sum += (mine[i] - target[i]) * (mine[i] - target[i]);
    CHECK(step.term() == doctest::Approx(0.7 * sum / double(mine.size())).epsilon(1e-5));
  }
  TEST_CASE("the gradient reaches the student alone") {
    auto net = small_net(1);
    Policy policy{.teacher = {small_net(2)}};
    PolicyStep step(net, policy);
    CHECK(Index(step.group.params().size()) ==
          Index(Group<float, Cpu>(Role::frozen, policy).params().size()));
    const auto gradient = step.gradient();
    CHECK(std::any_of(gradient.begin(), gradient.end(), [](float g) { return g != 0; }));
  }
  TEST_CASE("the teacher is the mean of the first steps, then a slow average, and predicts") {
    auto net = small_net(1);
    for (const auto& [steps_before, keep] : {std::pair{0, 0.0}, {1, 0.5}, {3, 0.75}, {500, 0.9}}) {
      Policy policy{.teacher = {small_net(2)}, .keep = 0.9f};
      const auto before = weights_of(policy.teacher.module), student = weights_of(net);
      PolicyStep step(net, policy);
      step.clock.set({.seed = 3, .step = std::uint32_t(steps_before), .ramp = 1});
      auto now = step.now(net);
      policy.after_step(now);
      const auto after = weights_of(policy.teacher.module);
      REQUIRE(after.size() == student.size());
      for (std::size_t i = 0; i < after.size(); ++i)
        REQUIRE(double(after[i]) ==
                doctest::Approx(keep * double(before[i]) + (1 - keep) * double(student[i]))
                    .epsilon(1e-5));
      CHECK(&policy.predictor(net) == &policy.teacher.module);
    }
  }
  TEST_CASE("two dimensions, erased networks, any number of threads, and stops") {
    check_flat_and_erased(make);
    check_threads(make);
    check_resumes(make);
  }
}
