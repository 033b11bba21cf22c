// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cmath>

#include <segmed/data/elastic.hpp>

namespace segmed {

/// Where the voxels of a patch lie in a scan: its middle, and the way of one step along each of the
/// patch's axes, both in the scan's voxels.
struct Placement {
  std::array<float, 3> center{};
  std::array<std::array<float, 3>, 3> step{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};  // step[axis]
  bool bent = false;      // rotated, scaled or deformed; else only flipped
  bool mirrored = false;  // left and right change places
  Elastic elastic = {};   // added to a voxel's place in the patch, before the steps

  /// Draws flips, rotation, scale and displacement for a patch. The scan's axes run R, A, S.
  static Placement draw(const Augment& augment, const Extent3& extent,
                        const std::array<double, 3>& spacing_mm, const Philox& random, Index base) {
    Placement placement;
    std::array<float, 3> sign{};
    for (std::size_t k = 0; k < 3; ++k)
      sign[k] = random.uniform(base + Index(k)) < augment.flip[k] ? -1.0f : 1.0f;
    const bool turned = random.uniform(base + 3) < augment.turn_chance;
    const bool scaled = random.uniform(base + 4) < augment.scale_chance;
    placement.elastic = Elastic::draw(augment, extent, spacing_mm, random, base);
    placement.bent = turned || scaled || !placement.elastic.empty();
    placement.mirrored = sign[0] < 0;
    std::array<std::array<float, 3>, 3> m{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
    for (std::size_t k = 0; turned && k < 3; ++k) {
      const float most = augment.turn_degrees * 0.0174532925f;
      const float angle = random.uniform(base + 5 + Index(k), -most, most);
      const float c = std::cos(angle), s = std::sin(angle);
      const std::size_t a = (k + 1) % 3, b = (k + 2) % 3;
      for (auto& column : m) {
        const float u = column[a], v = column[b];
        column[a] = c * u - s * v, column[b] = s * u + c * v;
      }
    }
    const float grow =
        scaled ? 1 / random.uniform(base + 8, augment.scale_low, augment.scale_high) : 1.0f;
    // Angles are angles in mm, so a step is measured in mm and brought back to voxels.
    for (std::size_t axis = 0; axis < 3; ++axis)
      for (std::size_t k = 0; k < 3; ++k)
        placement.step[axis][k] =
            sign[axis] * grow * m[axis][k] * float(spacing_mm[axis] / spacing_mm[k]);
    return placement;
  }
};

}  // namespace segmed
