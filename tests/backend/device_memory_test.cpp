// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <thread>

#include <doctest/doctest.h>

#include "recording_host.hpp"

namespace {
using namespace segmed;

/// A device of its own for each test, since limits and counts are of the process.
template <int number>
struct Counting {
  static inline int mapped = 0, waits = 0;
  static inline std::size_t most = std::size_t(1) << 40;  // what it has
  static void* map(std::size_t bytes) {
    if (bytes > most) return nullptr;
    ++mapped;
    return std::aligned_alloc(256, bytes);
  }
  static void unmap(void* p) noexcept {
    --mapped;
    std::free(p);
  }
  static void idle() noexcept { ++waits; }
  static bool may_unmap() { return true; }
  static std::size_t available() { return std::size_t(3) << 20; }
};
constexpr std::size_t mebi = std::size_t(1) << 20;

}  // namespace

TEST_SUITE_BEGIN("backend/device_memory");

TEST_CASE("bytes as people write them") {
  CHECK(bytes_of("x", "800") == 800);
  CHECK(bytes_of("x", "2K") == 2048);
  CHECK(bytes_of("x", "1.5 GiB") == 3 * 512 * mebi);
  CHECK(bytes_of("x", "40GiB") == 40 * 1024 * mebi);
  for (const char* wrong : {"", "much", "-1", "0", "3 apples", "12 GB x", "nan", "1e30T"})
    CHECK_THROWS_AS(bytes_of("x", wrong), ConfigError);
  CHECK_THROWS_WITH(
      bytes_of("SEGMED_GPU_MEMORY", "much"),
      "segmed: SEGMED_GPU_MEMORY: \"much\" is no number of bytes; give one such as 20GiB or "
      "512MiB");
  CHECK(bytes_text(800) == "800 bytes");
  CHECK(bytes_text(3 * 512 * mebi) == "1.5 GiB");
}

TEST_CASE("what is freed is given out again without asking the device") {
  auto& memory = DeviceMemory<Counting<0>>::current();
  for (int step = 0; step < 3; ++step) {
    void* const a = memory.allocate(5 * mebi);
    void* const b = memory.allocate(1000);
    CHECK(reinterpret_cast<std::uintptr_t>(b) % 256 == 0);
    CHECK(memory.used() == 5 * mebi + 1000);
    memory.release(a, 5 * mebi);
    memory.release(b, 1000);
  }
  CHECK(Counting<0>::mapped == 1);
  CHECK(memory.used() == 0);
  CHECK(memory.peak() == 5 * mebi + 1000);
  CHECK(memory.allocate(0) == nullptr);
  memory.trim();
  CHECK(memory.held() == 0);
  CHECK(Counting<0>::mapped == 0);
}

TEST_CASE("a full device says what is needed, what is used, and what to lower") {
  auto& memory = DeviceMemory<Counting<1>>::current();
  memory.set_limit(64 * mebi);
  void* const held = memory.allocate(40 * mebi);
  CHECK_THROWS_AS(memory.allocate(40 * mebi), MemoryError);
  CHECK_THROWS_WITH(memory.allocate(40 * mebi),
                    "segmed: GPU memory: 40 MiB more are needed; tensors use 40 MiB, 40 MiB are "
                    "held, 3 MiB are free on the device, the limit is 64 MiB (SEGMED_GPU_MEMORY); "
                    "take a smaller patch or batch, or narrower widths");
  memory.release(held, 40 * mebi);
  // Regions that lie idle give way to one that is large enough.
  void* const large = memory.allocate(60 * mebi);
  CHECK(Counting<1>::mapped == 1);
  memory.release(large, 60 * mebi);

  auto& other = DeviceMemory<Counting<2>>::current();
  Counting<2>::most = 10 * mebi;
  CHECK(other.allocate(9 * mebi) != nullptr);  // a region of the usual size does not fit
  CHECK_THROWS_AS(other.allocate(11 * mebi), MemoryError);
}

TEST_CASE("another thread waits for the device before it takes what was freed") {
  auto& memory = DeviceMemory<Counting<3>>::current();
  memory.release(memory.allocate(1000), 1000);
  CHECK(Counting<3>::waits == 0);
  std::thread([&] { memory.release(memory.allocate(1000), 1000); }).join();
  CHECK(Counting<3>::waits == 1);
}

TEST_CASE("an arena's addresses are nobody else's until it is left") {
  auto& memory = DeviceMemory<Counting<4>>::current();
  void* const before = memory.allocate(mebi);
  auto* const arena = memory.open_arena();
  void* const inside = memory.allocate(mebi);
  memory.release(before, mebi);
  void* const reused = memory.allocate(mebi);
  CHECK(reused != before);
  memory.release(reused, mebi);
  CHECK(memory.allocate(mebi) == reused);  // within it, memory is used again
  memory.close_arena();
  void* const after = memory.allocate(mebi);
  CHECK(after == before);
  memory.release(reused, mebi);
  CHECK(memory.allocate(mebi) != reused);
  memory.leave_arena(arena);
  const int mapped = Counting<4>::mapped;
  memory.release(inside, mebi);  // what is held of it stays until it is freed
  memory.trim();
  CHECK(Counting<4>::mapped == mapped - 1);
}

TEST_CASE("other threads are served beside an open arena, and the device is not waited for") {
  using Device = Counting<5>;
  auto& memory = DeviceMemory<Device>::current();
  void* const before = memory.allocate(mebi);
  memory.release(before, mebi);
  auto* const arena = memory.open_arena();
  const int waits = Device::waits;
  CHECK(waits == 1);  // of this thread, for all that was asked so far
  void* const inside = memory.allocate(mebi);
  void* other = nullptr;
  std::thread([&] {
    other = memory.allocate(mebi);
    memory.release(memory.allocate(mebi), mebi);
  }).join();
  CHECK(arena->owns(inside));
  CHECK_FALSE(arena->owns(other));
  CHECK(Device::waits == waits);
  // What a third thread is given the second may still work on, so it waits for the arena's end.
  std::atomic<bool> served = false;
  std::thread third([&] {
    memory.release(memory.allocate(mebi), mebi);
    served = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK_FALSE(served);
  memory.release(inside, mebi);
  CHECK(Device::waits == waits);
  memory.close_arena();
  third.join();
  CHECK(served);
  CHECK(Device::waits == waits + 1);
  memory.release(other, mebi);
  memory.leave_arena(arena);
  memory.trim();
  CHECK(memory.held() == 0);
}

TEST_CASE("two threads capture one after the other, and a full pool waits for an arena's end") {
  using Device = Counting<6>;
  auto& memory = DeviceMemory<Device>::current();
  auto* const first = memory.open_arena();
  memory.release(memory.allocate(40 * mebi), 40 * mebi);
  Device::most = 0;
  std::atomic<int> done = 0;
  std::thread full([&] {
    CHECK_THROWS_AS(memory.allocate(mebi), MemoryError);
    ++done;
  });
  std::thread second([&] {
    auto* const arena = memory.open_arena();
    CHECK(arena != first);
    memory.close_arena();
    memory.leave_arena(arena);
    ++done;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(done == 0);
  memory.close_arena();
  full.join();
  second.join();
  CHECK(done == 2);
  memory.leave_arena(first);
  CHECK(memory.held() == 0);
}

TEST_SUITE_END();
