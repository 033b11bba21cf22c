// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/backend/parallel.hpp>

using namespace segmed;

TEST_SUITE("backend/parallel") {
  TEST_CASE("every index is met once, whatever the number of threads") {
    for (const int count : {1, 2, 4}) {
      set_threads(count);
      CHECK(threads() == count);
      for (const Index n : {0, 1, 7, 1000}) {
        std::vector<std::atomic<int>> met(static_cast<std::size_t>(n));
        parallel_for(n, 3, [&](Index begin, Index end) {
          for (Index i = begin; i < end; ++i) ++met[std::size_t(i)];
        });
        for (const auto& m : met) CHECK(m == 1);
      }
    }
  }
  TEST_CASE("chunks are cut by the loop's size alone") {
    for (const int count : {1, 3}) {
      set_threads(count);
      std::atomic<int> wrong = 0, chunks = 0;
      parallel_for(10, 4, [&](Index begin, Index end) {
        ++chunks;
        if (begin % 4 != 0 || end != std::min<Index>(10, begin + 4)) ++wrong;
      });
      CHECK(chunks == 3);
      CHECK(wrong == 0);
    }
  }
  TEST_CASE("a loop inside a loop runs on its own thread") {
    set_threads(4);
    std::atomic<int> sum = 0;
    parallel_for(8, 1, [&](Index, Index) {
      const auto self = std::this_thread::get_id();
      parallel_for(8, 1, [&](Index, Index) { sum += std::this_thread::get_id() == self; });
    });
    CHECK(sum == 64);
  }
  TEST_CASE("threads of the program may start loops beside each other") {
    set_threads(2);
    std::atomic<Index> sum = 0;
    const auto loops = [&] {
      for (int i = 0; i < 200; ++i)
        parallel_for(16, 1, [&](Index begin, Index end) { sum += end - begin; });
    };
    std::thread other(loops);
    loops();
    other.join();
    CHECK(sum == 2 * 200 * 16);
  }
  TEST_CASE("an exception in a chunk reaches the caller, and the next loop works") {
    for (const int count : {1, 3}) {
      set_threads(count);
      CHECK_THROWS_WITH_AS(parallel_for(100, 1,
                                        [](Index begin, Index) {
                                          if (begin == 40) throw std::runtime_error("chunk 40");
                                        }),
                           "chunk 40", std::runtime_error);
      std::atomic<int> met = 0;
      parallel_for(100, 1, [&](Index, Index) { ++met; });
      CHECK(met == 100);
    }
  }
  TEST_CASE("loops after a pause wake the sleepers") {
    set_threads(3);
    for (int i = 0; i < 20; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      std::atomic<int> met = 0;
      parallel_for(6, 1, [&](Index, Index) { ++met; });
      CHECK(met == 6);
    }
  }
  TEST_CASE("the number of threads is checked") {
    CHECK_THROWS_WITH_AS(set_threads(0),
                         "segmed: set_threads: the number of threads is 0; give 1 to 1024",
                         ConfigError);
    set_threads(2);
  }
}
