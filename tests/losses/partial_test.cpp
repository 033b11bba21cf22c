// SPDX-License-Identifier: Apache-2.0
#include "reference.hpp"
#include <segmed/losses/composition.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/partial.hpp>
#include <segmed/losses/region.hpp>

using namespace check;

namespace {

double marginal_cross_entropy(const Batch& b) {
  double total = 0, voxels = 0;
  for (Index n = 0; n < b.grid.cases; ++n)
    for (Index v = 0; v < b.grid.voxels(); ++v) {
      if (b.set(n).none() || b.label(n, v) == ignored) continue;
      total -= std::log(b.joined(n, v, b.label(n, v))), voxels += 1;
    }
  return total / voxels;
}
double marginal_dice(const Batch& b, Index first) {
  double total = 0, regions = 0;
  for (Index n = 0; n < b.grid.cases; ++n)
    for (Index c = first; c < b.grid.channels; ++c) {
      if (b.set(n).none() || !b.set(n).has(c)) continue;
      double overlap = 0, sizes = 0;
      for (Index v = 0; v < b.grid.voxels(); ++v) {
        if (b.label(n, v) == ignored) continue;
        const double q = b.joined(n, v, c), g = b.label(n, v) == c ? 1 : 0;
        overlap += q * g, sizes += q + g;
      }
      total += 1 - (2 * overlap + double(1e-5f)) / (sizes + double(1e-5f)), regions += 1;
    }
  return total / regions;
}
double exclusion(const Batch& b) {
  double total = 0, regions = 0;
  for (Index n = 0; n < b.grid.cases; ++n)
    for (Index c = 1; c < b.grid.channels; ++c) {
      if (b.set(n).none() || b.set(n).has(c)) continue;
      double overlap = 0, sizes = 0;
      for (Index v = 0; v < b.grid.voxels(); ++v) {
        if (b.label(n, v) == ignored) continue;
        const double p = b.p(n, v, c), organs = b.label(n, v) != 0 ? 1 : 0;
        overlap += p * organs, sizes += p + organs;
      }
      total += 2 * overlap / (sizes + double(1e-5f)), regions += 1;
    }
  return total / regions;
}
/// Each class by its sigmoid, of annotated ones.
double sigmoid(const Batch& b, Index n, Index v, Index c) {
  return 1 / (1 + std::exp(-b.logit(n, v, c)));
}
double independent_dice(const Batch& b) {
  double total = 0, regions = 0;
  for (Index n = 0; n < b.grid.cases; ++n)
    for (Index c = 1; c < b.grid.channels; ++c) {
      if (!b.set(n).has(c)) continue;
      double overlap = 0, sizes = 0;
      for (Index v = 0; v < b.grid.voxels(); ++v) {
        const double q = sigmoid(b, n, v, c), g = b.label(n, v) == c ? 1 : 0;
        overlap += q * g, sizes += q + g;
      }
      total += 1 - (2 * overlap + double(1e-5f)) / (sizes + double(1e-5f)), regions += 1;
    }
  return total / regions;
}
double independent_entropy(const Batch& b) {
  double total = 0, voxels = 0;
  for (Index n = 0; n < b.grid.cases; ++n)
    for (Index c = 1; c < b.grid.channels; ++c)
      for (Index v = 0; v < b.grid.voxels() && b.set(n).has(c); ++v) {
        const double q = sigmoid(b, n, v, c);
        total -= std::log(b.label(n, v) == c ? q : 1 - q), voxels += 1;
      }
  return total / voxels;
}
/// Calls f(n, v, slope of class c in voxel v of case n as a function of c).
template <class F>
void each_voxel(const Batch& b, const std::vector<double>& slopes, F f) {
  for (Index n = 0; n < b.grid.cases; ++n)
    for (Index v = 0; v < b.grid.voxels(); ++v)
      f(n, v, [&, n, v](Index c) {
        return slopes[std::size_t((n * b.grid.voxels() + v) * b.grid.channels + c)];
      });
}
/// What the joined background says of its classes pushes or pulls each by its part of it: which of
/// them it is, is free.
void check_free(const Batch& b, Index n, Index v, double background, double unknown) {
  const double part = b.p(n, v, unknown_class(n)) / b.p(n, v, 0);
  CHECK(unknown == doctest::Approx(part * background).epsilon(1e-9));
}
const auto whole = Sum{Marginal{Sum{Dice{}, CrossEntropy{}}}, Weighted{2.f, Exclusion{}}};

}  // namespace

