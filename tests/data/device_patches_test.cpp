// SPDX-License-Identifier: Apache-2.0
// Patches as a GPU makes them, beside the processor's: the same functors, in memory of their own.
#include <optional>

#include "../backend/host_gpu.hpp"
#include "parity.hpp"
#include <segmed/core/bfloat16.hpp>

namespace {
using namespace made_there;
using fake::HostGpu;

void check_all(const Augment& augment, bool guarded = false) {
  for (const Index channels : {1, 2})
    for (const bool strong : {false, true})
      for (const Extent3 patch : {Extent3{12, 9, 10}, {17, 8, 1}, {33, 5, 12}}) {
        CAPTURE(channels);
        CAPTURE(patch[0]);
        std::optional<HostGpu::Guarded> memory;
        if (guarded && strong) memory.emplace();
        const SampleOptions options{.patch = patch, .augment = augment, .strong_view = strong};
        check_beside_processor<float, HostGpu>(scan({24, 22, 20}, channels), options, 5);
      }
}
}  // namespace

TEST_SUITE_BEGIN("data/device_patches");

TEST_CASE("patches that stay as they are") { check_all(still(), true); }
TEST_CASE("flipped patches") { check_all(flipped()); }
TEST_CASE("turned and scaled patches") { check_all(bent()); }
TEST_CASE("deformed patches, turned ones too") {
  check_all(elastic());
  check_all(elastic(bent()));
}
TEST_CASE("blurred patches and those of low resolution") { check_all(softened()); }
TEST_CASE("patches with all changes of place and intensity") { check_all(everything(), true); }

TEST_CASE("patches that reach beyond the scan, or are larger than it") {
  for (const Augment& augment : {still(), flipped(), bent(), elastic(), everything()})
    for (const Extent3 extent : {Extent3{6, 30, 5}, {11, 10, 1}, {40, 3, 9}}) {
      const SampleOptions options{.patch = {16, 14, 12}, .augment = augment, .strong_view = true};
      check_beside_processor<float, HostGpu>(scan(extent, 2), options, 4);
    }
}
TEST_CASE("scans without labels, and maps of half the size") {
  const SampleOptions options{.patch = {12, 9, 10}, .augment = everything(), .strong_view = true};
  check_beside_processor<float, HostGpu>(scan({24, 22, 20}, 1, false), options, 3);
  check_beside_processor<Bfloat16, HostGpu>(scan({24, 22, 20}, 2), options, 3, 4e-3f);
}
TEST_CASE("sums over many blocks are those of the processor") {
  SampleOptions options{.patch = {40, 33, 29}, .augment = still()};
  options.augment.weak.gamma_chance = options.augment.weak.contrast_chance = 1;
  for (const bool reversed : {false, true}) {
    check::TeamedHost::reversed = reversed;
    check_beside_processor<float, HostGpu>(scan({48, 40, 30}, 2), options, 3);
  }
  check::TeamedHost::reversed = false;
}
TEST_CASE("a source is the box around the patch and no more") {
  const ReadyCase ready = scan({40, 40, 40}, 1);
  SampleOptions options{.patch = {10, 8, 6}, .augment = still(), .source = true};
  const Patch patch = draw_patch(ready, classes, AnnotatedSet::all(4), options, {1, 2, 0});
  REQUIRE(patch.source);
  const Index* const box = patch.source->view.extent;
  for (std::size_t k = 0; k < 3; ++k) {
    CHECK(box[k] >= patch.extent[k]);
    CHECK(box[k] <= patch.extent[k] + 3);
  }
  CHECK(Index(patch.source->voxels.size()) == box[0] * box[1] * box[2]);
  CHECK(patch.source->voxels.size() == patch.source->labels.size());
}
TEST_CASE("patches that differ are no batch") {
  const ReadyCase ready = scan({20, 20, 20}, 1);
  SampleOptions options{.patch = {10, 8, 6}, .source = true};
  std::vector<Patch> patches{draw_patch(ready, classes, {}, options, {})};
  options.patch = {10, 8, 5};
  patches.push_back(draw_patch(ready, classes, {}, options, {}));
  SourceBatch<HostGpu> batch;
  CHECK_THROWS_WITH_AS(batch.fill(patches),
                       "segmed: samples: patches of one batch differ in extent, channels or views",
                       ShapeError);
}

TEST_SUITE_END();
