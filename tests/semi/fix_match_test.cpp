// SPDX-License-Identifier: Apache-2.0
#include "policy_trial.hpp"
#include "step_by_hand.hpp"
#include <segmed/semi/fix_match.hpp>

using namespace one_step;

namespace {

/// A network whose answers are now sure, now not.
Net<F3> outspoken() {
  auto net = small_net<F3>();
  for (auto& at : Inventory(net).leaves)
    if (at.path.starts_with("head")) {
      auto* head = dynamic_cast<F3::P*>(at.leaf);
      REQUIRE(head != nullptr);
      auto values = head->value().host();
      for (float& x : values) x *= 3;
      head->value().assign(values);
    }
  return net;
}
/// Dice and cross-entropy by plain loops, over the voxels that are not ignored.
double expected(const std::vector<double>& p, const std::vector<int>& labels, std::size_t cases) {
  const std::size_t voxels = labels.size() / cases;
  double log_loss = 0, counted = 0, dice = 0;
  for (std::size_t n = 0; n < cases; ++n) {
    double overlap[3] = {}, size[3] = {};
    for (std::size_t v = n * voxels; v < (n + 1) * voxels; ++v) {
      if (labels[v] == ignored) continue;
      for (int c = 0; c < 3; ++c) {
        const double x = p[v * 3 + std::size_t(c)];
        overlap[c] += labels[v] == c ? x : 0;
        size[c] += x + (labels[v] == c ? 1 : 0);
        log_loss -= labels[v] == c ? std::log(x) : 0;
      }
      ++counted;
    }
    for (int c = 1; c < 3; ++c)
      dice += (1 - (2 * overlap[c] + 1e-5) / (size[c] + 1e-5)) / double(2 * cases);
  }
  return dice + (counted > 0 ? log_loss / counted : 0);
}
std::vector<int> confident(const std::vector<double>& p, double confidence) {
  std::vector<int> labels;
  for (std::size_t v = 0; v < p.size(); v += 3) {
    const auto best = std::max_element(p.begin() + long(v), p.begin() + long(v) + 3);
    labels.push_back(*best < confidence ? ignored : int(best - p.begin() - long(v)));
  }
  return labels;
}

}  // namespace

TEST_SUITE("semi/fix_match") {
  TEST_CASE("the term is the loss of the strong view under the weak view's sure answers") {
    auto net = outspoken();
    FixMatch policy{.weight = 0.7f, .confidence = 0.6f};
    Step step(net, policy, samples<F3>(2, false, 4));
    const auto labels = confident(probabilities(net, step.partial.image), 0.6);
    const auto doubtful = std::count(labels.begin(), labels.end(), int(ignored));
    CHECK(doubtful > 100);
    CHECK(doubtful < 924);  // of 1024
    const auto p = probabilities(net, step.partial.strong);
    CHECK(step.term() == doctest::Approx(0.7 * expected(p, labels, 2)).epsilon(2e-5));
  }
  TEST_CASE("doubtful voxels are ignored, not background") {
    auto net = outspoken();
    FixMatch policy{.confidence = 1};
    Step step(net, policy, samples<F3>(2, false, 4));
    CHECK(step.term() == 0);
    for (const float g : step.gradient()) CHECK(g == 0);
  }
  TEST_CASE("what people drew stays as it is") {
    auto net = outspoken();
    FixMatch policy{.weight = 1, .confidence = 1};  // nothing else is a label
    Step step(net, policy, samples<F3>(2, false, 4));
    std::vector<std::uint8_t> drawn(1024, 0);
    std::vector<int> labels(1024, int(ignored));
    for (std::size_t v = 0; v < 1024; v += 5) labels[v] = drawn[v] = 1;
    step.partial.labels = labels_of<Cpu>(step.partial.image.grid(), drawn,
                                         {AnnotatedSet{}.with(1), AnnotatedSet{}.with(1)});
    const auto p = probabilities(net, step.partial.strong);
    CHECK(step.term() == doctest::Approx(expected(p, labels, 2)).epsilon(2e-5));
  }
  TEST_CASE("the gradient goes through the strong view alone") {
    auto net = outspoken();
    FixMatch policy{.weight = 1, .confidence = 0.6f};
    Step step(net, policy, samples<F3>(2, false, 4));
    const auto gradient = step.gradient();
    const auto labels = confident(probabilities(net, step.partial.image), 0.6);
    const auto known = labels_of<Cpu>(step.partial.image.grid(),
                                      std::vector<std::uint8_t>(labels.begin(), labels.end()), 3);
    step.group.clear_grads();
    backward(voxel_loss(step.loss, net(step.partial.strong), known));
    CHECK(distance(step.group.grads.host(), gradient) < 1e-6);
    step.partial.strong = {};
    CHECK_THROWS_AS(step.term(), DataError);
  }
  TEST_CASE("two dimensions, erased networks, any number of threads, and stops") {
    check_flat_and_erased([](const auto&) { return FixMatch{}; });
    check_threads([](const auto&) { return FixMatch{.confidence = 0.4f}; });
    trial::check_resumes([](const auto&) { return FixMatch{.confidence = 0.4f}; });
  }
}
