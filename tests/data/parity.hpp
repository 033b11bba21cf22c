// SPDX-License-Identifier: Apache-2.0
// Patches that a device makes, beside those of the processor.
#pragma once
#include <algorithm>
#include <cmath>

#include <doctest/doctest.h>

#include <segmed/data/device_patches.hpp>

namespace made_there {
using namespace segmed;

inline const ClassTable classes = ClassTable::of({"kidney_left", "kidney_right", "liver"});

/// A scan of waves with noise.
inline ReadyCase scan(const Extent3& extent, Index channels, bool labelled = true) {
  Example example{"x",
                  "x",
                  make_volume<float>(extent, Geometry::of_spacing(1, 1.25, 2), channels),
                  {},
                  labelled ? AnnotatedSet::all(4) : AnnotatedSet{}};
  if (labelled) example.labels = make_volume<std::uint8_t>(extent, example.image.geometry);
  const Philox random{11};
  for (std::size_t i = 0; i < example.image.voxels.size(); ++i)
    example.image.voxels[i] = std::sin(0.01f * float(i)) + 0.2f * random.normal(Index(i));
  for (std::size_t i = 0; i < example.labels.voxels.size(); ++i)
    example.labels.voxels[i] = std::uint8_t(random.below(Index(i) + 1000000, 4));
  return ReadyCase(std::move(example), {-2.5f});
}

inline Augment still() { return Augment::none(); }
inline Augment flipped() {
  Augment augment = still();
  augment.flip = {1, 0.5f, 0.5f};
  return augment;
}
inline Augment bent() {
  Augment augment = flipped();
  augment.turn_chance = augment.scale_chance = 1, augment.turn_degrees = 40;
  return augment;
}
inline Augment elastic(Augment augment = still()) {
  augment.elastic_chance = 1, augment.elastic_mm = 4, augment.elastic_cell_mm = 6;
  return augment;
}
inline Augment softened() {
  Augment augment = still();
  augment.weak.blur_chance = augment.strong.low_resolution_chance = 0.5f;
  augment.strong.blur_chance = augment.weak.low_resolution_chance = 0.5f;
  return augment;
}
inline Augment everything() {
  Augment augment = elastic(bent());
  augment.weak = {0.5f, 0.3f, 0.5f, 0.3f, 0.5f, 0.5f, 2, 0.5f, 0.2f};
  augment.weak.blur_chance = augment.weak.low_resolution_chance = 0.5f;
  augment.strong = {1, 0.3f, 1, 0.3f, 1, 0.5f, 2, 1, 0.2f};
  return augment;
}

/// Compares `count` patches of a batch, drawn in both ways. Labels may differ where a place lies
/// between two voxels, `allowed` of a thousand.
template <class T, class D>
void check_beside_processor(const ReadyCase& ready, SampleOptions options, Index count,
                            float tolerance = 1e-4f, Index allowed = 0) {
  std::vector<Patch> here, sources;
  for (Index n = 0; n < count; ++n) {
    const SampleKey key{3, std::uint32_t(n), n % 2};
    const AnnotatedSet left = n % 3 == 2 ? AnnotatedSet{} : AnnotatedSet::all(3);
    options.source = false;
    here.push_back(draw_patch(ready, classes, left, options, key));
    options.source = true;
    sources.push_back(draw_patch(ready, classes, left, options, key));
    CHECK(sources.back().image.empty());
    CHECK(sources.back().annotated == here.back().annotated);
  }
  Uploads<D> uploads;
  SourceBatch<D> batch;
  batch.fill(sources);
  const SourcesThere<D> there = batch.uploaded(uploads);
  uploads.join(), uploads.finish();
  const auto maps = there.template made<T>();
  const auto image = maps.image.host(), strong = maps.strong.host();
  const auto labels = maps.labels.host();
  REQUIRE(image.size() == here.size() * here[0].image.size());
  REQUIRE(strong.size() == here.size() * here[0].strong.size());
  REQUIRE(labels.size() == here.size() * here[0].labels.size());
  float worst = 0, worst_strong = 0;
  Index differ = 0, at = 0, place = 0;
  for (const Patch& patch : here) {
    for (std::size_t i = 0; i < patch.image.size(); ++i, ++at) {
      const auto far = [&](const std::vector<T>& made, const std::vector<float>& expected) {
        const float value = float(Wide<T>(made[std::size_t(at)]));
        return std::abs(value - expected[i]) / std::max(1.0f, std::abs(expected[i]));
      };
      // What is no number is no smaller than the worst.
      const float off = far(image, patch.image);
      worst = off <= worst ? worst : off;
      if (strong.empty()) continue;
      const float strongly_off = far(strong, patch.strong);
      worst_strong = strongly_off <= worst_strong ? worst_strong : strongly_off;
    }
    for (const std::uint8_t label : patch.labels)
      differ += label != labels[std::size_t(place++)] ? 1 : 0;
  }
  CHECK(worst < tolerance);
  CHECK(worst_strong < tolerance);
  CHECK(1000 * differ <= allowed * Index(labels.size()));
}

}  // namespace made_there
