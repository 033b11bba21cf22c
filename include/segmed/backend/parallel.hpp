// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>

namespace segmed {

/// A team of threads that share one loop at a time. Chunks are cut by the loop's size, never by the
/// number of threads, so what is computed does not depend on how many there are.
class Team {
 public:
  using Chunk = void (*)(const void* body, Index begin, Index end);

  /// Of this process. Threads start with the first loop that has work for them.
  static Team& current() {
    static Team team;
    return team;
  }
  int threads() const { return wanted_; }
  void set_threads(int count) {
    require<ConfigError>(count >= 1 && count <= 1024, "set_threads", "the number of threads is ",
                         count, "; give 1 to 1024");
    const std::lock_guard owner(loop_);
    stop();
    wanted_ = count;
  }
  void run(Index n, Index grain, Chunk chunk, const void* body) {
    const Index chunks = (n + grain - 1) / grain;
    std::unique_lock owner(loop_, std::defer_lock);
    // A loop inside a loop, or beside one of another thread, runs on the calling thread alone.
    if (chunks <= 1 || wanted_ == 1 || inside() || !owner.try_lock()) {
      for (Index begin = 0; begin < n; begin += grain)
        chunk(body, begin, std::min(n, begin + grain));
      return;
    }
    start();
    n_ = n, grain_ = grain, chunk_ = chunk, body_ = body, next_ = 0, failure_ = nullptr;
    active_ = 0;
    ++generation_;
    if (asleep_ > 0) {
      { const std::lock_guard lock(mutex_); }
      wake_.notify_all();
    }
    work();
    // Nothing is left to begin: whoever has not come by now is not waited for.
    active_ -= closed;
    const auto alone = [&] { return active_ == -closed; };
    if (!soon(alone)) {
      std::unique_lock lock(mutex_);
      waiting_ = true;
      done_.wait(lock, alone);
      waiting_ = false;
    }
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  Team() : wanted_(int(std::max(1u, std::thread::hardware_concurrency()))) {}
  ~Team() { stop(); }

  static bool& inside() {
    thread_local bool flag = false;
    return flag;
  }
  // Loops follow each other closely, and to sleep and wake costs more than most of them: look again
  // for some ten microseconds first, letting others have the processor.
  template <class Condition>
  static bool soon(const Condition& condition) {
    for (int i = 0; i < 64; ++i) {
      if (condition()) return true;
      std::this_thread::yield();
    }
    return condition();
  }
  bool enter() {
    int others = active_;
    while (others >= 0)
      if (active_.compare_exchange_weak(others, others + 1)) return true;
    return false;
  }
  void start() {
    while (int(workers_.size()) < wanted_ - 1)
      workers_.emplace_back([this, seen = generation_.load()]() mutable {
        for (;;) {
          const auto called = [&] { return stopping_ || generation_ != seen; };
          if (!soon(called)) {
            std::unique_lock lock(mutex_);
            ++asleep_;
            wake_.wait(lock, called);
            --asleep_;
          }
          if (stopping_) return;
          seen = generation_;
          if (!enter()) continue;
          work();
          if (--active_ == -closed && waiting_) {
            { const std::lock_guard lock(mutex_); }
            done_.notify_one();
          }
        }
      });
  }
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
    workers_.clear();
    stopping_ = false;
  }
  void work() {
    inside() = true;
    try {
      for (Index c = next_++; c * grain_ < n_; c = next_++)
        chunk_(body_, c * grain_, std::min(n_, (c + 1) * grain_));
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      next_ = n_;
    }
    inside() = false;
  }

  std::vector<std::thread> workers_;
  std::mutex loop_, mutex_;
  std::condition_variable wake_, done_;
  // All sequentially consistent: who goes to sleep says so before the last look, who calls looks
  // for sleepers after the call.
  static constexpr int closed = 1 << 20;
  std::atomic<std::uint64_t> generation_ = 0;
  std::atomic<int> active_ = -closed;  // workers within the loop, less `closed` when none may enter
  std::atomic<int> asleep_ = 0;
  std::atomic<bool> stopping_ = false, waiting_ = false;
  std::atomic<int> wanted_;
  Index n_ = 0, grain_ = 1;
  Chunk chunk_ = nullptr;
  const void* body_ = nullptr;
  std::atomic<Index> next_ = 0;
  std::exception_ptr failure_;
};

/// Calls body(begin, end) for chunks of at most `grain` items that together are 0 to n - 1.
template <class Body>
void parallel_for(Index n, Index grain, const Body& body) {
  Team::current().run(
      n, std::max<Index>(1, grain),
      [](const void* b, Index begin, Index end) { (*static_cast<const Body*>(b))(begin, end); },
      &body);
}

/// How many threads the loops of this process use; all hardware threads at first.
inline void set_threads(int count) { Team::current().set_threads(count); }
inline int threads() { return Team::current().threads(); }

}  // namespace segmed
