// SPDX-License-Identifier: Apache-2.0
#include "../cuda/gpu.hpp"
#include "parity.hpp"
#include <segmed/backend/cuda.hpp>
#include <segmed/core/bfloat16.hpp>

TEST_SUITE_BEGIN("autograd/cuda");
using namespace check;

static_assert(HasRows<Cuda, float> && HasRows<Cuda, double> && HasRows<Cuda, Bfloat16>);

TEST_CASE("ops on the GPU are those of the processor") {
  if (no_gpu()) return;
  check_ops<3, float, Cuda>(2e-5);
  check_ops<2, double, Cuda>(1e-11);
  check_ops<3, Bfloat16, Cuda>(3e-2);
}
TEST_CASE("passes over maps with odd and many channels are those of the processor") {
  if (no_gpu()) return;
  for (const Grid& grid : {Grid{2, 20, 31, 33, 32}, Grid{1, 40, 40, 40, 3}, Grid{3, 5, 6, 7, 320},
                           Grid{1, 2, 3, 4, 130}, Grid{2, 1, 300, 299, 1}}) {
    CAPTURE(grid);
    const std::vector<float> host = numbers<float>(grid.size(), 1);
    const Storage<float, Cuda> x(host);
    Storage<double, Cuda> moments(2 * grid.pairs(), Uninitialized{});
    Lane<float> there, here;
    there.grid = here.grid = grid, there.x = x.read(), here.x = host.data();
    Cuda::moments(there, moments.write());
    std::vector<double> expected(std::size_t(2 * grid.pairs()));
    Cpu::moments(here, expected.data());
    CHECK(apart({moments.host()}, {expected}) < 1e-12);
  }
}

TEST_SUITE_END();
