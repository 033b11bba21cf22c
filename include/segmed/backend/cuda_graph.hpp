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
    if (arena_) CudaRuntime::memory().leave_arena(arena_);  // and it runs no more
    if (executable_) static_cast<void>(cudaGraphExecDestroy(executable_));
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
      graph.arena_ = CudaRuntime::memory().open_arena();
      CudaRuntime::begin_capture();
      // Other threads, such as those that prepare batches, may go on as they like.
      const cudaError_t status =
          cudaStreamBeginCapture(CudaRuntime::stream(), cudaStreamCaptureModeThreadLocal);
      if (status != cudaSuccess) close();
      CudaRuntime::check(status, "cudaStreamBeginCapture");
    }
    ~Capture() {
      if (!CudaRuntime::capturing()) return;
      cudaGraph_t unwanted = nullptr;
      static_cast<void>(cudaStreamEndCapture(CudaRuntime::stream(), &unwanted));
      if (unwanted) static_cast<void>(cudaGraphDestroy(unwanted));
      static_cast<void>(cudaGetLastError());
      close();
    }
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
    cudaGraph_t ended() const {
      cudaGraph_t graph = nullptr;
      const cudaError_t status = cudaStreamEndCapture(CudaRuntime::stream(), &graph);
      close();
      CudaRuntime::check(status, "cudaStreamEndCapture");
      return graph;
    }

   private:
    // Only now may other threads wait for the device again.
    static void close() {
      CudaRuntime::end_capture();
      CudaRuntime::memory().close_arena();
    }
  };

  Arena* arena_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace segmed
