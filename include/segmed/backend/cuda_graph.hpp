// SPDX-License-Identifier: Apache-2.0
// Work that is queued again and again, written down once. For units that nvcc compiles.
#pragma once
#include <memory>
#include <utility>

#include <segmed/backend/cuda_runtime.hpp>

namespace segmed {

/// Kernels and copies on the device, with the addresses they had when they were captured: those of
/// an arena that nobody else is given, as long as the graph lives.
class CudaGraph {
 public:
  /// Runs `body` without doing its work on the GPU, which is written down instead.
  ///
  ///   throws   DeviceError when the body asks for the host's memory or waits for the GPU, and
  ///            whatever the body throws; the GPU has done nothing then
  template <class Body>
  static CudaGraph captured(Body&& body) {
    CudaGraph made;
    cudaGraph_t graph = nullptr;
    {
      const Capture capture(made);
      body();
      graph = capture.ended();
    }
    const cudaError_t status = cudaGraphInstantiate(&made.executable_, graph, 0);
    static_cast<void>(cudaGraphDestroy(graph));
    CudaRuntime::check(status, "cudaGraphInstantiate");
    return made;
  }
  CudaGraph(CudaGraph&& other) noexcept
      : arena_(std::exchange(other.arena_, nullptr)),
        executable_(std::exchange(other.executable_, nullptr)) {}
  CudaGraph& operator=(CudaGraph&& other) noexcept {
    std::swap(arena_, other.arena_);
    std::swap(executable_, other.executable_);
    return *this;
  }
  ~CudaGraph() {
    if (executable_) {
      CudaRuntime::Driver::idle();  // it may still run
      static_cast<void>(cudaGraphExecDestroy(executable_));
    }
    if (arena_) CudaRuntime::memory().leave_arena(arena_);
  }
  /// Queues all of it.
  void launch() const {
    CudaRuntime::check(cudaGraphLaunch(executable_, CudaRuntime::stream()), "cudaGraphLaunch");
  }

 private:
  using Arena = DeviceMemory<CudaRuntime::Driver>::Arena;
  CudaGraph() = default;

  /// Ends a capture, whatever happened in it.
  class Capture {
   public:
    explicit Capture(CudaGraph& graph) {
      require<DeviceError>(CudaRuntime::memory().pooled(), "CUDA graph",
                           "SEGMED_GPU_POOL=off gives no addresses that stay");
      CudaRuntime::synchronize();
      graph.arena_ = CudaRuntime::memory().open_arena();
      // Other threads, such as those that prepare batches, may go on as they like.
      const cudaError_t status =
          cudaStreamBeginCapture(CudaRuntime::stream(), cudaStreamCaptureModeThreadLocal);
      if (status != cudaSuccess) CudaRuntime::memory().close_arena();
      CudaRuntime::check(status, "cudaStreamBeginCapture");
      CudaRuntime::capturing() = true;
    }
    ~Capture() {
      if (!CudaRuntime::capturing()) return;
      CudaRuntime::capturing() = false;
      CudaRuntime::memory().close_arena();
      cudaGraph_t unwanted = nullptr;
      static_cast<void>(cudaStreamEndCapture(CudaRuntime::stream(), &unwanted));
      if (unwanted) static_cast<void>(cudaGraphDestroy(unwanted));
      static_cast<void>(cudaGetLastError());
    }
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
    cudaGraph_t ended() const {
      CudaRuntime::capturing() = false;
      CudaRuntime::memory().close_arena();
      cudaGraph_t graph = nullptr;
      CudaRuntime::check(cudaStreamEndCapture(CudaRuntime::stream(), &graph),
                         "cudaStreamEndCapture");
      return graph;
    }
  };

  Arena* arena_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace segmed
