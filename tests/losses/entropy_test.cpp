// SPDX-License-Identifier: Apache-2.0
#include "../autograd/oracle.hpp"
#include "reference.hpp"
#include <segmed/losses/entropy.hpp>

using namespace check;

namespace {

/// The mean over voxels with a label of weight(label) * term(p of the label).
template <class Term>
double mean_over_voxels(const Batch& b, const std::vector<double>& weights, Term term) {
  double total = 0, sum = 0;
  for (Index n = 0; n < b.grid.cases; ++n)
    for (Index v = 0; v < b.grid.voxels(); ++v) {
      const int label = b.label(n, v);
      if (label == ignored) continue;
      total += weights[std::size_t(label)] * term(b.p(n, v, label));
      sum += weights[std::size_t(label)];
    }
  return total / sum;
}

}  // namespace

TEST_SUITE("losses/entropy") {
  TEST_CASE("cross-entropy is its formula, with and without weights") {
    const Batch b = Batch::random({2, 3, 4, 5, 3});
    const auto term = [](double p) { return -std::log(p); };
    const double plain = mean_over_voxels(b, {1, 1, 1}, term);
    CHECK(b.value(CrossEntropy{}) == doctest::Approx(plain).epsilon(1e-12));
    CHECK(b.value<Single>(CrossEntropy{}) == doctest::Approx(plain).epsilon(1e-6));
    CHECK(b.gradient_error(CrossEntropy{}) < 1e-7);
    const CrossEntropy weighted{.weights = {0.5f, 2}};  // 1 for the third
    CHECK(b.value(weighted) ==
          doctest::Approx(mean_over_voxels(b, {0.5, 2, 1}, term)).epsilon(1e-12));
    CHECK(b.gradient_error(weighted) < 1e-7);
  }
  TEST_CASE("focal is its formula, and cross-entropy for gamma 0") {
    const Batch b = Batch::random({2, 1, 4, 5, 3});
    for (const float gamma : {0.5f, 1.0f, 2.0f, 3.5f}) {
      const double expected = mean_over_voxels(
          b, {1, 1, 1}, [&](double p) { return -std::pow(1 - p, double(gamma)) * std::log(p); });
      CHECK(b.value<Flat>(Focal{.gamma = gamma}) == doctest::Approx(expected).epsilon(1e-10));
      CHECK(b.value<Single>(Focal{.gamma = gamma}) == doctest::Approx(expected).epsilon(2e-6));
      CHECK(b.gradient_error<Flat>(Focal{.gamma = gamma}) < 1e-6);
    }
    CHECK(b.value(Focal{.gamma = 0}) == b.value(CrossEntropy{}));
    CHECK(b.gradient_error(Focal{.gamma = 0}) < 1e-7);
    CHECK(b.gradient_error(Focal{.weights = {1, 3, 0}}) < 1e-7);
  }
  TEST_CASE("binary cross-entropy is its formula over the classes that the labels know") {
    const Batch b = partial_batch();
    for (const bool background : {false, true}) {
      double total = 0, terms = 0;
      for (Index n = 0; n < 3; ++n)  // case 3 has no labels
        for (Index v = 0; v < b.grid.voxels(); ++v)
          for (Index c = background ? 0 : 1; c < 4; ++c) {
            const bool known = c == 0 ? b.complete(n) : b.set(n).has(c);
            if (b.label(n, v) == ignored || !known) continue;
            const double p = 1 / (1 + std::exp(-b.logit(n, v, c)));
            total -= std::log(b.label(n, v) == c ? p : 1 - p), terms += 1;
          }
      const BinaryCrossEntropy loss{.include_background = background};
      CHECK(b.value(loss) == doctest::Approx(total / terms).epsilon(1e-10));
      CHECK(b.value<Single>(loss) == doctest::Approx(total / terms).epsilon(1e-6));
      CHECK(b.gradient_error(loss) < 1e-7);
    }
  }
  TEST_CASE("entropy is its formula over the voxels with a label") {
    const Batch b = Batch::random({2, 3, 4, 5, 3});
    double total = 0, voxels = 0;
    for (Index n = 0; n < 2; ++n)
      for (Index v = 0; v < b.grid.voxels(); ++v) {
        if (b.label(n, v) == ignored) continue;
        for (Index c = 0; c < 3; ++c) total -= b.p(n, v, c) * std::log(b.p(n, v, c));
        ++voxels;
      }
    const double expected = total / voxels / std::log(3.0);
    CHECK(b.value(Entropy{}) == doctest::Approx(expected).epsilon(1e-12));
    CHECK(b.value<Single>(Entropy{}) == doctest::Approx(expected).epsilon(1e-6));
    CHECK(b.gradient_error(Entropy{}) < 1e-7);
  }
  TEST_CASE("the losses and their gradients are PyTorch's") {
    if (no_torch()) return;
    Batch b = Batch::random({2, 3, 4, 5, 3});
    const std::vector<Index> cells = {2, 3, 4, 5};
    const Oracle::Array z{{2, 3, 4, 5, 3}, b.z};
    const auto agree = [&](const auto& loss, const std::string& expression) {
      const auto expected =
          Oracle::current()->ask(expression, {z, {cells, {b.y.begin(), b.y.end()}}}, {1}, false);
      CHECK(b.value(loss) == doctest::Approx(expected[0][0]).epsilon(1e-9));
      CHECK(distance(b.gradient(loss), expected[1]) < 1e-8);
      CHECK(distance(wide(b.gradient<Single>(loss)), expected[1]) < 1e-5);
    };
    agree(CrossEntropy{}, "f.cross_entropy(first(x[0]), x[1].detach().long(), ignore_index=255)");
    agree(CrossEntropy{.weights = {1, 2, 0.5f}},
          "f.cross_entropy(first(x[0]), x[1].detach().long(), ignore_index=255, "
          "weight=torch.tensor([1., 2., .5], dtype=x[0].dtype))");
    agree(Focal{},
          "(lambda l, y: (lambda p: ((1 - p) ** 2 * -p.log())[y != 255].mean())(l.softmax(-1)"
          ".gather(-1, (y % 255).unsqueeze(-1)).squeeze(-1)))(x[0], x[1].detach().long())");
    for (auto& label : b.y) label = label == ignored ? 0 : label;
    agree(BinaryCrossEntropy{},
          "f.binary_cross_entropy_with_logits(x[0], f.one_hot(x[1].detach().long(), "
          "3).to(x[0].dtype))");
  }
  TEST_CASE("a negative weight is refused") {
    CHECK_THROWS_WITH_AS(LabelWeights({1, -2}),
                         "segmed: label weights: the weight of label 1 is -2", ConfigError);
  }
}