TEST_SUITE("losses/partial") {
  TEST_CASE("marginal losses are their formulas, case by case") {
    const Batch b = partial_batch();
    CHECK(b.value(Marginal{CrossEntropy{}}) ==
          doctest::Approx(marginal_cross_entropy(b)).epsilon(1e-12));
    CHECK(b.value(Marginal{Dice{}}) == doctest::Approx(marginal_dice(b, 1)).epsilon(1e-12));
    CHECK(b.value(Marginal{Dice::monai()}) == doctest::Approx(marginal_dice(b, 0)).epsilon(1e-12));
    CHECK(b.value<Single>(Marginal{CrossEntropy{}}) ==
          doctest::Approx(marginal_cross_entropy(b)).epsilon(1e-6));
    CHECK(b.gradient_error(Marginal{CrossEntropy{}}) < 1e-7);
    CHECK(b.gradient_error(Marginal{Dice::monai()}) < 1e-7);
    CHECK(b.gradient_error(Marginal{Focal{}}) < 1e-6);
    CHECK(b.gradient_error(Marginal{Dice::nnunet(true)}) < 1e-7);
  }
  TEST_CASE("exclusion is the overlap of unmerged predictions with the annotated organs") {
    const Batch b = partial_batch();
    CHECK(b.value(Exclusion{}) == doctest::Approx(exclusion(b)).epsilon(1e-12));
    CHECK(b.gradient_error(Exclusion{}) < 1e-7);
    CHECK(Batch::random({2, 2, 2, 2, 3}).value(Exclusion{}) == 0);
  }
  TEST_CASE("marginal and exclusion in one pass see a softmax each") {
    const Batch b = partial_batch();
    const double expected = marginal_dice(b, 1) + marginal_cross_entropy(b) + 2 * exclusion(b);
    CHECK(b.value(whole) == doctest::Approx(expected).epsilon(1e-12));
    CHECK(b.value<Single>(whole) == doctest::Approx(expected).epsilon(1e-6));
    CHECK(b.gradient_error(whole) < 1e-7);
  }
  TEST_CASE("an absent class is pushed down everywhere, one that nobody annotated is background") {
    const Batch b = absent_batch();
    check_is(Marginal{CrossEntropy{}}, marginal_cross_entropy, b);
    each_voxel(b, b.gradient(Marginal{CrossEntropy{}}), [&](Index n, Index v, auto slope) {
      CHECK(slope(absent_class(n)) > 0);
      CHECK((slope(unknown_class(n)) < 0) == (b.label(n, v) == 0));
      check_free(b, n, v, slope(0), slope(unknown_class(n)));
    });
    check_is(
        Marginal{Dice{}}, [](const Batch& x) { return marginal_dice(x, 1); }, b);
    each_voxel(b, b.gradient(Marginal{Dice{}}), [&](Index n, Index v, auto slope) {
      check_free(b, n, v, slope(0), slope(unknown_class(n)));
    });
    // Dice of absent classes alone: all of the slope is their own.
    Batch none = b;
    none.y.assign(b.y.size(), 0);
    none.annotated = {AnnotatedSet{}.with(2), AnnotatedSet{}.with(3)};
    check_is(
        Marginal{Dice{}}, [](const Batch& x) { return marginal_dice(x, 1); }, none);
    each_voxel(none, none.gradient(Marginal{Dice{}}), [&](Index n, Index v, auto slope) {
      CHECK(slope(absent_class(n)) > 0);
      CHECK(slope(unknown_class(n)) < 0);
      check_free(none, n, v, slope(0), slope(unknown_class(n)));
    });
  }
  TEST_CASE("exclusion keeps away what nobody annotated, and says nothing of an absent class") {
    const Batch b = absent_batch();
    check_is(Exclusion{}, exclusion, b);
    each_voxel(b, b.gradient(Exclusion{}), [&](Index n, Index v, auto slope) {
      // Elsewhere, a larger prediction makes the overlap a smaller part.
      CHECK((slope(unknown_class(n)) > 0) == (b.label(n, v) != 0));
      // What an absent class gains or loses, it does as all others that the softmax leaves.
      const double part = b.p(n, v, absent_class(n)) / b.p(n, v, 0);
      CHECK(slope(absent_class(n)) == doctest::Approx(part * slope(0)).epsilon(1e-9));
    });
  }
  TEST_CASE("by sigmoids, an absent class is pushed down and one that nobody annotated is left") {
    const Batch b = absent_batch();
    const BinaryCrossEntropy entropy{.include_background = false};
    check_is(Independent{Dice{}}, independent_dice, b);
    check_is(entropy, independent_entropy, b);
    for (const auto& slopes : {b.gradient(Independent{Dice{}}), b.gradient(entropy)})
      each_voxel(b, slopes, [&](Index n, Index, auto slope) {
        CHECK(slope(absent_class(n)) > 0);
        CHECK(slope(unknown_class(n)) == 0);
        CHECK(slope(0) == 0);
      });
  }
  TEST_CASE("where all classes are annotated, Marginal is the loss itself, to the bit") {
    const Batch b = Batch::random({2, 5, 6, 7, 4});
    const auto plain = Sum{Dice{}, CrossEntropy{}};
    CHECK(b.value(Marginal{plain}) == b.value(plain));
    CHECK(b.value<Single>(Marginal{plain}) == b.value<Single>(plain));
    CHECK(b.gradient(Marginal{plain}) == b.gradient(plain));
    CHECK(b.gradient<Single>(Marginal{plain}) == b.gradient<Single>(plain));
    CHECK(b.gradient(whole) == b.gradient(plain));
  }
  TEST_CASE("a case without annotated classes changes nothing and gets no gradient") {
    Batch b = partial_batch();
    const auto gradient = b.gradient(whole);
    const double value = b.value(whole);
    const std::size_t quarter = b.z.size() / 4;
    for (std::size_t i = 3 * quarter; i < b.z.size(); ++i) {
      CHECK(gradient[i] == 0);
      b.z[i] = -b.z[i];
    }
    CHECK(b.value(whole) == value);
    b.annotated.assign(4, {});
    CHECK(b.value(whole) == 0);
    for (const double slope : b.gradient(whole)) CHECK(slope == 0);
  }
  TEST_CASE("a label whose class is not annotated counts as background") {
    Batch b = partial_batch(), shown = b;
    for (Index i = 0; i < 5; ++i) b.y[std::size_t(i)] = 0, shown.y[std::size_t(i)] = 2;
    CHECK(b.value(whole) == shown.value(whole));
  }
  TEST_CASE("extreme logits give finite losses and slopes") {
    Batch b = partial_batch();
    for (double& z : b.z) z = z > 0 ? 1e4 : -1e4;
    for (const double slope : b.gradient(whole)) CHECK(std::isfinite(slope));
    for (const float slope : b.gradient<Single>(whole)) CHECK(std::isfinite(slope));
    CHECK(std::isfinite(b.value(whole)));
    CHECK(b.value<Single>(whole) == doctest::Approx(b.value(whole)).epsilon(1e-6));
    // All of the joined background far below: its softmax is zero, its logarithm is not.
    Batch low = Batch::random({1, 1, 1, 1, 3}, {AnnotatedSet{}.with(1)});
    low.z = {-1e4, 0, -1e4}, low.y = {0};
    CHECK(low.value<Single>(Marginal{CrossEntropy{}}) == doctest::Approx(1e4 - std::log(2)));
    const auto slopes = low.gradient<Single>(Marginal{CrossEntropy{}});
    CHECK(slopes[0] == doctest::Approx(-0.5));
    CHECK(slopes[1] == doctest::Approx(1));
    CHECK(slopes[2] == doctest::Approx(-0.5));
  }
}
