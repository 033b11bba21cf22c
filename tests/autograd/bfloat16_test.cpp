// SPDX-License-Identifier: Apache-2.0
// Maps of Bfloat16 beside maps of float.
#include <doctest/doctest.h>

#include "every_op.hpp"
#include <segmed/backend/cpu.hpp>

namespace {
using namespace every_op;
using Half = Features<3, Bfloat16, Cpu>;
using Whole = Features<3, float, Cpu>;
using Grids = std::vector<Grid>;
using Sizes = std::vector<Index>;

constexpr double bound = 2e-2;
const auto block = [](const auto& in) {
  const auto y = conv(in.x[0], in.w[0], in.none, ConvGeometry<3>::cubic(3));
  return leaky_relu(instance_norm(y, in.w[1], in.w[2]), 0.01);
};

}  // namespace

TEST_SUITE_BEGIN("autograd/bfloat16");

TEST_CASE("every op and its gradients are those of float, as far as 8 bits go") {
  each([](const char* name, const Grids& grids, const Sizes& sizes, const auto& op) {
    const std::string op_name = name;
    INFO(op_name);
    CHECK(apart(outcome<Half>(grids, sizes, op), outcome<Whole>(grids, sizes, op)) < bound);
  });
}

TEST_CASE("fused and written down differ by roundings alone") {
  const Sizes sizes = {27 * 4 * 8, 8, 8};
  const Outcome fused = outcome<Half>({cube}, sizes, block);
  CHECK(apart(materialized([&] { return outcome<Half>({cube}, sizes, block); }), fused) < bound);
}

TEST_CASE("2-D maps") {
  using Flat = Features<2, Bfloat16, Cpu>;
  const auto op = [](const auto& in) {
    const auto y = conv(in.x[0], in.w[0], in.none, ConvGeometry<2>::cubic(3, 2));
    return leaky_relu(instance_norm(y, in.w[1], in.w[2]), 0.01);
  };
  const Sizes sizes = {9 * 4 * 8, 8, 8};
  const Grid square{2, 1, 12, 10, 4};
  CHECK(apart(outcome<Flat>({square}, sizes, op),
              outcome<Features<2, float, Cpu>>({square}, sizes, op)) < bound);
}

TEST_CASE("the same bits for any number of threads") {
  const int before = threads();
  std::vector<Outcome> runs;
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    runs.push_back(outcome<Half>({{2, 8, 8, 16, 4}}, {27 * 4 * 8, 8, 8}, block));
  }
  set_threads(before);
  CHECK(runs[0] == runs[1]);
  CHECK(runs[0] == runs[2]);
}

TEST_SUITE_END();
