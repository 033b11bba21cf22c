// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <string>

// nvcc would compile Eigen's device paths and warn about them; the macro is given back below.
#pragma push_macro("EIGEN_NO_CUDA")
#undef EIGEN_NO_CUDA
#define EIGEN_NO_CUDA 1
#include <Eigen/Core>
#pragma pop_macro("EIGEN_NO_CUDA")

#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>

namespace segmed {

/// A 4x4 matrix whose layout does not depend on the instruction set that a unit is compiled for.
using Affine = Eigen::Matrix<double, 4, 4, Eigen::DontAlign>;

/// Voxels along x, y and z.
using Extent3 = std::array<Index, 3>;

/// A way to turn a grid's axes: output axis k is input axis from[k], read backwards where flip[k].
struct AxisMap {
  std::array<int, 3> from{0, 1, 2};
  std::array<bool, 3> flip{false, false, false};

  /// The map that undoes this one.
  AxisMap inverse() const {
    AxisMap back;
    for (std::size_t k = 0; k < 3; ++k) {
      const auto source = std::size_t(from[k]);
      back.from[source] = int(k);
      back.flip[source] = flip[k];
    }
    return back;
  }
  /// This map first, `next` after it.
  AxisMap then(const AxisMap& next) const {
    AxisMap both;
    for (std::size_t k = 0; k < 3; ++k) {
      const auto middle = std::size_t(next.from[k]);
      both.from[k] = from[middle];
      both.flip[k] = next.flip[k] != flip[middle];
    }
    return both;
  }
  /// The extents after the turn.
  Extent3 extent(const Extent3& before) const {
    return {before[std::size_t(from[0])], before[std::size_t(from[1])],
            before[std::size_t(from[2])]};
  }
  /// True for the map that changes nothing.
  bool is_identity() const { return *this == AxisMap{}; }
  bool operator==(const AxisMap&) const = default;
};

/// A three-letter orientation as a map from a grid whose axes run R, A, S: axis k of the oriented
/// grid is world axis from[k], reversed where flip[k].
///
///   throws   ConfigError unless the code names each of R/L, A/P and S/I once
inline AxisMap axes_of_code(const std::string& code) {
  AxisMap axes;
  std::array<bool, 3> seen{};
  bool good = code.size() == 3;
  for (std::size_t k = 0; good && k < 3; ++k) {
    const char letter = char(code[k] >= 'a' && code[k] <= 'z' ? code[k] - 'a' + 'A' : code[k]);
    const auto at = std::string("RASLPI").find(letter);
    good = at != std::string::npos && !seen[at % 3];
    if (!good) break;
    seen[at % 3] = true;
    axes.from[k] = int(at % 3);
    axes.flip[k] = at >= 3;
  }
  require<ConfigError>(good, "orient", "\"", code,
                       "\" is no orientation; use one letter each of R/L, A/P and S/I, as in RAS");
  return axes;
}

/// Where a grid lies in the patient: the map from voxel (x, y, z) to RAS+ millimeters.
struct Geometry {
  Affine affine = Affine::Identity();

  /// Axis-aligned voxels of the given size, voxel (0, 0, 0) at the origin.
  static Geometry of_spacing(double x, double y, double z) {
    Geometry made;
    made.affine(0, 0) = x;
    made.affine(1, 1) = y;
    made.affine(2, 2) = z;
    return made;
  }

  /// World position of voxel (0, 0, 0), in mm.
  Eigen::Vector3d origin() const { return {affine(0, 3), affine(1, 3), affine(2, 3)}; }
  /// The step from a voxel to its neighbor along one axis, in mm.
  Eigen::Vector3d step(int axis) const {
    return {affine(0, axis), affine(1, axis), affine(2, axis)};
  }
  /// Distance between neighboring voxels along x, y and z, in mm.
  Eigen::Vector3d spacing() const { return {length(0), length(1), length(2)}; }
  /// Volume of one voxel, in mm^3.
  double voxel_volume() const { return std::abs(determinant()); }

  /// World position (mm) of a voxel position, which may be fractional.
  Eigen::Vector3d to_world(double x, double y, double z) const {
    Eigen::Vector3d world;
    for (int r = 0; r < 3; ++r)
      world[r] = affine(r, 0) * x + affine(r, 1) * y + affine(r, 2) * z + affine(r, 3);
    return world;
  }
  Eigen::Vector3d to_world(const Eigen::Vector3d& voxel) const {
    return to_world(voxel[0], voxel[1], voxel[2]);
  }
  /// Voxel position of a world position (mm).
  Eigen::Vector3d to_voxel(double x, double y, double z) const {
    return Geometry{inverse()}.to_world(x, y, z);
  }
  Eigen::Vector3d to_voxel(const Eigen::Vector3d& world) const {
    return to_voxel(world[0], world[1], world[2]);
  }
  /// The map from RAS+ mm to voxels.
  Affine inverse() const {
    Affine back = Affine::Identity();
    const double scale = 1 / determinant();
    for (int r = 0; r < 3; ++r)
      for (int c = 0; c < 3; ++c) back(r, c) = cofactor(c, r) * scale;
    for (int r = 0; r < 3; ++r)
      back(r, 3) =
          -(back(r, 0) * affine(0, 3) + back(r, 1) * affine(1, 3) + back(r, 2) * affine(2, 3));
    return back;
  }

