// SPDX-License-Identifier: Apache-2.0
#include <functional>

#include "../autograd/oracle.hpp"
#include "reference.hpp"
#include <segmed/losses/region.hpp>

using namespace check;

namespace {

struct Counts {
  double overlap = 0, predicted = 0, drawn = 0;
};
Counts counts_of(const Batch& b, Index from, Index to, Index c, bool squared) {
  Counts sums;
  for (Index n = from; n < to; ++n)
    for (Index v = 0; v < b.grid.voxels(); ++v) {
      if (b.label(n, v) == ignored) continue;
      const double p = b.p(n, v, c), g = b.label(n, v) == c ? 1 : 0;
      sums.overlap += p * g, sums.predicted += squared ? p * p : p, sums.drawn += g;
    }
  return sums;
}
using Score = std::function<double(const Counts&)>;
double mean_loss(const Batch& b, Index first, bool batch, bool squared, const Score& score) {
  double total = 0, regions = 0;
  for (Index c = first; c < b.grid.channels; ++c)
    for (Index n = 0; n < (batch ? 1 : b.grid.cases); ++n) {
      total += 1 - score(counts_of(b, n, batch ? b.grid.cases : n + 1, c, squared));
      regions += 1;
    }
  return total / regions;
}
double dice_of(const Counts& s, double smooth) {
  return (2 * s.overlap + smooth) / (s.predicted + s.drawn + smooth);
}
Oracle::Array array_of(const Batch& b) {
  return {{b.grid.cases, b.grid.depth, b.grid.height, b.grid.width, b.grid.channels}, b.z};
}
Oracle::Array labels_array(const Batch& b) {
  return {{b.grid.cases, b.grid.depth, b.grid.height, b.grid.width}, {b.y.begin(), b.y.end()}};
}

}  // namespace

TEST_SUITE("losses/region") {
  TEST_CASE("Dice is its formula, in every option") {
    const Batch b = Batch::random({2, 3, 4, 5, 3});
    for (const bool squared : {false, true})
      for (const bool batch : {false, true})
        for (const bool background : {false, true}) {
          const Dice dice{
              .smooth = 0.3f, .squared = squared, .batch = batch, .include_background = background};
          const double expected = mean_loss(b, background ? 0 : 1, batch, squared,
                                            [](const Counts& s) { return dice_of(s, 0.3f); });
          CHECK(b.value(dice) == doctest::Approx(expected).epsilon(1e-12));
          CHECK(b.value<Single>(dice) == doctest::Approx(expected).epsilon(1e-6));
          CHECK(b.gradient_error(dice) < 1e-7);
        }
  }
  TEST_CASE("the presets are those of MONAI and nnU-Net") {
    const Batch b = Batch::random({2, 1, 7, 5, 4});
    const auto score = [](const Counts& s) { return dice_of(s, 1e-5f); };
    const auto near = [](double x) { return doctest::Approx(x).epsilon(1e-12); };
    CHECK(b.value<Flat>(Dice::monai()) == near(mean_loss(b, 0, false, false, score)));
    CHECK(b.value<Flat>(Dice::nnunet()) == near(mean_loss(b, 1, false, false, score) - 1));
    CHECK(b.value<Flat>(Dice::nnunet(true)) == near(mean_loss(b, 1, true, false, score) - 1));
    CHECK(b.gradient_error<Flat>(Dice::nnunet(true)) < 1e-7);
  }
  TEST_CASE("Tversky is its formula, and Dice for 0.5 and 0.5") {
    const Batch b = Batch::random({2, 3, 4, 5, 3});
    const Tversky tversky{.alpha = 0.3f, .beta = 0.7f, .smooth = 1};
    const double expected = mean_loss(b, 1, false, false, [](const Counts& s) {
      const double excess = s.predicted - s.overlap, missed = s.drawn - s.overlap;
      return (s.overlap + 1) / (s.overlap + double(0.3f) * excess + double(0.7f) * missed + 1);
    });
    CHECK(b.value(tversky) == doctest::Approx(expected).epsilon(1e-12));
    CHECK(b.gradient_error(tversky) < 1e-7);
    CHECK(b.gradient_error(Tversky{.alpha = 0.2f, .beta = 0.5f, .batch = true}) < 1e-7);
    CHECK(b.value(Tversky{.smooth = 0.5f}) ==
          doctest::Approx(b.value(Dice{.smooth = 1})).epsilon(1e-12));
  }
  TEST_CASE("a perfect prediction costs nothing") {
    Batch b = Batch::random({2, 3, 4, 5, 3});
    for (std::size_t i = 0; i < b.z.size(); ++i) b.z[i] = b.y[i / 3] == i % 3 ? 1e4 : -1e4;
    CHECK(b.value(Dice{}) == doctest::Approx(0));
    CHECK(b.value(Dice::nnunet()) == doctest::Approx(-1));
    CHECK(b.value<Single>(Tversky{}) == doctest::Approx(0));
  }
  TEST_CASE("a class that is absent and not predicted costs nothing, without smoothing as well") {
    Batch b = Batch::random({1, 2, 2, 2, 3});
    for (auto& label : b.y) label = 0;
    for (std::size_t i = 0; i < b.z.size(); ++i) b.z[i] = i % 3 == 0 ? 2000 : -2000;
    CHECK(b.value(Dice{.smooth = 0}) == doctest::Approx(0));
    for (const double slope : b.gradient(Dice{.smooth = 0})) CHECK(slope == 0);
  }
  TEST_CASE("Dice and its gradient are PyTorch's") {
    if (no_torch()) return;
    Batch b = Batch::random({2, 3, 4, 5, 4});
    for (auto& label : b.y) label = label == ignored ? 0 : label;
    const auto expected = Oracle::current()->ask(
        "(lambda p, g: (1 - (2*(p*g).sum((1,2,3)) + 1e-5) / ((p+g).sum((1,2,3)) + 1e-5)).mean())"
        "(x[0].softmax(-1), f.one_hot(x[1].detach().long(), 4))",
        {array_of(b), labels_array(b)}, {1}, false);
    CHECK(b.value(Dice::monai()) == doctest::Approx(expected[0][0]).epsilon(1e-9));
    CHECK(distance(b.gradient(Dice::monai()), expected[1]) < 1e-8);
    CHECK(distance(wide(b.gradient<Single>(Dice::monai())), expected[1]) < 1e-5);
  }
}
