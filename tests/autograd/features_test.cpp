// SPDX-License-Identifier: Apache-2.0
#include "check.hpp"
#include <segmed/autograd/convolution.hpp>
#include <segmed/autograd/features.hpp>
#include <segmed/autograd/normalize.hpp>

TEST_SUITE_BEGIN("autograd/features");
using namespace check;

namespace {

std::vector<double> seen(const Map2& x) { return value(x).dense().value.host(); }
const Grid grid{2, 1, 3, 2, 2};

}  // namespace

TEST_CASE("residual sums have the right gradients, pending or not, of one map or two") {
  CHECK(worst_gradient<Map2>({grid, grid}, {},
                             [](const auto& x, const auto&) { return x[0] + x[1]; }) < 1e-7);
  CHECK(worst_gradient<Map2>({grid}, {}, [](const auto& x, const auto&) { return x[0] + x[0]; }) <
        1e-7);
  CHECK(worst_gradient<Map2>({grid, grid}, {}, [](const auto& x, const auto&) {
          return leaky_relu(leaky_relu(x[0], 0.1) + x[1], 0.2) + leaky_relu(x[0], 0.3);
        }) < 1e-7);
  CHECK(worst_gradient<Map2>({grid, grid}, {}, [](const auto& x, const auto&) {
          return concat(x[0], x[1]) + leaky_relu(concat(x[1], x[0]), 0.5);
        }) < 1e-7);
}

TEST_CASE("a gradient that nobody else holds changes hands, any other is copied") {
  const Map2 x = random_map<Map2>(grid, 1, true);
  const std::vector<double> slopes = numbers<double>(grid.size(), 2);
  for (const bool shared : {false, true}) {
    x.dense().grad->sum = {};
    const Map2 a = leaky_relu(x, 0.5), y = value(a);
    const Storage<double, Cpu> incoming(slopes);
    const double* const place = incoming.read();
    y.dense().grad->sum = shared ? incoming : incoming.clone();
    const double* const given = y.gradient().read();
    Tape::current()->pull_all({});
    CHECK((a.sources()[0].grad->sum.read() == given) == !shared);
    CHECK(incoming.read() == place);
    CHECK(incoming.host() == slopes);
    const auto values = x.dense().value.host(), found = x.gradient().host();
    for (std::size_t i = 0; i < values.size(); ++i)
      CHECK(found[i] == (values[i] > 0 ? 1 : 0.5) * slopes[i]);
  }
}

TEST_CASE("a concatenation has the channels of both and moves no voxel") {
  const Map2 a = random_map<Map2>(grid, 1), b = random_map<Map2>(grid.with_channels(3), 2);
  const Map2 both = concat(a, b);
  CHECK(both.grid() == grid.with_channels(5));
  CHECK_FALSE(both.plain());
  CHECK(both.sources()[0].raw == a.sources()[0].raw);
  const auto first = seen(a), second = seen(b), joined = seen(both);
  for (Index row = 0; row < grid.rows(); ++row)
    for (Index c = 0; c < 5; ++c)
      CHECK(joined[std::size_t(row * 5 + c)] ==
            (c < 2 ? first[std::size_t(row * 2 + c)] : second[std::size_t(row * 3 + c - 2)]));
}

TEST_CASE("concatenations nest, and a map may stand beside itself") {
  CHECK(worst_gradient<Map2>({grid, grid, grid}, {}, [](const auto& x, const auto&) {
          return concat(concat(x[0], x[1]), concat(x[2], x[0]));
        }) < 1e-7);
  CHECK(worst_gradient<Map2>({grid}, {},
                             [](const auto& x, const auto&) { return concat(x[0], x[0]); }) < 1e-7);
  const Map2 x = random_map<Map2>(grid, 1, true);
  const Map2 twice = concat(x, x);
  CHECK(twice.sources()[0].grad != twice.sources()[1].grad);
  Tape::current()->clear();
}

TEST_CASE("value is free when nothing is pending, and gives the pending values otherwise") {
  const Map2 x = random_map<Map2>(grid, 1);
  CHECK(value(x).data() == x.data());
  const auto raw = seen(x), active = seen(leaky_relu(x, 0.25));
  for (std::size_t i = 0; i < raw.size(); ++i)
    CHECK(active[i] == (raw[i] > 0 ? raw[i] : 0.25 * raw[i]));
}

