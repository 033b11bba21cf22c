// SPDX-License-Identifier: Apache-2.0
// Gradients between GPUs by NCCL 2.28 or newer. For units that nvcc compiles.
#pragma once
#include <cstdlib>
#include <nccl.h>

#include <segmed/backend/cuda_runtime.hpp>
#include <segmed/distributed/nccl_sums.hpp>

namespace segmed {

/// NCCL itself, on one GPU and a stream of its own: sums go on beside what the device computes.
class NcclLibrary {
 public:
  using Code = ncclResult_t;
  using Id = ncclUniqueId;
  static constexpr Code success = ncclSuccess, in_progress = ncclInProgress;

  explicit NcclLibrary(int gpu) : number_(gpu) {
    CudaRuntime::use(gpu);
    setenv("NCCL_NVLS_ENABLE", "0", 0);  // before NCCL's first call; see Nccl
    int lowest = 0, highest = 0;
    CudaRuntime::check(cudaDeviceGetStreamPriorityRange(&lowest, &highest),
                       "cudaDeviceGetStreamPriorityRange");
    // Others wait for the sums, so they come before what the device has still to compute.
    CudaRuntime::check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, highest),
                       "cudaStreamCreateWithPriority");
    CudaRuntime::check(cudaEventCreateWithFlags(&queued_, cudaEventDisableTiming),
                       "cudaEventCreate");
  }
  NcclLibrary(const NcclLibrary&) = delete;
  NcclLibrary& operator=(const NcclLibrary&) = delete;
  ~NcclLibrary() {
    abort();
    if (queued_) static_cast<void>(cudaEventDestroy(queued_));
    if (stream_) static_cast<void>(cudaStreamDestroy(stream_));
  }

  /// By the number that its maker gave it, which is the same for all processes.
  std::string gpu() const {
    cudaDeviceProp properties{};
    CudaRuntime::check(cudaGetDeviceProperties(&properties, number_), "cudaGetDeviceProperties");
    std::string name = "GPU-";
    for (const char byte : properties.uuid.bytes) {
      const auto value = static_cast<unsigned char>(byte);
      name += "0123456789abcdef"[value >> 4];
      name += "0123456789abcdef"[value & 15];
    }
    return name;
  }
  int gpus() const { return CudaRuntime::count(); }
  Code make_id(Id& id) const { return ncclGetUniqueId(&id); }
  Code open(int ranks, const Id& id, int rank) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.collnetEnable = 0;
    config.commName = "segmed";
    return ncclCommInitRankConfig(&comm_, ranks, id, rank, &config);
  }
  Code sum(float* in_place, Index count) { return add(in_place, count, ncclFloat32); }
  Code sum(double* in_place, Index count) { return add(in_place, count, ncclFloat64); }
  Code state(Code& now) const { return ncclCommGetAsyncError(comm_, &now); }
  bool arrived() const {
    const cudaError_t status = cudaStreamQuery(stream_);
    if (status == cudaErrorNotReady) return false;
    CudaRuntime::check(status, "cudaStreamQuery");
    return true;
  }
  Code close() { return ncclCommFinalize(comm_); }
  void release() { static_cast<void>(ncclCommDestroy(std::exchange(comm_, nullptr))); }
  void abort() {
    if (comm_) static_cast<void>(ncclCommAbort(std::exchange(comm_, nullptr)));
  }
  std::string explain(Code code) const {
    const char* const last = ncclGetLastError(nullptr);
    std::string text = ncclGetErrorString(code);
    if (last && *last) text += std::string(": ") + last;
    return text;
  }

 private:
  Code add(void* in_place, Index count, ncclDataType_t type) {
    CudaRuntime::check(cudaEventRecord(queued_, CudaRuntime::stream()), "cudaEventRecord");
    CudaRuntime::check(cudaStreamWaitEvent(stream_, queued_, 0), "cudaStreamWaitEvent");
    return ncclAllReduce(in_place, in_place, std::size_t(count), type, ncclSum, comm_, stream_);
  }

  int number_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t queued_ = nullptr;
  ncclComm_t comm_ = nullptr;
};

/// The ranks of an Mpi with a GPU each, as a Communicator for `Cuda`: `Ranks(nccl)`. Made on the
/// thread that trains, before its first tensor, and gone before the Mpi.
///
/// The same ranks on the same machines give the same bits, as far as NCCL chooses the same
/// algorithm again, which it does by sizes and by what connects the GPUs. Switches that add by
/// themselves may do so in another order each time, so both kinds are turned off: those of the
/// network in the communicator's configuration (`collnetEnable`), those of NVLink by
/// NCCL_NVLS_ENABLE=0, which is set for the process unless the environment says otherwise.
/// NCCL_ALGO=Ring and NCCL_PROTO=Simple leave NCCL no choice at all. Another number of ranks gives
/// other bits.
///
///   throws   DeviceError where two ranks have one GPU, or with NCCL's words
///   source   what its authors say of NVLink's switches: github.com/NVIDIA/nccl, number 1497
class Nccl : public NcclSums<NcclLibrary> {
 public:
  /// Takes the GPU of the rank's number on its machine.
  explicit Nccl(Mpi& mpi) : Nccl(mpi, gpu_of_rank(mpi.local_rank(), CudaRuntime::count())) {}
  Nccl(Mpi& mpi, int gpu) : NcclSums(mpi, gpu) {}
};
static_assert(DeviceCommunicator<Nccl>);

}  // namespace segmed
