// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include <segmed/core/random.hpp>
#include <segmed/data/augment.hpp>
#include <segmed/image/volume.hpp>

namespace segmed {

/// The four points along an axis that move a voxel, and how much each counts.
struct SplineTap {
  Index first;
  float weight[4];
};

/// A displacement that is a cubic B-spline over a coarse lattice of points, as kernels read it.
///
///   shapes   by (points z, points y, points x, 3), the last being x, y and z
///   units    by: voxels of the patch
struct ControlLattice {
  const float* by;
  Index points[3];     // along x, y and z: three more than cells
  float per_voxel[3];  // cells that a voxel takes up

  SEGMED_HD SplineTap tap(int axis, Index i) const {
    const float at = (float(i) + 0.5f) * per_voxel[axis];
    const Index last = points[axis] - 4, cell = Index(at) < last ? Index(at) : last;
    const float t = at - float(cell), s = 1 - t, sixth = 1.0f / 6;
    return {cell,
            {s * s * s * sixth, ((3 * t - 6) * t * t + 4) * sixth,
             ((3 * s - 6) * s * s + 4) * sixth, t * t * t * sixth}};
  }
  /// What the column-th points along x come to at one y and z.
  SEGMED_HD void gather(const SplineTap& y, const SplineTap& z, Index column, float* sum) const {
    sum[0] = sum[1] = sum[2] = 0;
    for (int k = 0; k < 4; ++k)
      for (int j = 0; j < 4; ++j) {
        const float weight = z.weight[k] * y.weight[j];
        const float* from =
            by + (((z.first + k) * points[1] + y.first + j) * points[0] + column) * 3;
        for (int a = 0; a < 3; ++a) sum[a] += weight * from[a];
      }
  }
  /// What four neighbouring sums of `gather` come to at one x.
  SEGMED_HD static void blend(const SplineTap& x, const float* sums, float* moved) {
    for (int a = 0; a < 3; ++a)
      moved[a] = x.weight[0] * sums[a] + x.weight[1] * sums[3 + a] + x.weight[2] * sums[6 + a] +
                 x.weight[3] * sums[9 + a];
  }
};

/// A smooth random displacement of a patch's voxels.
///
///   source   Rueckert et al., Nonrigid registration using free-form deformations, 1999: the
///            spline; Choi & Lee, Injectivity conditions of 2D and 3D uniform cubic B-spline
///            functions, 2000: it cannot fold while no point moves 1 / 2.48 of a cell along an axis
struct Elastic {
  Extent3 points = {};                       // along x, y and z
  std::array<float, 3> per_voxel = {};       // see ControlLattice
  std::vector<float> by = {};                // likewise; empty: nothing moves
  static constexpr float most_moved = 0.4f;  // of a cell

  bool empty() const { return by.empty(); }
  ControlLattice lattice(const float* points_by) const {
    return {
        points_by, {points[0], points[1], points[2]}, {per_voxel[0], per_voxel[1], per_voxel[2]}};
  }
  /// The farthest that a voxel moves along an axis.
  float farthest(std::size_t axis) const {
    float most = 0;
    for (std::size_t i = axis; i < by.size(); i += 3) most = std::max(most, std::abs(by[i]));
    return most;
  }

  /// Draws whether anything moves, and how. Nothing moves along an axis of one voxel.
  static Elastic draw(const Augment& augment, const Extent3& extent,
                      const std::array<double, 3>& spacing_mm, const Philox& random, Index base) {
    Elastic drawn;
    if (!(random.uniform(base + 9) < augment.elastic_chance)) return drawn;
    const float strength_mm = random.uniform(base + 10, 0, augment.elastic_mm);
    std::array<float, 3> most{};
    for (std::size_t k = 0; k < 3; ++k) {
      const double cells = std::max(
          1.0, std::round(double(extent[k]) * spacing_mm[k] / double(augment.elastic_cell_mm)));
      drawn.points[k] = std::min(Index(cells), extent[k]) + 3;
      const float cell = float(extent[k]) / float(drawn.points[k] - 3);
      drawn.per_voxel[k] = 1 / cell;
      if (extent[k] > 1) most[k] = std::min(strength_mm / float(spacing_mm[k]), most_moved * cell);
    }
    const Index count = drawn.points[0] * drawn.points[1] * drawn.points[2];
    for (Index i = 0; i < count; ++i) {
      const Philox::Words bits = random.bits(((base + 16) << 32) + i);
      for (std::size_t k = 0; k < 3; ++k)
        drawn.by.push_back(most[k] * (2 * Philox::unit(bits.word[k]) - 1));
    }
    return drawn;
  }
};

}  // namespace segmed
