// SPDX-License-Identifier: Apache-2.0
// Every op as a GPU computes it, beside the processor: what bench_gpu --parity asks of a real one.
#include "../backend/host_gpu.hpp"

#include <doctest/doctest.h>

#include "every_op.hpp"
#include <segmed/backend/cpu.hpp>

namespace {
using namespace every_op;

template <class T>
void check_each(double allowed) {
  const fake::HostGpu::Guarded memory;
  each([&](const char* name, const std::vector<Grid>& grids, const std::vector<Index>& sizes,
           const auto& op) {
    const std::string op_name = name;
    INFO(op_name);
    CHECK(apart(outcome<Features<3, T, fake::HostGpu>>(grids, sizes, op),
                outcome<Features<3, float, Cpu>>(grids, sizes, op)) < allowed);
  });
}

}  // namespace

TEST_SUITE_BEGIN("autograd/host_gpu");

TEST_CASE("every op on maps of float is that of the processor") { check_each<float>(1e-4); }
TEST_CASE("every op on maps of Bfloat16 is that of floats, as far as 8 bits go") {
  check_each<Bfloat16>(2e-2);
}

TEST_SUITE_END();
