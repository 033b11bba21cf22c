// SPDX-License-Identifier: Apache-2.0
#include "reference.hpp"
#include <segmed/losses/composition.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/region.hpp>

using namespace check;

TEST_SUITE("losses/composition") {
  TEST_CASE("a sum is the sum of its parts, in value and in gradient") {
    const Batch b = Batch::random({2, 3, 4, 5, 3});
    const auto sum = Sum{Dice{}, Sum{Weighted{0.5f, CrossEntropy{}}, Weighted{3.f, Tversky{}}}};
    CHECK(b.value(sum) ==
          doctest::Approx(b.value(Dice{}) + 0.5 * b.value(CrossEntropy{}) + 3 * b.value(Tversky{}))
              .epsilon(1e-12));
    CHECK(b.gradient_error(sum) < 1e-7);
    const auto whole = b.gradient(sum), dice = b.gradient(Dice{}),
               entropy = b.gradient(CrossEntropy{}), tversky = b.gradient(Tversky{});
    for (std::size_t i = 0; i < whole.size(); ++i)
      CHECK(whole[i] == doctest::Approx(dice[i] + 0.5 * entropy[i] + 3 * tversky[i]).epsilon(1e-9));
  }
  TEST_CASE("softmax and sigmoid losses add up in one pass") {
    const Batch b = Batch::random({2, 3, 4, 5, 3});
    const auto sum = Sum{Independent{CrossEntropy{}}, BinaryCrossEntropy{}};
    CHECK(b.value(sum) ==
          doctest::Approx(b.value(Independent{CrossEntropy{}}) + b.value(BinaryCrossEntropy{}))
              .epsilon(1e-12));
    CHECK(b.gradient_error(sum) < 1e-7);
    CHECK(b.gradient_error(Sum{Independent{Dice{}}, BinaryCrossEntropy{}}) < 1e-7);
  }
  TEST_CASE("Independent sees sigmoids, and only classes that the labels know") {
    const Batch b = partial_batch();
    double total = 0, regions = 0;
    for (Index n = 0; n < 3; ++n)
      for (Index c = 0; c < 4; ++c) {
        if (c == 0 ? !b.complete(n) : !b.set(n).has(c)) continue;
        double overlap = 0, sizes = 0;
        for (Index v = 0; v < b.grid.voxels(); ++v) {
          if (b.label(n, v) == ignored) continue;
          const double p = 1 / (1 + std::exp(-b.logit(n, v, c))), g = b.label(n, v) == c ? 1 : 0;
          overlap += p * g, sizes += p + g;
        }
        total += 1 - (2 * overlap + 1) / (sizes + 1), regions += 1;
      }
    const auto loss = Independent{Dice{.smooth = 1, .include_background = true}};
    CHECK(b.value(loss) == doctest::Approx(total / regions).epsilon(1e-12));
    CHECK(b.gradient_error(loss) < 1e-7);
  }
}
