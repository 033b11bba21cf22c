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
  ParabolaEnvelope(Index n, double step)
      : line(std::size_t(n)), square_(step * step), over_(line.size()), lowest_(line.size()) {
    for (std::size_t apart = 1; apart < over_.size(); ++apart)
      over_[apart] = 0.5 / (square_ * double(apart));
  }

  /// Replaces every value of `line` by the least of value + (step * distance in points)^2.
  void sweep() {
    const Index n = Index(line.size());
    Index last = -1;
    for (Index q = 0; q < n; ++q) {
      const double height = line[std::size_t(q)];
      if (!(height < infinite)) continue;  // no parabola here
      double meets = -infinite;
      for (; last >= 0; --last) {
        const Parabola& below = lowest_[std::size_t(last)];
        meets = 0.5 * double(q + below.root) +
                (height - below.height) * over_[std::size_t(q - below.root)];
        if (meets > below.from) break;
      }
      if (last < 0) meets = -infinite;
      lowest_[std::size_t(++last)] = {q, height, meets};
    }
    if (last < 0) return;
    const Parabola* at = lowest_.data();
    const Parabola* const end = at + last;
    for (Index q = 0; q < n; ++q) {
      while (at < end && at[1].from < double(q)) ++at;
      const double apart = double(q - at->root);
      line[std::size_t(q)] = at->height + square_ * apart * apart;
    }
  }

  std::vector<double> line;

 private:
  struct Parabola {
    Index root;
    double height, from;  // the lowest one from here on
  };
  static constexpr double infinite = std::numeric_limits<double>::infinity();
  double square_;
  std::vector<double> over_;  // 1 / (2 step^2 apart), by the number of points apart
  std::vector<Parabola> lowest_;
};

/// The same for many neighbouring lines, a few at a time: their points lie side by side in memory.
class EnvelopeBlock {
 public:
  EnvelopeBlock(Index points, double step) : lines_(8, ParabolaEnvelope(points, step)) {}

  /// Sweeps `lines` lines whose first points are neighbours, and whose next points lie `apart`.
  void sweep(double* first, Index lines, Index apart) {
    for (Index l = 0; l < lines; l += Index(lines_.size())) {
      const std::size_t count = std::size_t(std::min(lines - l, Index(lines_.size())));
      const std::size_t points = lines_[0].line.size();
      double* at = first + l;
      for (std::size_t q = 0; q < points; ++q)
        for (std::size_t k = 0; k < count; ++k) lines_[k].line[q] = at[Index(q) * apart + Index(k)];
      for (std::size_t k = 0; k < count; ++k) lines_[k].sweep();
      for (std::size_t q = 0; q < points; ++q)
        for (std::size_t k = 0; k < count; ++k) at[Index(q) * apart + Index(k)] = lines_[k].line[q];
    }
  }

 private:
  std::vector<ParabolaEnvelope> lines_;
};

/// The squared distances within a row of a mask: to the last voxel that is not 0, or the next.
inline void squared_distances_in_row(const std::uint8_t* mask, Index n, double step, double* to) {
  const double square = step * step;
  double apart = std::numeric_limits<double>::infinity();
  for (Index x = 0; x < n; ++x) to[x] = apart = mask[x] != 0 ? 0 : apart + 1;
  for (Index x = n; x-- > 0;) {
    apart = std::min(to[x], apart + 1);
    to[x] = square * apart * apart;
  }
}

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
  std::vector<double> squares(mask.size());
  parallel_for(nz, 1, [&, nx = nx, ny = ny](Index begin, Index end) {
    EnvelopeBlock columns(ny, spacing[1]);
    for (Index z = begin; z < end; ++z) {
      const Index slice = z * ny * nx;
      for (Index row = slice; row < slice + ny * nx; row += nx)
        squared_distances_in_row(mask.data() + row, nx, spacing[0], squares.data() + row);
      columns.sweep(squares.data() + slice, nx, nx);
    }
  });
  if (nz == 1) return squares;
  parallel_for(ny, 1, [&, nx = nx, ny = ny, nz = nz](Index begin, Index end) {
    EnvelopeBlock pillars(nz, spacing[2]);
    for (Index y = begin; y < end; ++y) pillars.sweep(squares.data() + y * nx, nx, ny * nx);
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
  parallel_for(Index(squares.size()), 1 << 16, [&](Index begin, Index end) {
    for (auto i = std::size_t(begin); i < std::size_t(end); ++i)
      distances.voxels[i] = float(std::sqrt(squares[i]));
  });
  return distances;
}

/// The box of a mask's voxels that are not 0 and, as far as the grid goes, of one voxel around
/// them.
struct MaskBox {
  Extent3 grid, low, high = {0, 0, 0};  // from low to high - 1; empty for an empty mask

  MaskBox(const std::vector<std::uint8_t>& mask, const Extent3& extent)
      : grid(extent), low(extent) {
    for (Index z = 0, i = 0; z < grid[2]; ++z)
      for (Index y = 0; y < grid[1]; ++y)
        for (Index x = 0; x < grid[0]; ++x, ++i)
          if (mask[std::size_t(i)] != 0) widen({x, y, z});
  }
  bool empty() const { return high[0] == 0; }
  Extent3 extent() const { return {high[0] - low[0], high[1] - low[1], high[2] - low[2]}; }
  /// Calls visit(i) with the number of each voxel in the grid, x fastest.
  template <class Visit>
  void each(const Visit& visit) const {
    for (Index z = low[2]; z < high[2]; ++z)
      for (Index y = low[1]; y < high[1]; ++y)
        for (Index x = low[0]; x < high[0]; ++x)
          visit(std::size_t((z * grid[1] + y) * grid[0] + x));
  }

 private:
  void widen(const Extent3& at) {
    for (std::size_t a = 0; a < 3; ++a) {
      low[a] = std::min(low[a], std::max<Index>(0, at[a] - 1));
      high[a] = std::max(high[a], std::min(grid[a], at[a] + 2));
    }
  }
};

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
  std::vector<double> squares = squared_distances(mask, extent, unit);
  // What is outside and nearest to a voxel inside lies in the box: nothing beyond it is nearer than
  // the box's side on the way.
  if (const MaskBox box(mask, extent); !box.empty()) {
    std::vector<std::uint8_t> rest;
    box.each([&](std::size_t i) { rest.push_back(mask[i] == 0); });
    const auto inward = squared_distances(rest, box.extent(), unit);
    std::size_t k = 0;
    box.each([&](std::size_t i) {
      if (mask[i] != 0) squares[i] = inward[k];
      ++k;
    });
  }
  double farthest[2] = {0, 0};  // outside, inside
  for (std::size_t i = 0; i < mask.size(); ++i) {
    double& far = farthest[mask[i] != 0];
    far = std::max(far, squares[i]);
  }
  for (double& far : farthest) far = std::sqrt(far);
  std::vector<float> distances(mask.size());
  for (std::size_t i = 0; i < mask.size(); ++i) {
    const bool inside = mask[i] != 0;
    const double far = farthest[inside], here = std::sqrt(squares[i]);
    // A voxel is at the border when the nearest one outside is its neighbor by a face.
    const double share = !std::isfinite(far) ? 1 : inside && here <= 1 ? 0 : here / far;
    distances[i] = float(inside ? -share : share);
  }
  return distances;
}

}  // namespace segmed
