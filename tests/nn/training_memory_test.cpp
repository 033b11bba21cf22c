// SPDX-License-Identifier: Apache-2.0
// What a program that repeats itself asks the system for: after its first steps nothing.
#include <cstdint>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/autograd/group.hpp>
#include <segmed/losses/composition.hpp>
#include <segmed/losses/deep_supervision.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/region.hpp>
#include <segmed/nn/unet.hpp>
#include <segmed/train/optimizer.hpp>

#if defined(__linux__)
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace {
using namespace segmed;
using F = Features<3, float, Cpu>;
using Net = UNet<UNetParts<F>>;

/// What the system gave to this process so far.
struct Given {
  std::size_t regions = 0;  // of the pool
  long faults = 0;
  std::uintptr_t heap_end = 0;     // moved by brk
  std::size_t mapped_by_heap = 0;  // places that the C library mapped by themselves

  static Given now() {
    Given given;
    given.regions = Memory::current().regions_mapped();
#if defined(__linux__)
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    given.faults = usage.ru_minflt;
    given.heap_end = reinterpret_cast<std::uintptr_t>(sbrk(0));
#if defined(__GLIBC__)
    given.mapped_by_heap = mallinfo2().hblks;
#endif
#endif
    return given;
  }
};

}  // namespace

TEST_SUITE("nn/training_memory") {
  TEST_CASE("after its second step a training asks the system for no memory") {
#if !defined(__linux__)
    MESSAGE("skipped: page faults and the end of the heap are counted on Linux only");
    return;
#endif
    const int before = threads();
    for (const int count : {1, 2}) {
      CAPTURE(count);
      set_threads(count);
      Net net({.channels_in = 1, .classes = 4, .widths = {16, 32, 64}, .deep_supervision = true});
      GroupOf<F> group(Role::trained, net);
      const DeepSupervision loss{Sum{Dice{}, CrossEntropy{}}};
      const Grid grid{1, 32, 32, 32, 1};
      std::vector<float> image;
      std::vector<std::uint8_t> classes;
      const Philox random{4, Purpose::sample};
      for (Index i = 0; i < grid.size(); ++i) {
        image.push_back(random.normal(i));
        classes.push_back(std::uint8_t(random.below(i, 4)));
      }
      const F x(grid, Storage<float, Cpu>(image));
      const auto labels = labels_of<Cpu>(grid, classes, 4);
      Clock<Cpu> clock;
      const auto step = [&](std::uint32_t number) {
        clock.set({.step = number, .rate = 1e-3f});
        group.clear_grads();
        const auto term = loss(net.outputs(x), labels);
        backward(term);
        AdamW{}.step(group, clock);
        return double(term.host());
      };
      const double first = step(0);
      step(1);
      const Given settled = Given::now();
      double last = 0;
      for (std::uint32_t number = 2; number < 8; ++number) last = step(number);
      const Given after = Given::now();
      // Which thread takes which part of a loop is not settled: one may meet a kernel late, and
      // take and touch its buffers for it then, once. A map of the second stage would be 128 pages
      // a step.
      const bool alone = count == 1;
      CHECK(after.regions - settled.regions <= (alone ? 0 : 1));
#if !defined(__SANITIZE_ADDRESS__)  // whose own bookkeeping grows
      CHECK(after.heap_end == settled.heap_end);
      CHECK(after.mapped_by_heap == settled.mapped_by_heap);
      CHECK(after.faults - settled.faults <= (alone ? 2 : 64));
#endif
      CHECK(last < first);
    }
    set_threads(before);
  }
}
