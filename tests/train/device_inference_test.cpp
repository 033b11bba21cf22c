// SPDX-License-Identifier: Apache-2.0
// Prediction as a GPU does it, beside the processor's: the same functors, in memory of their own.
#include <optional>

#include <doctest/doctest.h>

#include "../backend/host_gpu.hpp"
#include "placed_network.hpp"
#include <segmed/nn/layer.hpp>

namespace {
using namespace placed;

/// Counts what the host fetches.
struct Watched : fake::HostGpu {
  static inline Index fetched = 0;
  static void copy(void* to, const void* from, std::size_t bytes) {
    if (Driver::owns(from) && !Driver::owns(to)) fetched += Index(bytes);
    fake::HostGpu::copy(to, from, bytes);
  }
};

template <std::size_t Dim, class T>
using There = Features<Dim, T, Watched>;
template <std::size_t Dim, class T>
using Here = Features<Dim, T, Cpu>;

template <std::size_t Dim, class T>
void check_same_bits(const Volume<float>& image, SlidingWindow how) {
  for (const bool confidence : {false, true}) {
    how.confidence = confidence;
    const auto here = segment<Here<Dim, T>>(Placed<Here<Dim, T>>{}, image, how);
    std::optional<fake::HostGpu::Guarded> memory;
    if (confidence && image.grid_size() < 500) memory.emplace();
    Watched::fetched = 0;
    const auto there = segment<There<Dim, T>>(Placed<There<Dim, T>>{}, image, how);
    CHECK(there.labels.voxels == here.labels.voxels);
    CHECK(there.confidence.voxels == here.confidence.voxels);
    CHECK(there.confidence.empty() != confidence);
    CHECK(Watched::fetched == image.grid_size() * (confidence ? 5 : 1));
  }
}

}  // namespace

TEST_SUITE_BEGIN("train/device_inference");

TEST_CASE("labels and confidence have the processor's bits, and no logit comes to the host") {
  const std::vector<SlidingWindow> ways = {
      {.patch = {8, 8, 8}},
      {.patch = {6, 9, 5}, .overlap = 0.7, .outside = -1},
      {.patch = {40, 7, 6}, .mirror = {true, true, true}},
      {.patch = {8, 8, 4}, .overlap = 0, .mirror = {true, false, false}, .partner = {0, 2, 1}}};
  for (const Extent3 extent : {Extent3{13, 9, 17}, {5, 20, 6}, {9, 7, 5}})
    for (const SlidingWindow& how : ways) {
      check_same_bits<3, float>(noise(extent), how);
      check_same_bits<3, Bfloat16>(noise(extent, 2), how);
      if (!how.mirror[2]) check_same_bits<2, float>(noise(extent, 2), how);
    }
}

TEST_CASE("a convolution's labels are the processor's wherever rounding does not decide") {
  const SlidingWindow how = {.patch = {8, 8, 6}, .mirror = {true, false, true}, .confidence = true};
  const Volume<float> image = noise({13, 9, 11});
  const Conv<Here<3, float>> conv(1, 3);
  const auto here = segment<Here<3, float>>(conv, image, how);
  const Conv<Features<3, float, fake::HostGpu>> same(1, 3);
  const auto there = segment<Features<3, float, fake::HostGpu>>(same, image, how);
  Index differ = 0;
  float worst = 0;
  for (std::size_t v = 0; v < image.voxels.size(); ++v) {
    differ += here.labels.voxels[v] != there.labels.voxels[v];
    worst = std::max(worst, std::abs(here.confidence.voxels[v] - there.confidence.voxels[v]));
  }
  CHECK(differ <= 2);
  CHECK(worst < 1e-5f);
}

TEST_CASE("the device holds the image once, and sums of one patch depth of planes") {
  auto& memory = fake::HostGpu::Memory::current();
  const Index classes = 40;
  const SlidingWindow how = {.patch = {16, 16, 16}};
  const Volume<float> image = noise({16, 16, 300});
  const std::size_t before = memory.used();
  memory.forget_peak();
  segment<There<3, float>>(Placed<There<3, float>>{classes}, image, how);
  CHECK(memory.used() == before);
  const Index held = Index(memory.peak() - before);
  const Index needed = segment_bytes(image.extent, how.patch, classes) + 4 * image.size();
  const Index patch = 4 * 16 * 16 * 16;
  CHECK(held >= needed);
  CHECK(held < needed + (classes + 8) * patch);  // beside it the logits and the patch: 2.5 planes
  CHECK(held < classes * image.size());          // a quarter of classes times volume
}

TEST_CASE("a network that gives no number is named with the first voxel") {
  Volume<float> image = noise({9, 9, 9});
  for (const Index z : {8, 5}) image.at(3, 4, z) = std::nanf("");
  using F = There<3, float>;
  CHECK_THROWS_WITH_AS(segment<F>(Placed<F>{}, image, {.patch = {8, 8, 4}}),
                       "segmed: segment: at voxel (3, 4, 5) the network gives no number",
                       DataError);
  CHECK_THROWS_WITH_AS(segment<F>(Placed<F>{}, image, {.patch = {8, 8, 4}, .partner = {0, 1}}),
                       "segmed: segment: 2 partners for 3 classes", ConfigError);
}

TEST_SUITE_END();
