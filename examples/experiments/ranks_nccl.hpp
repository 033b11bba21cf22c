// SPDX-License-Identifier: Apache-2.0
// Between ranks_mpi.cpp and what nvcc compiles.
#pragma once
#include <functional>

namespace segmed {
class Mpi;
class Ranks;
}  // namespace segmed

namespace experiments {

/// Runs `body` with the ranks of `mpi`, each on the GPU that it has chosen.
int with_nccl(segmed::Mpi& mpi, const std::function<int(const segmed::Ranks&)>& body);

}  // namespace experiments
