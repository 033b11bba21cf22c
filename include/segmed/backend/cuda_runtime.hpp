// SPDX-License-Identifier: Apache-2.0
// What segmed asks of CUDA beside kernels: a device, its memory, copies and their order. For units
// that nvcc compiles.
#pragma once
#ifndef __CUDACC__
#error "segmed/backend/cuda.hpp is for nvcc; compile this unit as CUDA or include segmed/segmed.hpp"
#endif
#include <atomic>
#include <string>

#include <cuda_runtime.h>

#include <segmed/backend/device_memory.hpp>

namespace segmed {

/// One GPU, the same for the whole process, in the order of the calling thread's own stream.
class CudaRuntime {
 public:
  /// Throws DeviceError with the name of the call and CUDA's own words.
  static void check(cudaError_t status, const char* call) {
    if (status == cudaSuccess) return;
    static_cast<void>(cudaGetLastError());
    const bool absent = status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver ||
                        status == cudaErrorSystemDriverMismatch;
    fail<DeviceError>(call, cudaGetErrorString(status),
                      absent ? "; no GPU can be used here, choose Cpu as the device" : "");
  }
  /// GPUs that can be used; 0 where there is no driver.
  static int count() {
    int found = 0;
    if (cudaGetDeviceCount(&found) == cudaSuccess) return found;
    static_cast<void>(cudaGetLastError());
    return 0;
  }
  /// Such as "NVIDIA H100 80GB HBM3".
  static std::string name(int ordinal) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, ordinal), "cudaGetDeviceProperties");
    return properties.name;
  }
  /// Takes that GPU for this process, before its first tensor; else it is GPU 0.
  ///
  ///   throws   DeviceError when there is none of that number, or tensors lie on another one
  static void use(int ordinal) {
    const int found = count();
    require<DeviceError>(ordinal >= 0 && ordinal < found, "GPU", "there is no GPU ", ordinal,
                         ", but ", found, "; choose Cpu or another number");
    require<DeviceError>(chosen() == ordinal || memory().held() == 0, "GPU", "tensors lie on GPU ",
                         chosen().load(), " already; choose before the first one");
    chosen() = ordinal;
    check(cudaSetDevice(ordinal), "cudaSetDevice");
  }
  /// The number of this process's GPU.
  static int number() { return chosen(); }
  static cudaStream_t stream() {
    thread_local const bool bound = bind();
    static_cast<void>(bound);
    return cudaStreamPerThread;
  }

  struct Driver {
    static void* map(std::size_t bytes) {
      stream();  // so that this thread is on the right device
      // Memory of its own disturbs no capture, which CUDA cannot know.
      cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
      check(cudaThreadExchangeStreamCaptureMode(&mode), "cudaThreadExchangeStreamCaptureMode");
      void* p = nullptr;
      const cudaError_t status = cudaMalloc(&p, bytes);
      static_cast<void>(cudaThreadExchangeStreamCaptureMode(&mode));
      if (status != cudaErrorMemoryAllocation) check(status, "cudaMalloc");
      static_cast<void>(cudaGetLastError());
      return status == cudaSuccess ? p : nullptr;
    }
    static void unmap(void* p) noexcept {
      idle();
      static_cast<void>(cudaFree(p));
    }
    static void idle() noexcept {
      if (captures() > 0) return;
      static_cast<void>(cudaSetDevice(chosen()));  // a thread that only frees was bound to none
      static_cast<void>(cudaDeviceSynchronize());
    }
    static bool may_unmap() { return captures() == 0; }
    static std::size_t available() {
      std::size_t free = 0, total = 0;
      if (cudaMemGetInfo(&free, &total) != cudaSuccess) static_cast<void>(cudaGetLastError());
      return free;
    }
  };
  static DeviceMemory<Driver>& memory() { return DeviceMemory<Driver>::current(); }
  static void* allocate(std::size_t bytes) { return memory().allocate(bytes); }
  static void release(void* p, std::size_t bytes) noexcept { memory().release(p, bytes); }

  /// Between host and device in any direction. Waits only where the host takes part.
  static void copy(void* to, const void* from, std::size_t bytes) {
    if (bytes == 0) return;
    const bool host = !on_device(to) || !on_device(from);
    if (host) refuse_in_capture("a copy from or to the host");
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream()), "cudaMemcpyAsync");
    if (host) synchronize();
  }
  static void synchronize() {
    refuse_in_capture("to wait for the GPU");
    check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize");
  }

  /// Memory of the host that the GPU reads by itself.
  static void* allocate_host(std::size_t bytes) {
    void* p = nullptr;
    stream();
    check(cudaHostAlloc(&p, bytes, cudaHostAllocPortable), "cudaHostAlloc");
    return p;
  }
  static void release_host(void* p) noexcept { static_cast<void>(cudaFreeHost(p)); }
  /// Copies from `allocate_host`'s memory beside the work that the calling thread queues: a stream
  /// of their own, which nobody else waits for.
  class Transfers {
   public:
    Transfers() {
      CudaRuntime::stream();
      check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
      check(cudaEventCreateWithFlags(&queued_, cudaEventDisableTiming), "cudaEventCreate");
      check(cudaEventCreateWithFlags(&arrived_, cudaEventDisableTiming), "cudaEventCreate");
    }
    /// Waits for the copies.
    ~Transfers() {
      static_cast<void>(cudaStreamSynchronize(stream_));
      static_cast<void>(cudaEventDestroy(queued_));
      static_cast<void>(cudaEventDestroy(arrived_));
      static_cast<void>(cudaStreamDestroy(stream_));
    }
    Transfers(const Transfers&) = delete;
    Transfers& operator=(const Transfers&) = delete;

    /// After all work that this thread has queued, before none.
    void copy(void* to, const void* from, std::size_t bytes) {
      if (bytes == 0) return;
      check(cudaEventRecord(queued_, CudaRuntime::stream()), "cudaEventRecord");
      check(cudaStreamWaitEvent(stream_, queued_, 0), "cudaStreamWaitEvent");
      check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
    }
    /// What this thread queues from now on comes after the copies so far.
    void join() {
      check(cudaEventRecord(arrived_, stream_), "cudaEventRecord");
      check(cudaStreamWaitEvent(CudaRuntime::stream(), arrived_, 0), "cudaStreamWaitEvent");
    }
    /// Waits until the host's memory may be written again.
    void finish() { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

   private:
    cudaStream_t stream_ = nullptr;
    cudaEvent_t queued_ = nullptr, arrived_ = nullptr;
  };

  /// Whether this thread's work is written down instead of done; see backend/cuda_graph.hpp.
  static bool capturing() { return captures_here(); }
  static void begin_capture() { captures_here() = true, ++captures(); }
  static void end_capture() { captures_here() = false, --captures(); }

 private:
  static std::atomic<int>& chosen() {
    static std::atomic<int> ordinal = 0;
    return ordinal;
  }
  /// How many threads capture now.
  static std::atomic<int>& captures() {
    static std::atomic<int> all = 0;
    return all;
  }
  static bool& captures_here() {
    thread_local bool now = false;
    return now;
  }
  static bool bind() {
    if (chosen() != 0) check(cudaSetDevice(chosen()), "cudaSetDevice");
    return true;
  }
  static void refuse_in_capture(const char* what) {
    require<DeviceError>(!capturing(), "CUDA graph", "a step that asks for ", what,
                         " cannot be captured");
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

}  // namespace segmed
