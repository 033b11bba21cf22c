// SPDX-License-Identifier: Apache-2.0
// Where segmed::nccl was found; compiled by nvcc.
#include "ranks_nccl.hpp"

#include <segmed/backend/cuda.hpp>
#include <segmed/distributed/nccl.hpp>

namespace experiments {

using namespace segmed;

int with_nccl(Mpi& mpi, const std::function<int(const Ranks&)>& body) {
  Nccl nccl(mpi, Cuda::number());
  return body(Ranks(nccl));
}

}  // namespace experiments
