// SPDX-License-Identifier: Apache-2.0
#include "reference.hpp"
#include <segmed/losses/composition.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/leaf_dice.hpp>
#include <segmed/losses/partial.hpp>

using namespace check;

namespace {

/// A voxel names a leaf: one class, and not a set of which background is one.
bool leaf(const Batch& b, Index n, int label) { return label != 0 || b.complete(n); }

double leaf_dice(const Batch& b) {
  double total = 0, cases = 0;
  for (Index n = 0; n < b.grid.cases; ++n) {
    if (b.set(n).none()) continue;
    double score = 0;
    for (Index c = 0; c < b.grid.channels; ++c) {
      double overlap = 0, sizes = 0;
      for (Index v = 0; v < b.grid.voxels(); ++v) {
        const int label = b.label(n, v);
        if (label == ignored) continue;
        const double p = b.p(n, v, c), g = label == c && leaf(b, n, label) ? 1 : 0;
        overlap += p * g, sizes += p * p + g * g;
      }
      score += 2 * overlap / (sizes + double(1e-5f));
    }
    total += 1 - score / double(b.grid.channels), ++cases;
  }
  return total / cases;
}

}  // namespace

TEST_SUITE("losses/leaf_dice") {
  TEST_CASE("leaf Dice is its formula, with and without partial labels") {
    for (const Batch& b : {partial_batch(), Batch::random({2, 2, 3, 5, 4})}) {
      CHECK(b.value(LeafDice{}) == doctest::Approx(leaf_dice(b)).epsilon(1e-12));
      CHECK(b.value<Single>(LeafDice{}) == doctest::Approx(leaf_dice(b)).epsilon(1e-6));
      CHECK(b.gradient_error(LeafDice{}) < 1e-7);
    }
  }
  TEST_CASE("what is sure but unknown costs the same, whichever class of the set it is") {
    // Three voxels: background, class 1, and a class of which nobody looked for 2 and 3.
    Batch b = Batch::random({1, 1, 1, 3, 4}, {AnnotatedSet{}.with(1)});
    b.y = {0, 1, 0};
    b.z = {100, 0, 0, 0, 0, 100, 0, 0, 0, 0, 100, 0};
    const double one = b.value(LeafDice{});
    b.z = {100, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 100};
    CHECK(b.value(LeafDice{}) == doctest::Approx(one).epsilon(1e-12));
    CHECK(one == doctest::Approx(0.75).epsilon(1e-5));  // class 1 of four is right
    b.z = {100, 0, 0, 0, 0, 100, 0, 0, 0, 100, 0, 0};
    CHECK(b.value(LeafDice{}) > one + 0.05);  // class 1 where the label says it is not
  }
  TEST_CASE("a class without a voxel has no slope of its own; with the entropy, absent goes down") {
    const Batch b = absent_batch();
    check_is(LeafDice{}, leaf_dice, b);
    const auto alone = b.gradient(LeafDice{});
    const auto sum = Sum{LeafDice{}, Marginal{CrossEntropy{}}};
    const auto slopes = b.gradient(sum), entropy = b.gradient(Marginal{CrossEntropy{}});
    for (Index n = 0; n < b.grid.cases; ++n)
      for (Index v = 0; v < b.grid.voxels(); ++v) {
        const std::size_t at = std::size_t((n * b.grid.voxels() + v) * b.grid.channels);
        const auto absent = at + std::size_t(absent_class(n)),
                   unknown = at + std::size_t(unknown_class(n));
        // Both get what the softmax hands on of the slopes of others.
        const double part = b.p(n, v, absent_class(n)) / b.p(n, v, unknown_class(n));
        CHECK(alone[absent] == doctest::Approx(part * alone[unknown]).epsilon(1e-9));
        CHECK(entropy[absent] > 0);
        CHECK(slopes[absent] == doctest::Approx(alone[absent] + entropy[absent]).epsilon(1e-9));
        CHECK(slopes[absent] * b.p(n, v, unknown_class(n)) >
              slopes[unknown] * b.p(n, v, absent_class(n)) - 1e-15);
      }
  }
  TEST_CASE("a case without annotated classes changes nothing, and only such give zero") {
    Batch b = partial_batch();
    const double value = b.value(LeafDice{});
    const auto slopes = b.gradient(LeafDice{});
    for (std::size_t i = 3 * b.z.size() / 4; i < b.z.size(); ++i) {
      CHECK(slopes[i] == 0);
      b.z[i] = -b.z[i];
    }
    CHECK(b.value(LeafDice{}) == value);
    b.annotated.assign(4, {});
    CHECK(b.value(LeafDice{}) == 0);
  }
  TEST_CASE("leaf Dice and the marginal cross-entropy add up in one pass") {
    const Batch b = partial_batch();
    const auto entropy = Weighted{0.5f, Marginal{CrossEntropy{}}};
    const auto sum = Sum{LeafDice{}, entropy};
    CHECK(b.value(sum) == doctest::Approx(b.value(LeafDice{}) + b.value(entropy)).epsilon(1e-12));
    CHECK(b.gradient_error(sum) < 1e-7);
  }
}
