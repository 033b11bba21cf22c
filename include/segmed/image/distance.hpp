// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <segmed/backend/parallel.hpp>
#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>
#include <segmed/image/volume.hpp>

namespace segmed {

/// The lower envelope of one parabola per grid point of a line: turns squared distances along some
/// axes into squared distances along one more.
///
///   source   Felzenszwalb, Huttenlocher, Distance transforms of sampled functions, Theory of
///            Computing 8, 2012, algorithm 1, with a step that is not 1
class ParabolaEnvelope {
 public:
  explicit ParabolaEnvelope(Index n)
      : line(std::size_t(n)), heights_(std::size_t(n)), roots_(std::size_t(n)), from_(roots_) {}

  /// Replaces every value of `line` by the least of value + (step * distance in points)^2.
  void sweep(double step) {
    const Index n = Index(line.size());
    const double square = step * step;
    std::size_t kept = 0;
    for (Index q = 0; q < n; ++q) {
      const double height = line[std::size_t(q)];
      if (!(height < infinite)) continue;  // no parabola here
      double meets = -infinite;
      while (kept > 0) {
        const double root = roots_[kept - 1];
        const double apart = double(q) - root;
        meets = (double(q) + root) / 2 + (height - heights_[kept - 1]) / (2 * square * apart);
        if (meets > from_[kept - 1]) break;
        --kept;
      }
      roots_[kept] = double(q), heights_[kept] = height;
      from_[kept] = kept == 0 ? -infinite : meets;
      ++kept;
    }
    if (kept == 0) return;
    std::size_t lowest = 0;
    for (Index q = 0; q < n; ++q) {
      while (lowest + 1 < kept && from_[lowest + 1] < double(q)) ++lowest;
      const double apart = double(q) - roots_[lowest];
      line[std::size_t(q)] = heights_[lowest] + square * apart * apart;
    }
  }

  std::vector<double> line;

 private:
  static constexpr double infinite = std::numeric_limits<double>::infinity();
  std::vector<double> heights_, roots_, from_;  // of the parabolas that are lowest somewhere
};

/// The exact squared Euclidean distance of every voxel to the nearest voxel that is not 0; infinity
/// where the mask has none. The same bits for any number of threads.
///
///   shapes   mask and result x fastest, extent[0] * extent[1] * extent[2] values
///   units    spacing in mm, result in mm^2
///   throws   ShapeError when the mask has another size, or a spacing is not above 0
inline std::vector<double> squared_distances(const std::vector<std::uint8_t>& mask,
                                             const Extent3& extent,
                                             const std::array<double, 3>& spacing) {
  const auto [nx, ny, nz] = extent;
  require(nx >= 1 && ny >= 1 && nz >= 1 && Index(mask.size()) == nx * ny * nz, "distance",
          "a mask of ", mask.size(), " voxels is not ", nx, "x", ny, "x", nz);
  for (const double step : spacing)
    require(step > 0 && std::isfinite(step), "distance", "a spacing is ", step, " mm");
  std::vector<double> squares(mask.size(), std::numeric_limits<double>::infinity());
  const auto at = [nx = nx, ny = ny](Index x, Index y, Index z) {
    return std::size_t((z * ny + y) * nx + x);
  };
  parallel_for(nz, 1, [&, nx = nx, ny = ny](Index begin, Index end) {
    ParabolaEnvelope row(nx), column(ny);
    for (Index z = begin; z < end; ++z) {
      for (Index y = 0; y < ny; ++y) {
        for (Index x = 0; x < nx; ++x)
          row.line[std::size_t(x)] =
              mask[at(x, y, z)] != 0 ? 0.0 : std::numeric_limits<double>::infinity();
        row.sweep(spacing[0]);
        for (Index x = 0; x < nx; ++x) squares[at(x, y, z)] = row.line[std::size_t(x)];
      }
      for (Index x = 0; x < nx; ++x) {
        for (Index y = 0; y < ny; ++y) column.line[std::size_t(y)] = squares[at(x, y, z)];
        column.sweep(spacing[1]);
        for (Index y = 0; y < ny; ++y) squares[at(x, y, z)] = column.line[std::size_t(y)];
      }
    }
  });
  if (nz == 1) return squares;
  parallel_for(ny, 1, [&, nx = nx, nz = nz](Index begin, Index end) {
    ParabolaEnvelope pillar(nz);
    for (Index y = begin; y < end; ++y)
      for (Index x = 0; x < nx; ++x) {
        for (Index z = 0; z < nz; ++z) pillar.line[std::size_t(z)] = squares[at(x, y, z)];
        pillar.sweep(spacing[2]);
        for (Index z = 0; z < nz; ++z) squares[at(x, y, z)] = pillar.line[std::size_t(z)];
      }
  });
  return squares;
}

/// The exact Euclidean distance of every voxel to the nearest voxel that is not 0; infinity where
/// the mask has none. The grid's axes are taken as perpendicular.
///
///   shapes   one channel
///   units    mm
///   throws   ShapeError when the mask is empty or has several channels
inline Volume<float> distance_transform(const Volume<std::uint8_t>& mask) {
  check_filled(mask, "distance");
  require(mask.channels == 1, "distance", "the mask has ", mask.channels, " channels, not 1");
  const auto step = mask.spacing();
  const auto squares = squared_distances(mask.voxels, mask.extent, {step[0], step[1], step[2]});
  Volume<float> distances = make_volume_like<float>(mask);
  for (std::size_t i = 0; i < squares.size(); ++i)
    distances.voxels[i] = float(std::sqrt(squares[i]));
  return distances;
}

/// How far every voxel lies from the border of a mask, in shares of the farthest: 0 on the mask's
/// voxels that touch the outside with a face, down to -1 inside, up to 1 outside. 1 everywhere for
/// an empty mask, -1 for a full one.
///
///   shapes   mask and result x fastest, extent[0] * extent[1] * extent[2] values
///   units    of voxels, whatever their spacing
///   source   Xue et al., Shape-aware organ segmentation, AAAI 2020, as Luo et al.
///            compute it, arXiv:2009.04448 (their empty masks are 0 everywhere)
inline std::vector<float> signed_distances(const std::vector<std::uint8_t>& mask,
                                           const Extent3& extent) {
  const std::array<double, 3> unit = {1, 1, 1};
  std::vector<std::uint8_t> rest(mask.size());
  for (std::size_t i = 0; i < mask.size(); ++i) rest[i] = mask[i] == 0;
  const auto outward = squared_distances(mask, extent, unit);
  const auto inward = squared_distances(rest, extent, unit);
  double farthest[2] = {0, 0};  // outside, inside
  for (std::size_t i = 0; i < mask.size(); ++i) {
    double& far = farthest[mask[i] != 0];
    far = std::max(far, std::sqrt(mask[i] != 0 ? inward[i] : outward[i]));
  }
  std::vector<float> distances(mask.size());
  for (std::size_t i = 0; i < mask.size(); ++i) {
    const bool inside = mask[i] != 0;
    const double far = farthest[inside], here = std::sqrt(inside ? inward[i] : outward[i]);
    // A voxel is at the border when the nearest one outside is its neighbor by a face.
    const double share = !std::isfinite(far) ? 1 : inside && here <= 1 ? 0 : here / far;
    distances[i] = float(inside ? -share : share);
  }
  return distances;
}

}  // namespace segmed
