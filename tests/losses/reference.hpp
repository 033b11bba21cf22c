// SPDX-License-Identifier: Apache-2.0
// Batches for the tests of losses, and the plainest way to their probabilities.
#pragma once
#include <doctest/doctest.h>

#include <segmed/autograd/gradient_check.hpp>
#include <segmed/losses/criterion.hpp>

namespace check {
using namespace segmed;
using Flat = Features<2, double, Cpu>;
using Solid = Features<3, double, Cpu>;
using Single = Features<3, float, Cpu>;

/// Logits, labels and annotated sets on the host, seen as plain arrays.
struct Batch {
  Grid grid;
  std::vector<double> z;
  std::vector<std::uint8_t> y;
  std::vector<AnnotatedSet> annotated;

  /// Random logits; labels of all classes, or of annotated ones, a tenth of them ignored.
  static Batch random(const Grid& grid, std::vector<AnnotatedSet> annotated = {},
                      std::uint64_t seed = 1) {
    const Philox numbers{seed, Purpose::noise};
    Batch batch{grid, {}, {}, std::move(annotated)};
    batch.annotated.resize(std::size_t(grid.cases), AnnotatedSet::all(grid.channels));
    for (Index i = 0; i < grid.size(); ++i) batch.z.push_back(2 * double(numbers.normal(i)));
    for (Index v = 0; v < grid.rows(); ++v) {
      const Index drawn = numbers.below(v + 100000, 10 * grid.channels);
      const Index label = drawn % grid.channels;
      const bool known = batch.set(v / grid.voxels()).has(label);
      batch.y.push_back(drawn < grid.channels ? ignored : std::uint8_t(known ? label : 0));
    }
    return batch;
  }
  const AnnotatedSet& set(Index n) const { return annotated[std::size_t(n)]; }
  bool complete(Index n) const {
    for (Index c = 0; c < grid.channels; ++c)
      if (!set(n).has(c)) return false;
    return true;
  }
  int label(Index n, Index v) const { return y[std::size_t(n * grid.voxels() + v)]; }
  double logit(Index n, Index v, Index c) const {
    return z[std::size_t((n * grid.voxels() + v) * grid.channels + c)];
  }
  double p(Index n, Index v, Index c) const {
    double total = 0;
    for (Index k = 0; k < grid.channels; ++k) total += std::exp(logit(n, v, k) - logit(n, v, c));
    return 1 / total;
  }
  /// With classes that nobody annotated as background; zero for these.
  double joined(Index n, Index v, Index c) const {
    if (!set(n).has(c)) return 0;
    double total = p(n, v, c);
    for (Index k = 1; k < grid.channels && c == 0; ++k) total += set(n).has(k) ? 0 : p(n, v, k);
    return total;
  }
  template <class F = Solid>
  Labels<Cpu> labels() const {
    return labels_of<Cpu>(grid, y, annotated);
  }
  template <class F = Solid>
  std::vector<typename F::value_type> logits() const {
    return {z.begin(), z.end()};
  }
  template <class F = Solid, class L>
  double value(const L& loss) const {
    return Criterion<L>{loss}(F::leaf(grid, logits<F>()), labels()).host();
  }
  template <class F = Solid, class L>
  double gradient_error(const L& loss) const {
    const auto drawn = labels();
    return segmed::gradient_error<F>(grid, logits<F>(),
                                     [&](const F& x) { return Criterion<L>{loss}(x, drawn); });
  }
  template <class F = Solid, class L>
  std::vector<typename F::value_type> gradient(const L& loss) const {
    const F x = F::leaf(grid, logits<F>());
    backward(Criterion<L>{loss}(x, labels()));
    return x.gradient().host();
  }
};

/// In each case one class is there, one is annotated and absent, and one is not annotated: 1, 2 and
/// 3 in the first case, 2, 3 and 1 in the second. No voxel is ignored.
inline Batch absent_batch() {
  const AnnotatedSet all = AnnotatedSet::all(4);
  Batch b = Batch::random({2, 2, 3, 4, 4}, {all.without(3), all.without(1)}, 5);
  for (std::size_t i = 0; i < b.y.size(); ++i) b.y[i] = i % 3 != 0 ? 0 : i < b.y.size() / 2 ? 1 : 2;
  return b;
}
inline Index absent_class(Index n) { return n == 0 ? 2 : 3; }
inline Index unknown_class(Index n) { return n == 0 ? 3 : 1; }

/// The slopes of a reference, a function of a batch, in its logits, by central differences.
template <class Reference>
std::vector<double> slopes_of(Reference reference, Batch b) {
  std::vector<double> slopes;
  for (double& z : b.z) {
    const double at = z, step = 1e-5;
    z = at + step;
    const double above = reference(b);
    z = at - step;
    slopes.push_back((above - reference(b)) / (2 * step));
    z = at;
  }
  return slopes;
}
/// The value and the slopes of a loss are those of a reference.
template <class L, class Reference>
void check_is(const L& loss, Reference reference, const Batch& b) {
  CHECK(b.value(loss) == doctest::Approx(reference(b)).epsilon(1e-12));
  CHECK(b.value<Single>(loss) == doctest::Approx(reference(b)).epsilon(1e-6));
  const auto expected = slopes_of(reference, b), slopes = b.gradient(loss);
  for (std::size_t i = 0; i < slopes.size(); ++i) CHECK(std::abs(slopes[i] - expected[i]) < 1e-9);
}

/// Cases 0 and 2 lack a class each, case 1 is complete, case 3 has none.
inline Batch partial_batch(std::uint64_t seed = 3) {
  const AnnotatedSet all = AnnotatedSet::all(4);
  return Batch::random({4, 2, 3, 5, 4}, {all.without(2), all, all.without(1).without(3), {}}, seed);
}

}  // namespace check
