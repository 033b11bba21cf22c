// SPDX-License-Identifier: Apache-2.0
// A GPU's memory, copies and graphs. Without a GPU each test says that it is skipped.
#include <thread>

#include "../cuda/gpu.hpp"
#include <segmed/backend/cuda.hpp>
#include <segmed/tensor/storage.hpp>

namespace {
using namespace segmed;
}

TEST_SUITE_BEGIN("backend/cuda");

TEST_CASE("a GPU that is not there cannot be chosen") {
  CHECK_THROWS_AS(Cuda::use(-1), DeviceError);
  CHECK_THROWS_AS(Cuda::use(Cuda::count()), DeviceError);
}

TEST_CASE("numbers come back from the GPU, those that travelled ahead too") {
  if (check::no_gpu()) return;
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
  if (check::no_gpu()) return;
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
  if (check::no_gpu()) return;
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

TEST_CASE("other threads go on beside a capture, and none of theirs is captured") {
  if (check::no_gpu()) return;
  Storage<float, Cuda> sum(1000, 0), kept(1000, 7);
  std::vector<float> beside;
  const auto graph = CudaGraph::captured([&] {
    const Storage<float, Cuda> one(1000, 1);
    sum.add(one);
    std::thread([&] {
      Storage<float, Cuda> other(1000, 2);
      other.add(kept);
      beside = other.host();
    }).join();
  });
  CHECK(beside == std::vector<float>(1000, 9));
  CHECK(sum.host()[999] == 0);
  for (int i = 0; i < 3; ++i) graph.launch();
  CHECK(sum.host()[999] == 3);
}

TEST_CASE("two streams of copies do not wait for each other") {
  if (check::no_gpu()) return;
  const std::size_t bytes = 4096 * sizeof(float);
  auto* const from = static_cast<float*>(Cuda::allocate_host(2 * bytes));
  for (int i = 0; i < 8192; ++i) from[i] = float(i);
  Storage<float, Cuda> a(4096, Uninitialized{}), b(4096, Uninitialized{});
  {
    Cuda::Transfers first, second;
    first.copy(a.write(), from, bytes);
    second.copy(b.write(), from + 4096, bytes);
    first.join(), first.finish();
    CHECK(a.host()[4095] == 4095);
    second.join();
    CHECK(b.host()[0] == 4096);
  }
  Cuda::release_host(from);
}

TEST_SUITE_END();
