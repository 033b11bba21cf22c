// SPDX-License-Identifier: Apache-2.0
// NVIDIA GPUs: the same functors as on the CPU, launched over a grid. For units that nvcc compiles.
#pragma once
#ifndef __CUDACC__
#error "segmed/backend/cuda.hpp is for nvcc; compile this unit as CUDA or include segmed/segmed.hpp"
#endif
#include <cuda_runtime.h>

#include <segmed/backend/device.hpp>
#include <segmed/core/error.hpp>
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

/// The current CUDA device, in the order of the calling thread's own stream.
struct Cuda {
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
  static bool on_device(const void* p) {
    cudaPointerAttributes where{};
    if (cudaPointerGetAttributes(&where, p) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      return false;
    }
    return where.type == cudaMemoryTypeDevice;
  }
};
static_assert(Device<Cuda>);

}  // namespace segmed

#if defined(SEGMED_CUDNN)
#include <segmed/backend/cudnn/device.hpp>
#endif
