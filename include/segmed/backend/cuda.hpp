// SPDX-License-Identifier: Apache-2.0
// NVIDIA GPUs: the same functors as on the CPU, launched over a grid. For units that nvcc compiles.
#pragma once
#ifndef __CUDACC__
#error "segmed/backend/cuda.hpp is for nvcc; compile this unit as CUDA or include segmed/segmed.hpp"
#endif
#include <cuda_runtime.h>

#include <segmed/backend/teams/rows.hpp>
#include <segmed/core/error.hpp>

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

/// The current CUDA device, in the order of the calling thread's own stream.
struct Cuda : TeamRows<Cuda> {
  static cudaStream_t stream() { return cudaStreamPerThread; }

  /// Throws DeviceError with the name of the call and CUDA's own words.
  static void check(cudaError_t status, const char* call) {
    if (status == cudaSuccess) return;
    static_cast<void>(cudaGetLastError());
    const bool absent = status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver ||
                        status == cudaErrorSystemDriverMismatch;
    fail<DeviceError>(call, cudaGetErrorString(status),
                      absent ? "; no GPU can be used here, choose Cpu as the device" : "");
  }
  static void* allocate(std::size_t bytes) {
    void* p = nullptr;
    if (bytes == 0) return p;
    const cudaError_t status = cudaMallocAsync(&p, bytes, stream());
    if (status == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      fail<DeviceError>("cudaMallocAsync", bytes,
                        " bytes do not fit on the GPU; take a smaller patch or batch");
    }
    check(status, "cudaMallocAsync");
    return p;
  }
  static void release(void* p, std::size_t) noexcept {
    if (p) static_cast<void>(cudaFreeAsync(p, stream()));
  }
  /// Between host and device in any direction. Waits only where the host takes part.
  static void copy(void* to, const void* from, std::size_t bytes) {
    if (bytes == 0) return;
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream()), "cudaMemcpyAsync");
    if (!on_device(to) || !on_device(from)) synchronize();
  }
  static void synchronize() { check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize"); }

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

 private:
  static unsigned blocks(Index n, Index threads) {
    const Index wanted = (n + threads - 1) / threads;
    return unsigned(wanted < 65535 ? wanted : 65535);
  }
  static bool on_device(const void* p) {
    cudaPointerAttributes where{};
    if (cudaPointerGetAttributes(&where, p) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      return false;
    }
    return where.type == cudaMemoryTypeDevice;
  }
};
static_assert(Device<Cuda> && HasTeams<Cuda>);

}  // namespace segmed
