// SPDX-License-Identifier: Apache-2.0
// Ranks with a GPU each: mpirun -n 2 nccl_tests. Says that it skips where there are fewer GPUs.
#include "device_parity.hpp"
#include "gpu.hpp"
#include "world.hpp"
#include <segmed/backend/cuda.hpp>
#include <segmed/distributed/nccl.hpp>

using namespace segmed;

namespace {

/// The same answer on all ranks.
bool too_few_gpus() {
  const Ranks ranks(world());
  if (!ranks.any(Cuda::count() < world().local_size())) return false;
  MESSAGE("skipped: ", world().local_size(), " ranks on this machine need as many GPUs, it has ",
          Cuda::count());
  return true;
}

}  // namespace

TEST_SUITE_BEGIN("cuda/nccl");

TEST_CASE("a rank without a GPU says so") {
  if (Cuda::count() > 0) return;
  CHECK_THROWS_WITH_AS(Nccl{world()}, doctest::Contains("no GPU can be used here"), DeviceError);
}

TEST_CASE("one GPU for two ranks is refused") {
  if (too_few_gpus() || !Ranks(world()).any(world().local_size() > 1)) return;
  CHECK_THROWS_WITH_AS((Nccl{world(), 0}), doctest::Contains("have one GPU between them"),
                       DeviceError);
}

TEST_CASE("NCCL adds what lies on the GPUs, MPI what the host holds") {
  if (too_few_gpus()) return;
  Nccl nccl(world());
  trial::check_sums<Cuda>(nccl);
}

TEST_CASE("ranks with a GPU each are one process with the whole batch") {
  if (too_few_gpus()) return;
  Nccl nccl(world());
  trial::check_training<Cuda>(Ranks(nccl));
}

TEST_SUITE_END();
