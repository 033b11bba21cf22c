// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstring>
#include <sys/resource.h>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/backend/cpu.hpp>
#include <segmed/core/random.hpp>

namespace {
using namespace segmed;

long minor_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

// A step of a program: sizes of all kinds, kept for a while, freed in another order.
void step(const std::vector<std::size_t>& sizes) {
  std::vector<std::pair<void*, std::size_t>> held;
  held.reserve(sizes.size());
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    held.emplace_back(Cpu::allocate(sizes[i]), sizes[i]);
    std::memset(held.back().first, int(i), sizes[i]);
    if (i % 3 == 2) {
      Cpu::release(held[i / 2].first, held[i / 2].second);
      held[i / 2].first = nullptr;
    }
  }
  for (const auto& [place, size] : held) Cpu::release(place, size);
}

}  // namespace

namespace {

/// A source of regions that lie side by side, downwards.
struct Growing {
  static constexpr std::size_t line = 64, page = 4096, region = std::size_t(1) << 20;
  static constexpr std::size_t most = std::size_t(64) << 20;
  static inline std::size_t held = 0;

  static std::byte* map(std::size_t size) {
    static std::byte* const all = static_cast<std::byte*>(std::aligned_alloc(page, most));
    held += size;
    return held > most ? nullptr : all + most - held;
  }
  static std::byte* map_below(std::byte*, std::size_t size) { return map(size); }
  static void unmap(std::byte*, std::size_t size) { held -= size; }
  static bool may_unmap() { return true; }
  [[noreturn]] static void fail(std::size_t, std::size_t) { throw std::bad_alloc{}; }
};

}  // namespace

TEST_SUITE("backend/memory") {
  TEST_CASE("places are aligned and do not overlap") {
    std::vector<std::pair<unsigned char*, std::size_t>> held;
    const Philox philox{3, Purpose::noise, 0, 0};
    for (Index i = 0; i < 300; ++i) {
      const auto size = std::size_t(philox.uniform(i) * 50000.f);
      held.emplace_back(static_cast<unsigned char*>(Cpu::allocate(size)), size);
      CHECK(reinterpret_cast<std::uintptr_t>(held.back().first) % 64 == 0);
      std::memset(held.back().first, int(i % 251), size);
    }
    for (std::size_t i = 0; i < held.size(); ++i) {
      bool kept = true;
      for (std::size_t b = 0; b < held[i].second; ++b) kept &= held[i].first[b] == i % 251;
      CHECK(kept);
    }
    const std::size_t before = Memory::current().used();
    for (const auto& [place, size] : held) Cpu::release(place, size);
    CHECK(Memory::current().used() < before);
  }
  TEST_CASE("a program that repeats itself stops asking the system for memory") {
    std::vector<std::size_t> sizes;
    const Philox philox{4, Purpose::noise, 0, 0};
    for (Index i = 0; i < 120; ++i)
      sizes.push_back(std::size_t(100 + philox.uniform(i) * (i % 10 == 0 ? 9e6f : 2e5f)));
    step(sizes), step(sizes);
    const std::size_t regions = Memory::current().regions_mapped();
    const long faults = minor_faults();
    for (int i = 0; i < 10; ++i) step(sizes);
#if !defined(__SANITIZE_ADDRESS__)  // whose own bookkeeping grows
    CHECK(minor_faults() - faults <= 2);
#endif
    CHECK(Memory::current().regions_mapped() == regions);
  }
  TEST_CASE("freed memory serves other sizes") {
    const auto fill = [](std::size_t size, int count) {
      std::vector<void*> held;
      for (int i = 0; i < count; ++i) held.push_back(Cpu::allocate(size));
      for (void* p : held) Cpu::release(p, size);
    };
    fill(std::size_t(1) << 20, 100);
    const std::size_t reserved = Memory::current().reserved();
    for (const std::size_t size : {1000000u, 300000u, 5000000u, 70000u})
      fill(size, int(9e7 / double(size)));
    CHECK(Memory::current().reserved() == reserved);
  }
  TEST_CASE("a region that grows is one region") {
    Pool<Growing> pool;
    void* const first = pool.allocate(Growing::region);
    void* const second = pool.allocate(Growing::region);
    CHECK(pool.regions_mapped() == 2);
    CHECK(static_cast<std::byte*>(second) + Growing::region == first);
    pool.release(first, Growing::region), pool.release(second, Growing::region);
    CHECK(pool.allocate(2 * Growing::region) == second);
    CHECK(pool.regions_mapped() == 2);
    CHECK(pool.owns(first));
    pool.release(second, 2 * Growing::region);
    pool.trim();
    CHECK(pool.reserved() == 0);
    CHECK(Growing::held == 0);
  }
  TEST_CASE("what is small does not lie between large places") {
    Pool<Growing> pool;
    const std::size_t large = std::size_t(8) << 20;
    void* const whole = pool.allocate(3 * large);
    pool.release(whole, 3 * large);
    void* const one = pool.allocate(large);
    void* const small = pool.allocate(1000);
    void* const two = pool.allocate(large);
    CHECK(static_cast<std::byte*>(one) + large == two);
    CHECK(small > two);
    pool.release(one, large), pool.release(two, large), pool.release(small, 1000);
  }
  TEST_CASE("trim gives unused regions back") {
    void* large = Cpu::allocate(std::size_t(200) << 20);
    Cpu::release(large, std::size_t(200) << 20);
    const std::size_t reserved = Memory::current().reserved();
    CHECK(reserved >= std::size_t(200) << 20);
    Memory::current().trim();
    CHECK(Memory::current().reserved() < reserved);
    void* small = Cpu::allocate(10);
    std::memset(small, 1, 10);
    Cpu::release(small, 10);
  }
  TEST_CASE("more memory than there is throws bad_alloc") {
    CHECK_THROWS_AS(Cpu::allocate(std::size_t(1) << 50), std::bad_alloc);
  }
  TEST_CASE("threads share the memory") {
    std::vector<std::thread> threads;
    std::atomic<int> wrong = 0;
    for (unsigned char t = 0; t < 4; ++t)
      threads.emplace_back([&wrong, t] {
        for (std::size_t i = 1; i < 300; ++i) {
          auto* p = static_cast<unsigned char*>(Cpu::allocate(i * 37));
          std::memset(p, t, i * 37);
          std::this_thread::yield();
          wrong += p[0] != t || p[i * 37 - 1] != t;
          Cpu::release(p, i * 37);
        }
      });
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
  }
}
