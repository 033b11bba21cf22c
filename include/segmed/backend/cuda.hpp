// SPDX-License-Identifier: Apache-2.0
// NVIDIA GPUs: the same functors as on the CPU, launched over a grid. For units that nvcc compiles.
#pragma once
#include <segmed/backend/cuda_graph.hpp>
#include <segmed/backend/cuda_runtime.hpp>
#include <segmed/backend/device.hpp>
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

/// The process's GPU: see CudaRuntime for its memory, copies and streams.
struct Cuda : CudaRuntime {
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

#if defined(SEGMED_CUDNN)
  // By cuDNN, in all units of a program or in none: backend/cudnn/device.hpp.
  template <class T>
  static constexpr bool convolves_dense = CudnnStored<T>;
  template <class T>
  requires CudnnStored<T>
  static void gather(const Window& w, const Feed<T>& in, const Wide<T>* weight, const Sink<T>& out);
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
static_assert(Device<Cuda>);

}  // namespace segmed

#if defined(SEGMED_CUDNN)
#include <segmed/backend/cudnn/device.hpp>
#endif
