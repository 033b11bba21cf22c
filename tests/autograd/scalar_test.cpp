// SPDX-License-Identifier: Apache-2.0
#include "check.hpp"
#include <segmed/autograd/normalize.hpp>
#include <segmed/autograd/scalar.hpp>
#include <segmed/tensor/clock.hpp>

TEST_SUITE_BEGIN("autograd/scalar");
using namespace check;

namespace {

const Grid grid{2, 1, 3, 4, 2};
template <class Loss>
double error_of(Loss loss) {
  Tape::current()->clear();
  return gradient_error<Map2>(grid, numbers<double>(grid.size(), 1), loss);
}

}  // namespace

TEST_CASE("the gradients of means are those of central differences, on both sides") {
  const Map2 other = random_map<Map2>(grid, 2);
  CHECK(error_of([](const Map2& x) { return mean(x); }) < 1e-7);
  CHECK(error_of([&](const Map2& x) { return mean_square(x, other); }) < 1e-5);
  CHECK(error_of([&](const Map2& x) { return mean_square(other, x); }) < 1e-5);
  CHECK(error_of([](const Map2& x) { return mean_square(x, leaky_relu(x, 0.3)); }) < 1e-5);
  CHECK(error_of([](const Map2& x) { return mean_square(leaky_relu(x, 0.1), 0.7); }) < 1e-5);
}

TEST_CASE("a mean is the mean, whatever the number of threads and of elements") {
  const Grid large{2, 5, 31, 29, 3};
  const Single3 a = random_map<Single3>(large, 1), b = random_map<Single3>(large, 2);
  double total = 0;
  const auto x = a.dense().value.host(), y = b.dense().value.host();
  for (std::size_t i = 0; i < x.size(); ++i) total += double(x[i] - y[i]) * double(x[i] - y[i]);
  const double expected = total / double(x.size());
  const int before = threads();
  std::vector<double> results;
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    results.push_back(mean_square(a, b).host());
  }
  set_threads(before);
  CHECK(results[0] == doctest::Approx(expected).epsilon(1e-6));
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
}

TEST_CASE("mean_square passes a gradient to the sides that want one") {
  const Map2 a = random_map<Map2>(grid, 1, true), b = random_map<Map2>(grid, 2, true);
  const Map2 constant = random_map<Map2>(grid, 3);
  backward(mean_square(a, b) + mean_square(a, constant));
  CHECK_FALSE(a.gradient().empty());
  CHECK_FALSE(b.gradient().empty());
  CHECK(constant.gradient().empty());
}

TEST_CASE("weights and sums of losses are linear") {
  CHECK(error_of([](const Map2& x) {
          const auto a = mean(x), b = mean_square(x, 0.25);
          return 0.5f * a + 3 * (b + a) + (a + a);
        }) < 1e-5);
  const Map2 x = random_map<Map2>(grid, 1);
  CHECK((0.5f * mean(x) + 2 * mean(x)).host() == doctest::Approx(2.5 * mean(x).host()));
}

TEST_CASE("the empty scalar is zero") {
  const Scalar<Map2> none;
  const Map2 x = random_map<Map2>(grid, 1, true);
  CHECK_FALSE(bool(none));
  CHECK(none.host() == 0);
  CHECK_FALSE(bool(2 * none));
  CHECK_FALSE(bool(none + none));
  CHECK((none + mean(x)).host() == mean(x).host());
  CHECK((mean(x) + none).host() == mean(x).host());
  CHECK_THROWS_AS(backward(none), Error);
  Tape::current()->clear();
}

TEST_CASE("a weight of the clock is looked up when it is used") {
  Clock<Cpu> clock(3);
  const Map2 x = random_map<Map2>(grid, 1, true);
  const auto weight = clock.ramp(4);
  clock.set({.seed = 3, .step = 1, .ramp = 0.25f});
  const auto loss = weight * mean(x);
  CHECK(loss.host() == doctest::Approx(mean(x).host()));
  Tape::current()->clear();
  clock.set({.seed = 3, .step = 2, .ramp = 0.5f});
  CHECK((weight * mean(x)).host() == doctest::Approx(2 * mean(x).host()));
  backward(weight * mean(x));
  for (const double g : x.gradient().host()) CHECK(g == doctest::Approx(2 / double(grid.size())));
}

TEST_CASE("backward without anything trained says so") {
  const Map2 x = random_map<Map2>(grid, 1);
  CHECK_THROWS_WITH_AS(backward(mean(x)),
                       "segmed: backward: nothing that is trained led to this loss", Error);
}

TEST_CASE("shapes that differ are said with their numbers") {
  CHECK_THROWS_WITH_AS(mean_square(random_map<Map2>(grid, 1), random_map<Map2>({2, 1, 4, 3, 2}, 1)),
                       "segmed: mean_of: shapes differ: (2, 1, 3, 4, 2) and (2, 1, 4, 3, 2)",
                       ShapeError);
}

TEST_SUITE_END();
