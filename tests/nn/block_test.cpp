// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/backend/cpu.hpp>
#include <segmed/nn/block.hpp>

using namespace segmed;

namespace {

using F = Features<3, double, Cpu>;

F noise(const Grid& grid) {
  std::vector<double> values;
  for (Index i = 0; i < grid.size(); ++i)
    values.push_back(double(Philox{6, Purpose::noise}.normal(i)));
  return F(grid, Storage<double, Cpu>(values));
}
std::vector<double> host(const F& x) { return value(x).dense().value.host(); }

/// These tests only go forward: nothing shall wait on the tape for a backward that never comes.
struct Forward {
  Scope scope{[](Mode& m) { m.record = false; }};
};

}  // namespace

TEST_SUITE("nn/block") {
  TEST_CASE_FIXTURE(Forward, "ConvBlock strides once and has no bias beside its norms") {
    const ConvBlock<F> block(3, 4, {.stride = {2, 1, 2}, .convs = 3});
    CHECK(block(noise({2, 5, 6, 7, 3})).grid() == Grid{2, 3, 6, 4, 4});
    CHECK(parameter_count(block) == 27 * 3 * 4 + 2 * 27 * 4 * 4 + 3 * 2 * 4);
    const ConvBlock<F> flat(3, 4, {.kernel = {1, 3, 3}, .convs = 1});
    CHECK(flat(noise({1, 5, 6, 7, 3})).grid() == Grid{1, 5, 6, 7, 4});
    CHECK(parameter_count(flat) == 9 * 3 * 4 + 2 * 4);
    CHECK_THROWS_WITH_AS((ConvBlock<F>(3, 4, {.convs = 0})),
                         "segmed: ConvBlock: convs is 0; give at least 1", ConfigError);
  }

  TEST_CASE_FIXTURE(Forward, "activations with parameters are part of the block") {
    const ConvBlock<F, InstanceNorm<F>, Prelu<F>> block(2, 4);
    CHECK(parameter_count(block) == 27 * 2 * 4 + 27 * 4 * 4 + 2 * 2 * 4 + 2 * 4);
  }

  TEST_CASE_FIXTURE(Forward, "Residual adds its input before the last activation") {
    const F x = noise({1, 4, 4, 4, 4});
    Residual<ConvBlock<F>> block(4, 4);
    CHECK(!block.shortcut);
    block.block.units.back().norm.gain.value().assign(std::vector<double>(4, 0));
    const auto in = host(x), y = host(block(x));
    for (std::size_t i = 0; i < y.size(); ++i)
      CHECK(y[i] == doctest::Approx(in[i] > 0 ? in[i] : double(0.01f) * in[i]).epsilon(1e-12));
  }

  TEST_CASE_FIXTURE(Forward, "Residual carries its input over where channels or extents change") {
    const Residual<ConvBlock<F>> wider(2, 4), smaller(4, 4, {.stride = {2, 2, 2}});
    CHECK(wider.shortcut);
    CHECK(parameter_count(wider) == parameter_count(wider.block) + 2 * 4 + 2 * 4);
    CHECK(wider(noise({1, 3, 3, 3, 2})).grid() == Grid{1, 3, 3, 3, 4});
    CHECK(smaller.shortcut);
    CHECK(smaller(noise({1, 5, 4, 3, 4})).grid() == Grid{1, 3, 2, 2, 4});
  }

  TEST_CASE_FIXTURE(Forward, "dropout acts while training only") {
    ConvBlock<F> block(2, 8, {.dropout = 0.5f});
    const F x = noise({1, 4, 4, 4, 2});
    Draws::current() = {1, 0, 0};
    const auto first = host(block(x)), second = host(block(x));
    CHECK(first != second);
    Draws::current() = {1, 0, 0};
    CHECK(host(block(x)) == first);
    const auto calm = evaluating([&] { return host(block(x)); });
    CHECK(calm == evaluating([&] { return host(block(x)); }));
    block.options.dropout = 0;
    CHECK(host(block(x)) == calm);
  }

  TEST_CASE_FIXTURE(Forward, "both ways up multiply extents and set channels") {
    const F x = noise({2, 3, 2, 4, 6});
    CHECK(TransposedUp<F>(6, 3, {2, 2, 1})(x).grid() == Grid{2, 6, 4, 4, 3});
    CHECK(LinearUp<F>(6, 3, {2, 2, 1})(x).grid() == Grid{2, 6, 4, 4, 3});
  }
}
