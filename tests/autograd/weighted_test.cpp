// SPDX-License-Identifier: Apache-2.0
#include "check.hpp"
#include <segmed/autograd/normalize.hpp>
#include <segmed/autograd/weighted.hpp>

TEST_SUITE_BEGIN("autograd/weighted");
using namespace check;

namespace {

/// 0, 0.5, 1, 1.5 in turns.
template <class F>
F weights_of(const Grid& grid) {
  std::vector<typename F::value_type> values;
  for (Index i = 0; i < grid.rows(); ++i) values.push_back(0.5f * float(i % 4));
  return F(grid.with_channels(1), Storage<typename F::value_type, Cpu>(values));
}
const Grid small{2, 2, 3, 3, 3};

}  // namespace

TEST_CASE("the weighted mean of squares is its formula") {
  const auto a = random_map<Map3>(small, 1), b = random_map<Map3>(small, 2);
  const auto x = a.dense().value.host(), y = b.dense().value.host();
  double total = 0, weight = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double w = 0.5 * double(i / 3 % 4);
    total += w * (x[i] - y[i]) * (x[i] - y[i]), weight += w;
  }
  CHECK(weighted_mean_square(a, b, weights_of<Map3>(small)).host() ==
        doctest::Approx(total / weight).epsilon(1e-12));
}

TEST_CASE("the gradient of the weighted mean is that of central differences") {
  const auto weight = weights_of<Map3>(small);
  auto values = numbers<double>(small.size(), 4);
  const auto other = random_map<Map3>(small, 5);
  CHECK(gradient_error<Map3>(small, values, [&](const Map3& x) {
          return weighted_mean_square(leaky_relu(x, 0.3), other, weight);
        }) < 1e-6);
  CHECK(gradient_error<Map3>(small, values, [&](const Map3& x) {
          return weighted_mean_square(other, x, weight);
        }) < 1e-6);
}

TEST_CASE("what has no weight may be anything, and nothing at all gives 0") {
  auto values = numbers<double>(small.size(), 4);
  values[0] = std::nan("");  // the first voxel has no weight
  const auto other = random_map<Map3>(small, 5);
  const Map3 x = Map3::leaf(small, values);
  const auto mean = weighted_mean_square(x, other, weights_of<Map3>(small));
  CHECK(std::isfinite(mean.host()));
  backward(mean);
  for (const double g : x.gradient().host()) CHECK(std::isfinite(g));
  const Map3 none(small.with_channels(1), Storage<double, Cpu>(small.rows(), 0));
  const Map3 again = Map3::leaf(small, values);
  const auto empty = weighted_mean_square(again, other, none);
  CHECK(empty.host() == 0);
  backward(empty);
  for (const double g : again.gradient().host()) CHECK(g == 0);
  CHECK_THROWS_AS(weighted_mean_square(x, other, other), ShapeError);
}

TEST_CASE("the weighted mean has the same bits for 1, 2 and 4 threads") {
  const Grid grid{2, 9, 17, 13, 3};
  CHECK(same_for_threads<Single3>({grid, grid}, {}, [&](const auto& x, const auto&) {
    const auto mean = weighted_mean_square(x[0], x[1], weights_of<Single3>(grid));
    Single3 y(Grid{1, 1, 1, 1, 1}, true);
    y.mutable_data()[0] = float(mean.host());
    record_dense(y, {}, [mean](const float* g) { mean.grad().or_zeros(1).assign({*g}); });
    return y;
  }));
}

TEST_SUITE_END();
