// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <mpi.h>
#include <mutex>
#include <thread>

#include <segmed/backend/communicator.hpp>
#include <segmed/core/error.hpp>

namespace segmed {

/// The processes that `mpirun` started, as a Communicator. One object per process, made on the
/// thread that trains, for as long as they work together.
///
/// Ends the job on every rank where one of them throws past this object, or waits for the others
/// longer than `patience`: all would wait for ever.
///
///   units    patience in seconds; 0: for ever
///   throws   DeviceError with the rank when MPI reports a failure
class Mpi {
 public:
  explicit Mpi(double patience = 300) : patience_(patience) {
    int ready = 0;
    MPI_Initialized(&ready);
    mine_ = !ready;
    int level = MPI_THREAD_FUNNELED;  // loaders have threads, but only this one calls MPI
    if (mine_) check(MPI_Init_thread(nullptr, nullptr, level, &level), "MPI_Init_thread");
    require<DeviceError>(level >= MPI_THREAD_FUNNELED, "mpi",
                         "this MPI does not allow other threads beside the one that calls it");
    check(MPI_Comm_dup(MPI_COMM_WORLD, &world_), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(world_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(world_, &rank_);
    MPI_Comm_size(world_, &size_);
    MPI_Comm here = MPI_COMM_NULL;
    check(MPI_Comm_split_type(world_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &here),
          "MPI_Comm_split_type");
    MPI_Comm_rank(here, &local_rank_);
    MPI_Comm_size(here, &local_size_);
    MPI_Comm_free(&here);
    if (size_ > 1) guard_ = std::thread([this] { watch(); });
  }
  Mpi(const Mpi&) = delete;
  Mpi& operator=(const Mpi&) = delete;
  ~Mpi() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    wake_.notify_all();
    if (guard_.joinable()) guard_.join();
    if (std::uncaught_exceptions() > exceptions_) return;  // whoever catches it calls end_job
    MPI_Comm_free(&world_);
    if (mine_) MPI_Finalize();
  }

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// The number of this rank among those on its machine, and how many they are.
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }
  double patience() const { return patience_; }
  /// Other than in MPI, bytes are those of one rank.
  void gather(const void* mine, std::size_t bytes, void* all) {
    const Wait wait(*this);
    const int count = int(bytes);
    require<DeviceError>(bytes <= (std::size_t{1} << 30), "mpi", "rank ", rank_, " of ", size_,
                         ": ", bytes, " bytes are too many for one message");
    check(MPI_Allgather(mine, count, MPI_BYTE, all, count, MPI_BYTE, world_), "MPI_Allgather");
    bytes_ += Index(bytes) * (size_ - 1);
  }
  void start_sum(float* in_place, Index count) { start(in_place, count, MPI_FLOAT); }
  void start_sum(double* in_place, Index count) { start(in_place, count, MPI_DOUBLE); }
  void progress() {
    int done = 0;
    if (!sums_.empty())
      check(MPI_Testall(int(sums_.size()), sums_.data(), &done, MPI_STATUSES_IGNORE),
            "MPI_Testall");
  }
  void finish_sums() {
    const Wait wait(*this);
    check(MPI_Waitall(int(sums_.size()), sums_.data(), MPI_STATUSES_IGNORE), "MPI_Waitall");
    sums_.clear();
  }

  /// Bytes that this rank had to send so far, if sums travel around a ring.
  Index bytes_sent() const { return bytes_; }
  /// Seconds that this rank has spent waiting for others.
  double seconds_waited() const { return waited_; }

  using Time = std::chrono::steady_clock;
  /// The time within a call that other ranks can keep waiting. `grace`: seconds beyond the patience
  /// that are left to the caller to end it in a better way.
  class Wait {
   public:
    explicit Wait(Mpi& mpi, double grace = 0) : mpi_(mpi) {
      const auto later =
          std::chrono::duration_cast<Time::duration>(std::chrono::duration<double>(grace));
      mpi_.since_ = (since_ + later).time_since_epoch().count();
    }
    ~Wait() {
      mpi_.since_ = 0;
      mpi_.waited_ += seconds();
    }
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;
    double seconds() const { return std::chrono::duration<double>(Time::now() - since_).count(); }
    /// Whether it has lasted too long.
    bool too_long() const { return mpi_.patience_ > 0 && seconds() >= mpi_.patience_; }

   private:
    Mpi& mpi_;
    Time::time_point since_ = Time::now();
  };
  /// Has the thread that watches over waiting look at something else too, about once a second;
  /// an empty function ends that.
  void watch_also(std::function<void()> look) {
    const std::lock_guard lock(mutex_);
    look_ = std::move(look);
  }

  /// Whether this process is one of several that `mpirun` or `srun` started.
  static bool launched() {
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"})
      if (std::getenv(name)) return true;
    return false;
  }
  /// Says why on this rank, and ends the processes of all. To be called where an exception has left
  /// the scope of an Mpi; does nothing else than return when there never was one.
  static void end_job(const std::string& why, int exit_code) {
    int ready = 0, finished = 0, rank = 0;
    MPI_Initialized(&ready);
    MPI_Finalized(&finished);
    if (!ready || finished) return;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    std::fprintf(stderr, "rank %d: %s\n", rank, why.c_str());
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
  }

 private:
  void watch() {
    const std::chrono::duration<double> pause(patience_ > 0 ? std::min(1.0, patience_ / 4) : 1.0);
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, pause, [this] { return over_; })) {
      if (look_) look_();
      const Time::rep since = since_;
      if (since == 0 || patience_ <= 0) continue;
      const auto waited = Time::now() - Time::time_point(Time::duration(since));
      if (std::chrono::duration<double>(waited).count() < patience_) continue;
      // No MPI_Abort: another thread is within MPI. The launcher ends the other ranks.
      std::fprintf(stderr,
                   "rank %d: segmed: mpi: waited more than %g s for the other %d ranks; one of "
                   "them has ended or hangs, see what it said\n",
                   rank_, patience_, size_ - 1);
      std::_Exit(1);
    }
  }
  template <class W>
  void start(W* in_place, Index count, MPI_Datatype type) {
    constexpr Index most = Index{1} << 28;
    for (Index at = 0; at < count; at += most) {
      sums_.emplace_back();
      check(MPI_Iallreduce(MPI_IN_PLACE, in_place + at, int(std::min(most, count - at)), type,
                           MPI_SUM, world_, &sums_.back()),
            "MPI_Iallreduce");
    }
    bytes_ += 2 * Index(sizeof(W)) * count * (size_ - 1) / size_;
  }
  void check(int code, const char* call) const {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING + 1] = {};
    int length = 0;
    MPI_Error_string(code, text, &length);
    fail<DeviceError>("mpi", "rank ", rank_, " of ", size_, ": ", call, ": ",
                      std::string(text, std::size_t(length)));
  }

  double patience_;
  bool mine_ = true;
  MPI_Comm world_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1;
  int exceptions_ = std::uncaught_exceptions();
  std::vector<MPI_Request> sums_;
  Index bytes_ = 0;
  double waited_ = 0;
  std::atomic<Time::rep> since_ = 0;
  std::thread guard_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::function<void()> look_;
  bool over_ = false;
};
static_assert(Communicator<Mpi>);

/// Runs `body(mpi)`; where it throws on one rank, ends all of them with that rank's error.
template <class Body>
int with_mpi(const Body& body, double patience = 300) {
  try {
    Mpi mpi(patience);
    return body(mpi);
  } catch (const std::exception& error) {
    Mpi::end_job(error.what(), 1);
    throw;  // MPI had not begun
  }
}

}  // namespace segmed
