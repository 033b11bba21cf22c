// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <thread>

#include "commands.hpp"
#include <segmed/backend/parallel.hpp>
#include <segmed/distributed/mpi.hpp>

namespace experiments {

using namespace segmed;

namespace {
Ranks others;
}

const Ranks& ranks() { return others; }

int together(double patience, const std::function<int()>& command) {
  Mpi mpi(patience);
  others = Ranks(mpi);
  if (!others.first() && !std::freopen("/dev/null", "w", stdout)) return failed;
  // mpirun binds a rank to one core unless told otherwise, where its threads would take turns.
  const int processors = int(std::thread::hardware_concurrency());
  if (threads() > processors)
    std::fprintf(stderr,
                 "rank %d: its %d threads share %d processors; give mpirun --map-by slot:PE=%d "
                 "--bind-to core, or fewer --threads\n",
                 mpi.rank(), threads(), processors, threads());
  const int code = command();
  others = {};
  return code;
}

void end_with(const std::string& error, int code) {
  Mpi::end_job(error, code);  // does not return if there are others
  std::fprintf(stderr, "%s\n", error.c_str());
}

}  // namespace experiments
