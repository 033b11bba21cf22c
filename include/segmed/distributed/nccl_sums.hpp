// SPDX-License-Identifier: Apache-2.0
// What NCCL is told, when, and what is done when it fails. NCCL itself stands in
// distributed/nccl.hpp: all of this runs on the host, and is tested there with a stand-in.
#pragma once
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <segmed/core/json_text.hpp>
#include <segmed/distributed/mpi.hpp>

namespace segmed {

/// The calls of NCCL and of the stream that it works on. None of them waits; codes are NCCL's.
template <class L>
concept NcclCalls = requires(L& nccl, typename L::Id& id, typename L::Code& code, float* some,
                             double* more, Index count) {
  { nccl.gpu() } -> std::same_as<std::string>;  // tells this rank's GPU from all others
  { nccl.gpus() } -> std::same_as<int>;         // that this process could use
  { nccl.make_id(id) } -> std::same_as<typename L::Code>;
  { nccl.open(2, id, 1) } -> std::same_as<typename L::Code>;    // so many ranks, and which it is
  { nccl.sum(some, count) } -> std::same_as<typename L::Code>;  // after the device's work so far
  { nccl.sum(more, count) } -> std::same_as<typename L::Code>;
  { nccl.state(code) } -> std::same_as<typename L::Code>;  // ncclCommGetAsyncError
  { nccl.arrived() } -> std::same_as<bool>;                // all sums that were begun
  { nccl.close() } -> std::same_as<typename L::Code>;
  nccl.release();
  nccl.abort();  // whatever still runs; does nothing where nothing is open
  { nccl.explain(code) } -> std::same_as<std::string>;
  { L::success } -> std::convertible_to<typename L::Code>;
  { L::in_progress } -> std::convertible_to<typename L::Code>;
};

/// The GPU for a rank that was not told one: ranks take turns.
///
///   throws   DeviceError where there is none
inline int gpu_of_rank(int local_rank, int gpus) {
  require<DeviceError>(gpus > 0, "nccl", "no GPU can be used here; choose Cpu as the device");
  return local_rank % gpus;
}

/// What a rank tells the others of its GPU.
struct GpuOfRank {
  char gpu[48] = {};
  int local_ranks = 1, local_gpus = 1;  // on its machine; that it could use

  GpuOfRank() = default;
  GpuOfRank(const std::string& name, int ranks, int gpus) : local_ranks(ranks), local_gpus(gpus) {
    name.copy(gpu, sizeof gpu - 1);
  }
};
/// NCCL works with one GPU for each rank.
///
///   throws   DeviceError that names two ranks with the same one
inline void require_gpu_each(const std::vector<GpuOfRank>& ranks) {
  for (std::size_t b = 0; b < ranks.size(); ++b)
    for (std::size_t a = 0; a < b; ++a)
      require<DeviceError>(std::strcmp(ranks[a].gpu, ranks[b].gpu) != 0, "nccl", "ranks ", a,
                           " and ", b, " have one GPU between them, ", ranks[b].gpu, ": of ",
                           ranks[b].local_ranks, " ranks on their machine each can use ",
                           ranks[b].local_gpus, " GPUs; start one rank for each GPU, as ",
                           "mpirun --map-by ppr:", ranks[b].local_gpus, ":node does");
}

/// The ranks of an Mpi, which add what lies on their GPUs by NCCL; all else goes through MPI.
///
/// NCCL is never waited for within NCCL: the calls return at once, and this thread asks for their
/// state, so that it sees errors and the clock. Whoever sees an error, or has waited longer than
/// the Mpi's patience, aborts the communicator, so that its GPU is free again, and throws. A thread
/// that waits for the GPU itself cannot ask: for its sake the Mpi's watchdog asks as well.
///
///   throws   DeviceError with rank, function and NCCL's words
template <NcclCalls Library>
class NcclSums {
 public:
  using Code = typename Library::Code;
  static constexpr double grace = 10;  // seconds for an abort before the watchdog ends the process