  /// True when the affine is finite and can be inverted.
  bool is_valid() const {
    for (int r = 0; r < 4; ++r)
      for (int c = 0; c < 4; ++c)
        if (!std::isfinite(affine(r, c))) return false;
    const double box = length(0) * length(1) * length(2);
    return box > 0 && std::isfinite(box) && voxel_volume() > 1e-6 * box;
  }
  /// True when the voxel axes are not at right angles (cosine above `tolerance`).
  bool is_sheared(double tolerance = 1e-3) const {
    for (int a = 0; a < 3; ++a)
      for (int b = a + 1; b < 3; ++b) {
        double dot = 0;
        for (int r = 0; r < 3; ++r) dot += affine(r, a) * affine(r, b);
        if (std::abs(dot) > tolerance * length(a) * length(b)) return true;
      }
    return false;
  }
  /// True when no entry of the affines differs by more than `tolerance` mm.
  bool same_grid(const Geometry& other, double tolerance = 1e-3) const {
    for (int r = 0; r < 3; ++r)
      for (int c = 0; c < 4; ++c)
        if (!(std::abs(affine(r, c) - other.affine(r, c)) <= tolerance)) return false;
    return true;
  }
  /// The farthest that a corner of a grid of this extent moves between the two geometries, in mm.
  double distance(const Geometry& other, const Extent3& extent) const {
    double farthest = 0;
    for (int corner = 0; corner < 8; ++corner) {
      std::array<double, 3> voxel{};
      for (std::size_t k = 0; k < 3; ++k)
        if ((corner >> k) & 1) voxel[k] = double(extent[k] - 1);
      const Eigen::Vector3d here = to_world(voxel[0], voxel[1], voxel[2]);
      const Eigen::Vector3d there = other.to_world(voxel[0], voxel[1], voxel[2]);
      const double apart = std::hypot(here[0] - there[0], here[1] - there[1], here[2] - there[2]);
      farthest = std::max(farthest, apart);
    }
    return farthest;
  }

  /// The closest anatomical axes as a map from a grid that runs R, A, S.
  AxisMap closest_axes() const {
    static constexpr int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                         {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    AxisMap best;
    double best_score = -1;
    for (const auto& order : orders) {
      double score = 0;
      for (int k = 0; k < 3; ++k) score += std::abs(affine(order[k], k)) / length(k);
      if (score <= best_score + 1e-9) continue;
      best_score = score;
      for (int k = 0; k < 3; ++k) {
        best.from[std::size_t(k)] = order[k];
        best.flip[std::size_t(k)] = affine(order[k], k) < 0;
      }
    }
    return best;
  }
  /// The closest anatomical axes as letters: "RAS" when x runs to the right, y to the front, z up.
  std::string orientation() const {
    const AxisMap axes = closest_axes();
    std::string code(3, ' ');
    for (std::size_t k = 0; k < 3; ++k)
      code[k] = (axes.flip[k] ? "LPI" : "RAS")[std::size_t(axes.from[k])];
    return code;
  }
  /// The turn that brings this grid to the orientation `code`.
  AxisMap turn_to(const std::string& code) const {
    return closest_axes().inverse().then(axes_of_code(code));
  }

  /// The geometry of a grid of this extent after its axes were turned.
  Geometry turned(const AxisMap& map, const Extent3& extent) const {
    Geometry made = *this;
    for (int k = 0; k < 3; ++k) {
      const int source = map.from[std::size_t(k)];
      const bool flip = map.flip[std::size_t(k)];
      const double last = double(extent[std::size_t(source)] - 1);
      for (int r = 0; r < 3; ++r) {
        made.affine(r, k) = flip ? -affine(r, source) : affine(r, source);
        if (flip) made.affine(r, 3) += affine(r, source) * last;
      }
    }
    return made;
  }
  /// The geometry of the box that starts at `first` (which may lie outside).
  Geometry cropped(const Extent3& first) const {
    return shifted(double(first[0]), double(first[1]), double(first[2]));
  }
  /// The geometry whose voxel (0, 0, 0) lies at voxel (x, y, z) of this one.
  Geometry shifted(double x, double y, double z) const {
    Geometry made = *this;
    for (int r = 0; r < 3; ++r)
      made.affine(r, 3) = affine(r, 0) * x + affine(r, 1) * y + affine(r, 2) * z + affine(r, 3);
    return made;
  }
  /// The geometry of voxels `ratio` times as long, with the same outer corner of the first voxel.
  Geometry scaled(const std::array<double, 3>& ratio) const {
    Geometry made = shifted(0.5 * ratio[0] - 0.5, 0.5 * ratio[1] - 0.5, 0.5 * ratio[2] - 0.5);
    for (int r = 0; r < 3; ++r)
      for (int k = 0; k < 3; ++k) made.affine(r, k) = affine(r, k) * ratio[std::size_t(k)];
    return made;
  }
  /// The affine to LPS+ millimeters, as DICOM and ITK write it.
  Affine to_lps() const {
    Affine lps = affine;
    for (int r = 0; r < 2; ++r)
      for (int c = 0; c < 4; ++c) lps(r, c) = -affine(r, c);
    return lps;
  }

 private:
  double length(int axis) const {
    return std::hypot(affine(0, axis), affine(1, axis), affine(2, axis));
  }
  // Signed, so that the cyclic indices need no alternating sign.
  double cofactor(int r, int c) const {
    const int r1 = (r + 1) % 3, r2 = (r + 2) % 3, c1 = (c + 1) % 3, c2 = (c + 2) % 3;
    return affine(r1, c1) * affine(r2, c2) - affine(r1, c2) * affine(r2, c1);
  }
  double determinant() const {
    return affine(0, 0) * cofactor(0, 0) + affine(0, 1) * cofactor(0, 1) +
           affine(0, 2) * cofactor(0, 2);
  }
};

}  // namespace segmed
