// SPDX-License-Identifier: Apache-2.0
// NVIDIA GPUs: the same functors as on the CPU, launched over a grid. For units that nvcc compiles.
#pragma once
#include <segmed/backend/cuda_graph.hpp>
#include <segmed/backend/cuda_runtime.hpp>
#include <segmed/backend/teams/rows.hpp>
#if defined(SEGMED_CUDNN)
#include <segmed/backend/cudnn/problem.hpp>
#endif

namespace segmed {

template <class Kernel>
__global__ void run_items(Index n, Kernel kernel) {
  const Index step = Index(blockDim.x) * gridDim.x;
  for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) kernel(i);
}
template <class Kernel>
__global__ void run_cells(Index rows, Index columns, Kernel kernel) {
  const Index step = Index(blockDim.x) * gridDim.x, n = rows * columns;
  for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step)
    kernel(i / columns, i % columns);
}
/// One thread of a team, which is a block of threads.
struct CudaTeam {
  Index index;
  int thread;
  SEGMED_HD void barrier() const {
#if defined(__CUDA_ARCH__)
    __syncthreads();
#endif
  }
};
template <class Kernel>
__global__ void __launch_bounds__(Kernel::threads) run_teams(Index n, Kernel kernel) {
  __shared__ typename Kernel::Shared shared;
  for (Index i = blockIdx.x; i < n; i += gridDim.x) {
    kernel(CudaTeam{i, int(threadIdx.x)}, shared);
    __syncthreads();  // the block's next team writes what this one may still read
  }
}

/// The process's GPU: see CudaRuntime for its memory, copies and streams.
struct Cuda : CudaRuntime, TeamRows<Cuda> {
  using Graph = CudaGraph;

  template <class Kernel>
  static void launch(Index n, const Kernel& kernel) {
    if (n <= 0) return;
    run_items<<<blocks(n, 128), 128, 0, stream()>>>(n, kernel);
    check(cudaGetLastError(), "a kernel launch");
  }
  template <class Kernel>
  static void launch_blocks(Index n, const Kernel& kernel) {
    if (n <= 0) return;
    run_items<<<blocks(n, 32), 32, 0, stream()>>>(n, kernel);
    check(cudaGetLastError(), "a kernel launch");
  }
  template <class Kernel>
  static void launch_rows(Index rows, Index columns, const Kernel& kernel) {
    if (rows <= 0 || columns <= 0) return;
    run_cells<<<blocks(rows * columns, 128), 128, 0, stream()>>>(rows, columns, kernel);
    check(cudaGetLastError(), "a kernel launch");
  }
  /// A block of threads per team, with `Shared` in static shared memory: see backend/team.hpp.
  template <class Kernel>
  static void launch_teams(Index n, const Kernel& kernel) {
    static_assert(fits_a_team<Kernel>,
                  "launch_teams: too many threads, or `Shared` is too large "
                  "or not plain data; see backend/team.hpp");
    if (n <= 0) return;
    const Index most = (Index{1} << 31) - 1;
    run_teams<<<unsigned(n < most ? n : most), Kernel::threads, 0, stream()>>>(n, kernel);
    check(cudaGetLastError(), "a kernel launch");
  }

#if defined(SEGMED_CUDNN)
  // By cuDNN, in all units of a program or in none: backend/cudnn/device.hpp.
  template <class T>
  static constexpr bool convolves_dense = CudnnStored<T>;
  template <class T>
  requires CudnnStored<T>
  static void gather(const Window& w, const Feed<T>& in, const Wide<T>* weight, const Sink<T>& out);
  template <class T>
  requires CudnnStored<T>
  static bool gather_activated(const Window& w, const Feed<T>& in, const Wide<T>* weight,
                               const Sink<T>& out, Wide<T> leak);
  template <class T>
  requires CudnnStored<T>
  static void scatter(const Window& w, const Feed<T>& in, const Wide<T>* weight,
                      const Sink<T>& out);
  template <class T>
  requires CudnnStored<T>
  static void weigh(const Window& w, const Feed<T>& fine, const Feed<T>& coarse,
                    Wide<T>* weight_grad);
#endif

 private:
  static unsigned blocks(Index n, Index threads) {
    const Index wanted = (n + threads - 1) / threads;
    return unsigned(wanted < 65535 ? wanted : 65535);
  }
};
static_assert(Device<Cuda> && HasTeams<Cuda>);

}  // namespace segmed

#if defined(SEGMED_CUDNN)
#include <segmed/backend/cudnn/device.hpp>
#endif
