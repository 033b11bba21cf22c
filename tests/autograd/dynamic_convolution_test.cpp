// SPDX-License-Identifier: Apache-2.0
#include "check.hpp"
#include <segmed/autograd/dynamic_convolution.hpp>

TEST_SUITE_BEGIN("autograd/dynamic_convolution");
using namespace check;

namespace {

const Grid voxels{2, 2, 3, 2, 8}, chains{2, 1, 1, 3, 153};

template <class F>
Op<F> chained() {
  return [](const auto& x, const auto&) { return pointwise_chains(x[0], x[1]); };
}
/// One layer as a textbook has it: weights (out, in), then biases.
std::vector<double> layer(const std::vector<double>& in, const double* w, std::size_t out,
                          bool last) {
  std::vector<double> y;
  for (std::size_t o = 0; o < out; ++o) {
    double total = w[out * in.size() + o];
    for (std::size_t i = 0; i < in.size(); ++i) total += w[o * in.size() + i] * in[i];
    y.push_back(last ? total : std::max(0.0, total));
  }
  return y;
}

}  // namespace

TEST_CASE("every chain is three convolutions with its own weights") {
  const Map3 x = random_map<Map3>(voxels, 1), w = random_map<Map3>(chains, 2);
  const auto y = pointwise_chains(x, w).dense().value.host();
  const auto in = x.dense().value.host(), weights = w.dense().value.host();
  REQUIRE(y.size() == std::size_t(2 * 12 * 3));
  for (std::size_t row = 0; row < 24; ++row)
    for (std::size_t k = 0; k < 3; ++k) {
      const double* chain = &weights[(row / 12 * 3 + k) * 153];
      std::vector<double> z(&in[row * 8], &in[row * 8] + 8);
      z = layer(z, chain, 8, false);
      z = layer(z, chain + 72, 8, false);
      z = layer(z, chain + 144, 1, true);
      CHECK(y[row * 3 + k] == doctest::Approx(z[0]).epsilon(1e-12));
    }
}
TEST_CASE("its gradients are those of central differences, with the same bits on any threads") {
  CHECK(worst_gradient<Map3>({voxels, chains}, {}, chained<Map3>()) < 1e-5);
  CHECK(worst_gradient<Map2>({{2, 1, 3, 4, 8}, {2, 1, 1, 2, 153}}, {}, chained<Map2>()) < 1e-5);
  CHECK(same_for_threads<Single3>({{2, 9, 17, 31, 8}, {2, 1, 1, 3, 153}}, {}, chained<Single3>()));
}
TEST_CASE("weights that do not fit are refused") {
  CHECK_THROWS_AS(
      pointwise_chains(random_map<Map3>(voxels, 1), random_map<Map3>(chains.with_channels(162), 2)),
      ShapeError);
}
TEST_SUITE_END();