  template <class... Arguments>
  explicit NcclSums(Mpi& mpi, Arguments&&... library)
      : mpi_(mpi), nccl_(std::forward<Arguments>(library)...) {
    const Ranks ranks(mpi);
    require_gpu_each(ranks.gathered(
        std::vector<GpuOfRank>{GpuOfRank(nccl_.gpu(), mpi.local_size(), nccl_.gpus())}));
    std::vector<typename Library::Id> ids(1);
    if (ranks.first())
      if (const Code code = nccl_.make_id(ids[0]); code != Library::success)
        fail_with("ncclGetUniqueId", code);
    const auto id = ranks.gathered(ids)[0];
    call("ncclCommInitRankConfig", [&] { return nccl_.open(ranks.size(), id, ranks.rank()); });
    mpi_.watch_also([this] { look(); });
  }
  NcclSums(const NcclSums&) = delete;
  NcclSums& operator=(const NcclSums&) = delete;
  ~NcclSums() {
    mpi_.watch_also({});
    {
      const Mpi::Wait wait(mpi_, grace);
      if (abort_.joinable()) abort_.join();
      if (std::uncaught_exceptions() > exceptions_) nccl_.abort();  // the others may never come
    }
    if (std::uncaught_exceptions() > exceptions_) return;
    try {
      call("ncclCommFinalize", [&] { return nccl_.close(); });
      nccl_.release();
    } catch (const DeviceError&) {  // and it was aborted
    }
  }

  int rank() const { return mpi_.rank(); }
  int size() const { return mpi_.size(); }
  void gather(const void* mine, std::size_t bytes, void* all) { mpi_.gather(mine, bytes, all); }
  void start_sum(float* in_place, Index count) { mpi_.start_sum(in_place, count); }
  void start_sum(double* in_place, Index count) { mpi_.start_sum(in_place, count); }
  void start_device_sum(float* in_place, Index count) { start(in_place, count); }
  void start_device_sum(double* in_place, Index count) { start(in_place, count); }
  void progress() { mpi_.progress(); }
  void finish_sums() {
    mpi_.finish_sums();
    if (!std::exchange(started_, false)) return;
    const Mpi::Wait wait(mpi_, grace);
    wait_for("ncclAllReduce", wait, [&] { return nccl_.arrived(); });
  }

 private:
  template <class W>
  void start(W* in_place, Index count) {
    started_ = true;
    call("ncclAllReduce", [&] { return nccl_.sum(in_place, count); });
  }
  /// Asks for something, and waits until NCCL has taken it up, for which it may need the others.
  template <class Body>
  void call(const char* function, const Body& body) {
    const Mpi::Wait wait(mpi_, grace);
    {
      const std::lock_guard lock(mutex_);
      require<DeviceError>(lost_.empty(), "nccl", lost_);
      const Code code = body();
      if (code != Library::success && code != Library::in_progress) fail_with(function, code);
    }
    wait_for(function, wait, [] { return true; });
  }
  template <class Ready>
  void wait_for(const char* function, const Mpi::Wait& wait, const Ready& ready) {
    for (;; std::this_thread::sleep_for(std::chrono::microseconds(20))) {
      const std::lock_guard lock(mutex_);
      require<DeviceError>(lost_.empty(), "nccl", lost_);
      const Code now = state();
      if (now == Library::success && ready()) return;
      if (now != Library::success && now != Library::in_progress)
        fail_with((std::string(function) + ", by ncclCommGetAsyncError").c_str(), now);
      if (!wait.too_long()) continue;
      lose(text(function, "waited more than " + number_text(mpi_.patience()) +
                              " s for the other ranks; one of them has ended or hangs, see what "
                              "it said"));
      nccl_.abort();
      fail<DeviceError>("nccl", lost_);
    }
  }
  Code state() {
    Code now = Library::success;
    const Code asked = nccl_.state(now);
    return asked == Library::success ? now : asked;
  }
  /// On the watchdog's thread. What it finds is thrown by the other one, as soon as that comes by.
  void look() {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock || !lost_.empty()) return;  // the other one asks by itself
    const Code now = state();
    if (now == Library::success || now == Library::in_progress) return;
    lose(text("ncclCommGetAsyncError", nccl_.explain(now)));
    // On a thread of its own: should it not come to an end, the watchdog still watches.
    abort_ = std::thread([this] {
      const std::lock_guard alone(mutex_);
      nccl_.abort();
    });
  }
  [[noreturn]] void fail_with(const char* function, Code code) {
    lose(text(function, nccl_.explain(code)));
    nccl_.abort();
    fail<DeviceError>("nccl", lost_);
  }
  void lose(const std::string& why) { lost_ = why; }
  std::string text(const char* function, const std::string& what) const {
    return "rank " + std::to_string(rank()) + " of " + std::to_string(size()) + ": " + function +
           ": " + what;
  }

  Mpi& mpi_;
  Library nccl_;
  bool started_ = false;
  int exceptions_ = std::uncaught_exceptions();
  std::string lost_;  // why there is no communicator any more
  std::mutex mutex_;  // around the library and lost_
  std::thread abort_;
};

}  // namespace segmed
