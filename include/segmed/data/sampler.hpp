// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <segmed/data/example.hpp>
#include <segmed/data/patch_reader.hpp>
#include <segmed/data/patch_source.hpp>

namespace segmed {

/// A piece of a case, ready for a network.
///
///   shapes   image: ((z*Y + y)*X + x)*C + c; labels: (z*Y + y)*X + x; extent is x, y, z
struct Patch {
  Extent3 extent{};
  Index channels = 1;
  std::vector<float> image, strong;  // strong: the same voxels, other intensities; if asked for
  std::vector<std::uint8_t> labels;  // 255 beyond the scan, and everywhere without labels
  AnnotatedSet annotated;
  std::string id;
  std::uint32_t key = 0;  // of the case: key_of(id)
  // What image, strong and labels are still to be made of: SampleOptions::source.
  std::optional<PatchSource> source = {};
};

/// An example that patches can be drawn from: normalized, axes R, A, S, with some voxels of each
/// class at hand.
struct ReadyCase {
  Example example;
  std::vector<float> outside;              // beyond the border, one a channel
  std::vector<std::vector<Index>> places;  // by class: evenly chosen voxels, 4096 at most

  ReadyCase() = default;
  explicit ReadyCase(Example ready, std::vector<float> beyond = {})
      : example(std::move(ready)), outside(std::move(beyond)), places(256) {
    std::array<Index, 256> count{}, seen{};
    for (const std::uint8_t label : example.labels.voxels) ++count[label];
    for (std::size_t i = 0; i < example.labels.voxels.size(); ++i) {
      const auto c = std::size_t(example.labels.voxels[i]);
      if (c == 0 || c == ignored) continue;
      // The k-th voxel of n is kept when k * most / n reaches a new whole number.
      const Index k = seen[c]++;
      if (count[c] <= most || (k + 1) * most / count[c] > k * most / count[c])
        places[c].push_back(Index(i));
    }
  }
  Index bytes() const {
    Index total = bytes_of(example) + Index(sizeof *this);
    for (const auto& of_class : places) total += Index(of_class.capacity() * sizeof(Index));
    return total;
  }
  static constexpr Index most = 4096;
};

/// How patches are drawn.
struct SampleOptions {
  Extent3 patch = {32, 32, 32};
  float foreground = 2.0f / 3;  // chance that the patch is laid around a voxel of a class
  Augment augment = {};
  bool strong_view = false;
  bool source = false;  // leave it to a device to read the patch and change its intensities
};

/// One draw: patches with another seed, case, draw or attempt share no random number.
struct SampleKey {
  std::uint64_t seed = 0;
  std::uint32_t draw = 0;
  Index attempt = 0;
};

/// Draws a patch. With the chance `foreground` it is laid around a voxel of a class, chosen evenly
/// among the annotated classes that the case has; else anywhere. It stays within the scan where the
/// scan is large enough, and is centered on it where not.
///
/// `left` takes labels away: classes outside of it become background, and none at all leaves every
/// voxel ignored.
inline Patch draw_patch(const ReadyCase& ready, const ClassTable& classes, AnnotatedSet left,
                        const SampleOptions& options, const SampleKey& key) {
  const Example& example = ready.example;
  check_filled(example.image, "sample");
  for (const Index n : options.patch)
    require<ConfigError>(n >= 1, "sample", "a patch of ", options.patch[0], "x", options.patch[1],
                         "x", options.patch[2], " is empty");
  for (std::size_t k = 0; k < 4; ++k) left.words[k] &= example.annotated.words[k];
  Patch patch;
  patch.extent = options.patch;
  patch.channels = example.image.channels;
  patch.id = example.id;
  patch.key = key_of(example.id);
  const Philox place{key.seed, Purpose::sample, patch.key, key.draw};
  const Philox change{key.seed, Purpose::augment, patch.key, key.draw};
  const Philox strong{key.seed, Purpose::strong_view, patch.key, key.draw};
  const Index base = key.attempt << 16;

  const Eigen::Vector3d spacing = example.image.spacing();
  Placement placement = Placement::draw(options.augment, options.patch,
                                        {spacing[0], spacing[1], spacing[2]}, change, base);
  std::vector<Index> present;
  for (Index c = 1; c < classes.size(); ++c)
    if (left.has(c) && !ready.places.empty() && !ready.places[std::size_t(c)].empty())
      present.push_back(c);
  const bool aimed = place.uniform(base) < options.foreground && !present.empty();
  Extent3 target{};
  if (aimed) {
    const Index c = present[std::size_t(place.below(base + 1, Index(present.size())))];
    const auto& places = ready.places[std::size_t(c)];
    const Index voxel = places[std::size_t(place.below(base + 2, Index(places.size())))];
    target = {voxel % example.image.extent[0],
              voxel / example.image.extent[0] % example.image.extent[1],
              voxel / (example.image.extent[0] * example.image.extent[1])};
  }
  for (std::size_t k = 0; k < 3; ++k) {
    const Index room = example.image.extent[k] - options.patch[k];
    Index first = room / 2;
    if (room > 0)
      first = aimed ? std::clamp<Index>(target[k] - options.patch[k] / 2, 0, room)
                    : place.below(base + 3 + Index(k), room + 1);
    placement.center[k] = float(first + options.patch[k] / 2);
    if (placement.bent && options.patch[k] % 2 == 0) placement.center[k] -= 0.5f;
  }

  std::array<std::uint8_t, 256> map{};
  for (Index c = 1; c < classes.size(); ++c)
    if (left.has(c))
      map[std::size_t(c)] = placement.mirrored ? classes.mirror[std::size_t(c)] : std::uint8_t(c);
  map[ignored] = ignored;
  if (left.none()) map.fill(ignored);
  patch.annotated = placement.mirrored ? classes.mirrored(left) : left;
  auto weak_draws = IntensityDraw::draw(options.augment.weak, patch.channels, change, base + 1024);
  auto strong_draws = options.strong_view ? IntensityDraw::draw(options.augment.strong,
                                                                patch.channels, strong, base)
                                          : std::vector<IntensityDraw>{};
  const std::vector<float> outside = outside_of(ready.outside, patch.channels);
  if (options.source) {
    patch.source = PatchSource::of(example, placement, options.patch, outside, map);
    patch.source->weak = std::move(weak_draws), patch.source->strong = std::move(strong_draws);
    return patch;
  }
  PatchReader(example, placement, options.patch, outside, map).read(patch.image, patch.labels);
  if (options.strong_view) {
    patch.strong = patch.image;
    change_intensity(patch.strong, patch.extent, strong_draws);
  }
  change_intensity(patch.image, patch.extent, weak_draws);
  return patch;
}

}  // namespace segmed
