// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/semi/fix_match.hpp>

using namespace trial;

namespace {

/// A network whose answers are now sure, now not.
Net outspoken() {
  auto net = small_net();
  for (auto& at : Inventory(net).leaves)
    if (at.path.starts_with("head")) {
      auto* head = dynamic_cast<F::P*>(at.leaf);
      REQUIRE(head != nullptr);
      auto values = head->value().host();
      for (float& x : values) x *= 3;
      head->value().assign(values);
    }
  return net;
}
/// Dice and cross-entropy of the strong view of two cases.
double expected(const Net& net, const Samples<F>& d1, const std::vector<std::uint8_t>& labels) {
  const auto p = probabilities(net, d1.strong);
  return dice(p, labels, 3, 2) + cross_entropy(p, labels, 3);
}

}  // namespace

TEST_SUITE("semi/fix_match") {
  TEST_CASE("the term is the loss of the strong view under the weak view's sure answers") {
    auto net = outspoken();
    FixMatch policy{.weight = 1.4f, .confidence = 0.6f};
    PolicyStep step(net, policy, unlabelled<F>(2));
    const auto labels = completed(step.partial.labels, host(net(step.partial.image)), 0.6);
    const auto doubtful = std::count(labels.begin(), labels.end(), ignored);
    CHECK(doubtful > 100);
    CHECK(doubtful < 924);  // of 1024
    CHECK(step.term() == doctest::Approx(0.7 * expected(net, step.partial, labels)).epsilon(2e-5));
  }
  TEST_CASE("doubtful voxels are ignored, not background") {
    auto net = outspoken();
    FixMatch policy{.confidence = 1};
    PolicyStep step(net, policy, unlabelled<F>(2));
    CHECK(step.term() == 0);
    for (const float g : step.gradient()) CHECK(g == 0);
  }
  TEST_CASE("what people drew stays as it is") {
    auto net = outspoken();
    FixMatch policy{.weight = 2, .confidence = 1};  // nothing else is a label
    PolicyStep step(net, policy, unlabelled<F>(2));
    std::vector<std::uint8_t> drawn(1024, 0);
    std::vector<std::uint8_t> labels(1024, ignored);
    for (std::size_t v = 0; v < 1024; v += 5) labels[v] = drawn[v] = 1;
    step.partial.labels = labels_of<Cpu>(step.partial.image.grid(), drawn,
                                         {AnnotatedSet{}.with(1), AnnotatedSet{}.with(1)});
    CHECK(step.term() == doctest::Approx(expected(net, step.partial, labels)).epsilon(2e-5));
  }
  TEST_CASE("the gradient goes through the strong view alone") {
    auto net = outspoken();
    FixMatch policy{.weight = 2, .confidence = 0.6f};
    PolicyStep step(net, policy, unlabelled<F>(2));
    const auto gradient = step.gradient();
    const auto labels = completed(step.partial.labels, host(net(step.partial.image)), 0.6);
    const auto known = labels_of<Cpu>(step.partial.image.grid(), labels, 3);
    step.group.clear_grads();
    backward(voxel_loss(step.loss, net(step.partial.strong), known));
    CHECK(distance(step.group.grads.host(), gradient) < 1e-6);
  }
  TEST_CASE("two dimensions, erased networks, any number of threads, and stops") {
    check_flat_and_erased([](const auto&) { return FixMatch{}; });
    check_threads([](const auto&) { return FixMatch{.confidence = 0.4f}; });
    check_resumes([](const auto&) { return FixMatch{.confidence = 0.4f}; });
  }
}
