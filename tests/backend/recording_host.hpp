// SPDX-License-Identifier: Apache-2.0
// A device on the host that behaves as a GPU does where that can go wrong: its memory is its own,
// copies that go ahead arrive late, and work can be written down and replayed.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <sys/mman.h>
#include <vector>

#include <segmed/backend/cpu.hpp>
#include <segmed/backend/device_memory.hpp>

namespace fake {

using namespace segmed;

struct RecordingHost {
  /// What is not written yet, or was freed, is full of NaN.
  static void spoil(void* p, std::size_t bytes) { std::memset(p, 0xff, bytes); }

  struct Driver {
    static inline std::map<const std::byte*, std::size_t> regions = {};
    static void* map(std::size_t bytes) {
      void* const p =
          ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (p == MAP_FAILED) return nullptr;
      spoil(p, bytes);
      regions[static_cast<std::byte*>(p)] = bytes;
      if (guarded && open == 0) protect(PROT_NONE);
      return p;
    }
    static void unmap(void* p) noexcept {
      const auto region = regions.find(static_cast<std::byte*>(p));
      ::munmap(p, region->second);
      regions.erase(region);
    }
    static void protect(int how) {
      for (const auto& [at, bytes] : regions) ::mprotect(const_cast<std::byte*>(at), bytes, how);
    }
    static inline int open = 0;
    static inline bool guarded = false;
    static void idle() noexcept {}
    static bool may_unmap() { return !recording; }
    static std::size_t available() { return 0; }
    static bool owns(const void* p) {
      auto after = regions.upper_bound(static_cast<const std::byte*>(p));
      return after != regions.begin() && p < std::prev(after)->first + std::prev(after)->second;
    }
  };
  /// While the device works.
  struct AtWork {
    AtWork() {
      if (Driver::open++ == 0 && Driver::guarded) Driver::protect(PROT_READ | PROT_WRITE);
    }
    ~AtWork() {
      if (--Driver::open == 0 && Driver::guarded) Driver::protect(PROT_NONE);
    }
    AtWork(const AtWork&) = delete;
    AtWork& operator=(const AtWork&) = delete;
  };
  /// Where the host touches the device's memory, the test dies as a program with a GPU would. This
  /// takes time.
  struct Guarded {
    Guarded() { Driver::guarded = true, Driver::protect(PROT_NONE); }
    ~Guarded() { Driver::guarded = false, Driver::protect(PROT_READ | PROT_WRITE); }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;
  };
  using Memory = DeviceMemory<Driver>;
  using Work = std::vector<std::function<void()>>;
  static inline Work* recording = nullptr;
  static inline int allocations = -1;  // that are given until one fails; -1: all

  static void* allocate(std::size_t bytes) {
    require<MemoryError>(allocations != 0, "fake", "there is no more");
    if (allocations > 0) --allocations;
    return Memory::current().allocate(bytes);
  }
  static void release(void* p, std::size_t bytes) noexcept {
    if (p && !recording) {
      const AtWork now;
      spoil(p, bytes);
    }
    Memory::current().release(p, bytes);
  }
  static void copy(void* to, const void* from, std::size_t bytes) {
    require<DeviceError>(!recording || (Driver::owns(to) && Driver::owns(from)), "fake",
                         "a copy from or to the host cannot be captured");
    if (bytes > 0) queue([=] { std::memcpy(to, from, bytes); });
  }
  static void synchronize() {
    require<DeviceError>(!recording, "fake", "to wait cannot be captured");
  }
  /// Does it, or writes it down.
  template <class W>
  static void queue(const W& work) {
    if (recording) return recording->push_back(work);
    const AtWork now;
    work();
  }
  template <class Kernel>
  static void launch(Index n, const Kernel& kernel) {
    queue([=] { Cpu::launch(n, kernel); });
  }
  template <class Kernel>
  static void launch_blocks(Index n, const Kernel& kernel) {
    queue([=] { Cpu::launch_blocks(n, kernel); });
  }
  template <class Kernel>
  static void launch_rows(Index rows, Index columns, const Kernel& kernel) {
    queue([=] { Cpu::launch_rows(rows, columns, kernel); });
  }

  static void* allocate_host(std::size_t bytes) { return std::malloc(bytes); }
  static void release_host(void* p) noexcept {
    for (const Transfers* transfers : Transfers::all()) early += transfers->reads(p);
    std::free(p);
  }
  static inline int copies_ahead = 0, early = 0;  // memory that was freed while it was read
  /// Copies that arrive when they are waited for, and not before.
  class Transfers {
   public:
    Transfers() { all().insert(this); }
    Transfers(const Transfers&) = delete;
    Transfers& operator=(const Transfers&) = delete;
    ~Transfers() { join(), all().erase(this); }
    void copy(void* to, const void* from, std::size_t bytes) {
      ++copies_ahead;
      ahead_.push_back({to, from, bytes});
    }
    void join() {
      const AtWork now;
      for (const Copy& c : ahead_) std::memcpy(c.to, c.from, c.bytes);
      ahead_.clear();
    }
    void finish() { join(); }
    bool reads(const void* p) const {
      return std::any_of(ahead_.begin(), ahead_.end(), [&](const Copy& c) { return c.from == p; });
    }
    static std::set<const Transfers*>& all() {
      static std::set<const Transfers*> those;
      return those;
    }

   private:
    struct Copy {
      void* to;
      const void* from;
      std::size_t bytes;
    };
    std::vector<Copy> ahead_;
  };

  class Graph {
   public:
    template <class Body>
    static Graph captured(Body&& body) {
      Graph made;
      made.arena_ = Memory::current().open_arena();
      recording = made.work_.get();
      try {
        body();
      } catch (...) {
        recording = nullptr;
        Memory::current().close_arena();
        throw;
      }
      recording = nullptr;
      Memory::current().close_arena();
      return made;
    }
    Graph(Graph&& other) noexcept
        : work_(std::move(other.work_)), arena_(std::exchange(other.arena_, nullptr)) {}
    Graph& operator=(Graph&& other) noexcept {
      std::swap(work_, other.work_), std::swap(arena_, other.arena_);
      return *this;
    }
    ~Graph() {
      if (arena_) Memory::current().leave_arena(arena_);
    }
    void launch() const {
      const AtWork now;
      for (const auto& work : *work_) work();
    }

   private:
    Graph() : work_(std::make_unique<Work>()) {}
    std::unique_ptr<Work> work_;
    Memory::Arena* arena_ = nullptr;
  };
};
static_assert(Device<RecordingHost>);
static_assert(CopiesAhead<RecordingHost>);

}  // namespace fake
