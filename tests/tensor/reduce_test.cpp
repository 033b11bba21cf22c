// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/backend/cpu.hpp>
#include <segmed/core/random.hpp>
#include <segmed/tensor/reduce.hpp>

TEST_SUITE_BEGIN("tensor/reduce");
using namespace segmed;

namespace {

/// Sums a value and its square.
struct TwoSums {
  const float* x;
  Index items;
  SEGMED_HD void operator()(Index segment, Index item, double* sums) const {
    const double v = double(x[segment * items + item]);
    sums[0] += v, sums[1] += v * v;
  }
};

}  // namespace

TEST_CASE("sums are those of a plain loop, for any number of items") {
  for (const Index items :
       {Index{1}, Index{7}, Index{2047}, Index{2048}, Index{2049}, Index{9000}}) {
    CAPTURE(items);
    std::vector<float> host;
    for (Index i = 0; i < 3 * items; ++i) host.push_back(Philox{1}.uniform(i, -1, 1));
    const Storage<float, Cpu> x(host);
    const auto sums = reduce<Cpu>(3, items, 2, TwoSums{x.read(), items}).host();
    REQUIRE(sums.size() == 6);
    for (Index s = 0; s < 3; ++s) {
      double sum = 0, squares = 0;
      for (Index i = s * items; i < (s + 1) * items; ++i) {
        const double v = double(host[std::size_t(i)]);
        sum += v, squares += v * v;
      }
      CHECK(sums[std::size_t(2 * s)] == doctest::Approx(sum).epsilon(1e-12));
      CHECK(sums[std::size_t(2 * s + 1)] == doctest::Approx(squares).epsilon(1e-12));
    }
  }
}

TEST_CASE("no items sum to zero") {
  CHECK(reduce<Cpu>(2, 0, 1, TwoSums{nullptr, 0}).host() == std::vector<double>{0, 0});
}

TEST_CASE("sums have the same bits for 1, 2 and 4 threads") {
  std::vector<float> host;
  for (Index i = 0; i < 50000; ++i) host.push_back(Philox{2}.normal(i));
  const Storage<float, Cpu> x(host);
  const int before = threads();
  std::vector<std::vector<double>> results;
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    results.push_back(reduce<Cpu>(5, 10000, 2, TwoSums{x.read(), 10000}).host());
  }
  set_threads(before);
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
}

TEST_SUITE_END();