TEST_CASE("detach keeps the values and stops the gradient") {
  const Map2 x = random_map<Map2>(grid, 1, true);
  const Map2 stopped = detach(leaky_relu(x, 0.5));
  CHECK_FALSE(stopped.tracked());
  CHECK(seen(stopped) == seen(leaky_relu(x, 0.5)));
  Tape::current()->clear();
  backward(mean(stopped * x));
  const auto gradient = x.gradient().host(), values = seen(stopped);
  for (std::size_t i = 0; i < values.size(); ++i)
    CHECK(gradient[i] == doctest::Approx(values[i] / double(grid.size())));
}

TEST_CASE("no_grad records nothing and gives constants") {
  const Map2 x = random_map<Map2>(grid, 1, true);
  const std::size_t before = Tape::current()->size();
  const Map2 y = no_grad([&] { return value(leaky_relu(x, 0.5) + x); });
  CHECK_FALSE(y.tracked());
  CHECK(Tape::current()->size() == before);
  CHECK(Mode::current().record);
  CHECK_THROWS_WITH_AS(backward(mean(y)),
                       "segmed: backward: nothing that is trained led to this loss", Error);
}

TEST_CASE("switches are put back when a body throws") {
  CHECK_THROWS(no_grad([]() -> int { throw 1; }));
  CHECK_THROWS(evaluating([]() -> int { throw 1; }));
  CHECK_THROWS(materialized([]() -> int { throw 1; }));
  CHECK(Mode::current().record);
  CHECK(Mode::current().training);
  CHECK(Mode::current().fuse);
}

TEST_CASE("the gradient of a leaf used many times is a sum") {
  const Map2 x = random_map<Map2>(grid, 1, true);
  backward(float(grid.size()) * (mean(x) + 2 * mean(x) + mean(x + x)));
  for (const double g : x.gradient().host()) CHECK(g == doctest::Approx(5));
}

TEST_CASE("backward frees what the forward kept") {
  const Map2 x = random_map<Map2>(grid, 1, true);
  std::weak_ptr<Dense<double, Cpu>> kept;
  Scalar<Map2> loss;
  {
    const Map2 y = value(leaky_relu(x, 0.5));
    kept = y.sources()[0].raw;
    loss = mean(y * y);
  }
  CHECK_FALSE(kept.expired());
  backward(loss);
  CHECK(kept.expired());
  CHECK(Tape::current()->size() == 0);
}

TEST_CASE("writing into a map forgets the moments of its old values") {
  Weights<Map2> p({2, 2});
  for (auto& w : p.list) w.value().assign({1, 1});
  Map2 x = random_map<Map2>(grid, 1);
  seen(instance_norm(x, p[0], p[1]));
  for (Index i = 0; i < grid.size(); ++i) x.mutable_data()[i] = 100 + double(i);
  double sum = 0;
  for (const double v : seen(instance_norm(x, p[0], p[1]))) sum += v - 1;
  CHECK(std::abs(sum) < 1e-9);
  Tape::current()->clear();
}

TEST_CASE("what does not fit is said with its numbers") {
  const Map2 a = random_map<Map2>(grid, 1), b = random_map<Map2>({2, 1, 3, 3, 2}, 2);
  CHECK_THROWS_WITH_AS(
      a + b, "segmed: operator+: shapes differ: (2, 1, 3, 2, 2) and (2, 1, 3, 3, 2)", ShapeError);
  CHECK_THROWS_WITH_AS(
      concat(a, b), "segmed: concat: (2, 1, 3, 2, 2) does not lie on the grid of (2, 1, 3, 3, 2)",
      ShapeError);
  CHECK_THROWS_WITH_AS(Map2(Grid{1, 2, 3, 4, 5}, false),
                       "segmed: Features: a 2-D map on a grid (1, 2, 3, 4, 5) with depth",
                       ShapeError);
  CHECK_THROWS_WITH_AS(Map2::leaf(grid, {1, 2}),
                       "segmed: Features: grid (2, 1, 3, 2, 2) needs 24 values, not 2", ShapeError);
  CHECK_THROWS_WITH_AS(Map2().grid(), "segmed: Features: this map is empty; give it a shape",
                       Error);
  CHECK_THROWS_WITH_AS(leaky_relu(a, 0.5).dense(),
                       "segmed: Features: work is pending on this map; call value() first", Error);
}

TEST_SUITE_END();
