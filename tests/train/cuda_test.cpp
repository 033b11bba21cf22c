// SPDX-License-Identifier: Apache-2.0
// Prediction on a GPU beside the processor's. Without a GPU each test says that it is skipped.
#include "../cuda/gpu.hpp"
#include "placed_network.hpp"
#include <segmed/backend/cuda.hpp>
#include <segmed/core/bfloat16.hpp>

namespace {
using namespace placed;

/// The GPU's exp rounds in its own way, so labels may differ where two classes are about as likely.
template <std::size_t Dim, class T>
void check_beside_processor(const Volume<float>& image, SlidingWindow how, float allowed) {
  using Here = Features<Dim, T, Cpu>;
  using There = Features<Dim, T, Cuda>;
  how.confidence = true;
  const auto here = segment<Here>(Placed<Here>{}, image, how);
  const auto there = segment<There>(Placed<There>{}, image, how);
  float worst = 0;
  Index differ = 0;
  for (std::size_t v = 0; v < here.labels.voxels.size(); ++v) {
    differ += here.labels.voxels[v] != there.labels.voxels[v];
    worst = std::max(worst, std::abs(here.confidence.voxels[v] - there.confidence.voxels[v]));
  }
  CHECK(worst < allowed);
  CHECK(differ <= 1 + image.grid_size() / 1000);
}

}  // namespace

TEST_SUITE_BEGIN("train/cuda");

TEST_CASE("labels and confidence on the GPU are those of the processor") {
  if (check::no_gpu()) return;
  const std::vector<SlidingWindow> ways = {
      {.patch = {32, 24, 16}},
      {.patch = {6, 9, 5}, .overlap = 0.7, .outside = -1},
      {.patch = {80, 7, 6}, .mirror = {true, true, false}, .partner = {0, 2, 1}}};
  for (const Extent3 extent : {Extent3{70, 45, 33}, {5, 20, 6}})
    for (const SlidingWindow& how : ways) {
      check_beside_processor<3, float>(noise(extent), how, 3e-5f);
      check_beside_processor<2, float>(noise(extent, 2), how, 3e-5f);
      check_beside_processor<3, Bfloat16>(noise(extent, 2), how, 1e-2f);
    }
}
TEST_CASE("a network that gives no number on the GPU is named with the first voxel") {
  if (check::no_gpu()) return;
  Volume<float> image = noise({9, 9, 9});
  image.at(3, 4, 5) = std::nanf("");
  using F = Features<3, float, Cuda>;
  CHECK_THROWS_WITH_AS(segment<F>(Placed<F>{}, image, {.patch = {8, 8, 8}}),
                       "segmed: segment: at voxel (3, 4, 5) the network gives no number",
                       DataError);
}

TEST_SUITE_END();
