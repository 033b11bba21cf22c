// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <thread>

#include "commands.hpp"
#include "device.hpp"
#include "ranks_nccl.hpp"
#include <segmed/backend/parallel.hpp>
#include <segmed/distributed/mpi.hpp>

namespace experiments {

using namespace segmed;

namespace {
Ranks others;
Mpi* world = nullptr;
}  // namespace

const Ranks& ranks() { return others; }

int together(double patience, const std::function<int()>& command) {
  Mpi mpi(patience);
  others = Ranks(mpi), world = &mpi;
  if (!others.first() && !std::freopen("/dev/null", "w", stdout)) return failed;
  // mpirun binds a rank to one core unless told otherwise, where its threads would take turns.
  const int processors = int(std::thread::hardware_concurrency());
  if (threads() > processors)
    std::fprintf(stderr,
                 "rank %d: its %d threads share %d processors; give mpirun --map-by slot:PE=%d "
                 "--bind-to core, or fewer --threads\n",
                 mpi.rank(), threads(), processors, threads());
  const int code = command();
  others = {}, world = nullptr;
  return code;
}

int local_rank() { return world ? world->local_rank() : 0; }

int adding_on_device(const std::function<int()>& training) {
#if defined(EXPERIMENTS_NCCL)
  if (!others.alone() && &units() == &on_cuda::units)
    return with_nccl(*world, [&](const Ranks& ranks) {
      others = ranks;
      const int code = training();
      others = Ranks(*world);
      return code;
    });
#endif
  return training();
}

void end_with(const std::string& error, int code) {
  Mpi::end_job(error, code);  // does not return if there are others
  std::fprintf(stderr, "%s\n", error.c_str());
}

}  // namespace experiments
