// SPDX-License-Identifier: Apache-2.0
// What training on a GPU needs beside kernels. Without a GPU each test says that it is skipped.
#include <doctest/doctest.h>

#include "policy_trial.hpp"
#include <segmed/backend/cuda.hpp>
#include <segmed/core/bfloat16.hpp>

namespace {
using namespace trial;
template <class F>
using NetOf = UNet<UNetParts<F>>;
static_assert(CopiesAhead<Cuda> && HasGraphs<Cuda>);

bool with_gpu() {
  if (Cuda::count() == 0) MESSAGE("skipped: no GPU can be used here");
  return Cuda::count() > 0;
}
template <class F>
NetOf<F> net_of() {
  return NetOf<F>({.classes = 3, .widths = {8, 16}});
}
template <class F>
RunReport trained(NetOf<F>& net, const RunOptions& options) {
  return run(options, small_cohort(), net, Loss{}, Supervised{}, AdamW{.rate = 3e-3f});
}
double mean_loss(const RunReport& report, std::size_t first, std::size_t last) {
  double sum = 0;
  for (std::size_t i = first; i < last; ++i) sum += report.curve.at(i).labelled;
  return sum / double(last - first);
}

}  // namespace

TEST_SUITE_BEGIN("semi/cuda");

TEST_CASE("a GPU that is not there cannot be chosen") {
  CHECK_THROWS_AS(Cuda::use(-1), DeviceError);
  CHECK_THROWS_AS(Cuda::use(Cuda::count()), DeviceError);
}

TEST_CASE("numbers come back from the GPU, those that travelled ahead too") {
  if (!with_gpu()) return;
  const std::vector<float> numbers = {1, 2, 3, 4};
  const Storage<float, Cuda> there(numbers);
  CHECK(there.clone().host() == numbers);
  auto* const pinned = static_cast<float*>(Cuda::allocate_host(4 * sizeof(float)));
  Cuda::Transfers transfers;
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 4; ++i) pinned[i] = float(10 * round + i);
    Storage<float, Cuda> ahead(4, Uninitialized{});
    transfers.copy(ahead.write(), pinned, 4 * sizeof(float));
    transfers.join();
    const auto arrived = ahead.host();
    CHECK(arrived[0] == float(10 * round));
    CHECK(arrived[3] == float(10 * round + 3));
  }
  transfers.finish();
  Cuda::release_host(pinned);
}

TEST_CASE("memory is used again and counted") {
  if (!with_gpu()) return;
  auto& memory = Cuda::memory();
  const std::size_t before = memory.used();
  void* const first = Cuda::allocate(1 << 20);
  CHECK(memory.used() == before + (1 << 20));
  Cuda::release(first, 1 << 20);
  CHECK(Cuda::allocate(1 << 20) == first);
  Cuda::release(first, 1 << 20);
  CHECK_THROWS_AS(Cuda::allocate(std::size_t(1) << 50), MemoryError);
}

TEST_CASE("a graph does its work again, and nothing while it is captured") {
  if (!with_gpu()) return;
  Storage<float, Cuda> sum(1000, 0), one(1000, 1);
  {
    const auto graph = CudaGraph::captured([&] {
      Storage<float, Cuda> two(1000, 1);
      two.add(one);
      sum.add(two);
    });
    CHECK(sum.host()[999] == 0);
    for (int i = 0; i < 5; ++i) graph.launch();
    CHECK(sum.host()[999] == 10);
  }
  // What cannot be captured throws, and the stream works on.
  CHECK_THROWS_AS(CudaGraph::captured([&] { sum.host(); }), DeviceError);
  sum.add(one);
  CHECK(sum.host()[0] == 11);
}

TEST_CASE("a network learns on maps of float and of Bfloat16 as on the processor") {
  if (!with_gpu()) return;
  auto host = net_of<Features<3, float, Cpu>>();
  auto whole = net_of<Features<3, float, Cuda>>();
  auto half = net_of<Features<3, Bfloat16, Cuda>>();
  const RunReport a = trained(host, few_steps(40)), b = trained(whole, few_steps(40)),
                  c = trained(half, few_steps(40));
  CHECK(b.curve.at(0).labelled == doctest::Approx(a.curve.at(0).labelled).epsilon(1e-3));
  CHECK(c.curve.at(0).labelled == doctest::Approx(a.curve.at(0).labelled).epsilon(1e-2));
  CHECK(mean_loss(b, 30, 40) == doctest::Approx(mean_loss(a, 30, 40)).epsilon(0.05));
  CHECK(mean_loss(c, 30, 40) == doctest::Approx(mean_loss(a, 30, 40)).epsilon(0.05));
}

TEST_CASE("replayed steps end with the bits of steps that were not, and the same bits each time") {
  if (!with_gpu()) return;
  using F = Features<3, Bfloat16, Cuda>;
  auto options = few_steps(8);
  auto plain = net_of<F>(), again = net_of<F>(), replayed = net_of<F>();
  trained(plain, options);
  trained(again, options);
  CHECK(weights_of(again) == weights_of(plain));
  options.replay = true;
  CHECK(trained(replayed, options).replayed == 6);
  CHECK(weights_of(replayed) == weights_of(plain));
}

TEST_SUITE_END();
