// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include <segmed/backend/parallel.hpp>
#include <segmed/image/volume.hpp>

namespace segmed {

/// A grid without values.
struct VoxelGrid {
  Extent3 extent{1, 1, 1};
  Geometry geometry;
};

/// The grid of another spacing over the same field of view: the outer corner of the first voxel
/// stays where it is, the spacing is exactly what was asked for, and the extent is rounded to the
/// nearest whole voxel (so the far side may move by up to half a new voxel). A sheared grid keeps
/// its shear.
///
///   units    spacing in mm along the grid's own x, y and z
///   throws   ConfigError when a spacing is not positive or asks for more than 2^34 voxels
inline VoxelGrid grid_of_spacing(const VoxelGrid& from, const std::array<double, 3>& spacing) {
  VoxelGrid to = from;
  const Eigen::Vector3d old = from.geometry.spacing();
  std::array<double, 3> ratio{};
  double total = 1;
  for (std::size_t k = 0; k < 3; ++k) {
    require<ConfigError>(std::isfinite(spacing[k]) && spacing[k] > 0, "resample", "spacing ",
                         spacing[0], ",", spacing[1], ",", spacing[2], " mm is not positive");
    ratio[k] = spacing[k] / old[Index(k)];
    // The small term settles ties upward, whatever the spacing's last bits are.
    const double extent = std::max(1.0, std::floor(double(from.extent[k]) / ratio[k] + 0.500001));
    total *= extent;
    require<ConfigError>(total <= 17179869184.0, "resample", "spacing ", spacing[0], ",",
                         spacing[1], ",", spacing[2], " mm makes more than 2^34 voxels of ",
                         from.extent[0], "x", from.extent[1], "x", from.extent[2],
                         "; ask for larger voxels");
    to.extent[k] = Index(extent);
  }
  to.geometry = from.geometry.scaled(ratio);
  return to;
}

/// Where a target voxel's value comes from along one axis: two source voxels and the second's part.
struct LinearTap {
  Index low = 0, high = 0;
  double part = 0;
};

// Rounding in the product of two affines must not make a voxel that lies on the grid read its
// neighbor (which may be NaN), so positions this close to a voxel are on it.
inline constexpr double on_grid = 1e-6;

/// The tap at a position; false when it lies outside the field of view, which ends half a voxel
/// beyond the first and the last voxel centers.
inline bool linear_tap(double position, Index extent, LinearTap& tap) {
  if (!(position >= -0.5 - on_grid && position <= double(extent) - 0.5 + on_grid)) return false;
  const Index whole = Index(position + on_grid + 1) - 1;  // floor, since position is above -1
  const double part = position - double(whole);
  tap.low = std::clamp<Index>(whole, 0, extent - 1);
  tap.part = part <= on_grid || whole < 0 ? 0 : part;
  tap.high = std::min(tap.low + (tap.part > 0 ? 1 : 0), extent - 1);
  if (tap.high == tap.low) tap.part = 0;
  return true;
}

/// The nearest voxel; positions halfway go up.
inline bool nearest_voxel(double position, Index extent, Index& voxel) {
  if (!(position >= -0.5 - on_grid && position <= double(extent) - 0.5 + on_grid)) return false;
  voxel = std::clamp<Index>(Index(position + 1.5 + on_grid) - 1, 0, extent - 1);
  return true;
}

/// A computed value in the storage type; whole-number types round to the nearest.
template <class T>
T stored_as(double value) {
  if constexpr (std::is_integral_v<T>) return static_cast<T>(std::nearbyint(value));
  return static_cast<T>(value);
}

/// One interpolated value; a neighbor of weight zero is not read.
template <class T>
double linear_value(const T* from, const Extent3& stride, const std::array<LinearTap, 3>& taps) {
  const auto along_x = [&](Index offset) {
    const double low = double(from[offset + taps[0].low * stride[0]]);
    if (taps[0].part == 0) return low;
    const double high = double(from[offset + taps[0].high * stride[0]]);
    return low * (1 - taps[0].part) + high * taps[0].part;
  };
  const auto along_y = [&](Index offset) {
    const double low = along_x(offset + taps[1].low * stride[1]);
    if (taps[1].part == 0) return low;
    const double high = along_x(offset + taps[1].high * stride[1]);
    return low * (1 - taps[1].part) + high * taps[1].part;
  };
  const double low = along_y(taps[2].low * stride[2]);
  if (taps[2].part == 0) return low;
  return low * (1 - taps[2].part) + along_y(taps[2].high * stride[2]) * taps[2].part;
}

/// What lies beyond a volume's field of view: a value of its own, or the border's values.
enum class Beyond { outside, border };

/// How voxels of one grid are found in another: the affine between them, and what is beyond.
struct GridMap {
  Geometry voxel_to_voxel;  // target to source
  Extent3 from, to;
  Beyond beyond;

  GridMap(const VoxelGrid& source, const VoxelGrid& target, Beyond where)
      : from(source.extent), to(target.extent), beyond(where) {
    const Geometry world_to_source{source.geometry.inverse()};
    Geometry& map = voxel_to_voxel;
    for (int c = 0; c < 4; ++c)
      for (int r = 0; r < 3; ++r) {
        map.affine(r, c) = c == 3 ? world_to_source.affine(r, 3) : 0;
        for (int k = 0; k < 3; ++k)
          map.affine(r, c) += world_to_source.affine(r, k) * target.geometry.affine(k, c);
      }
    straighten();
  }
  /// Whether each axis depends on the same axis of the other grid alone.
  bool along_axes() const {
    bool diagonal = true;
    for (int c = 0; c < 3; ++c)
      for (int r = 0; r < 3; ++r) diagonal &= r == c || voxel_to_voxel.affine(r, c) == 0;
    return diagonal;
  }
  /// The tap at a position along an axis, of part 0 for the nearest voxel; false beyond the source.
  bool tap(std::size_t axis, double position, Interpolation how, LinearTap& at) const {
    if (beyond == Beyond::border) position = std::clamp(position, 0.0, double(from[axis] - 1));
    if (how == Interpolation::linear) return linear_tap(position, from[axis], at);
    at.part = 0;
    if (!nearest_voxel(position, from[axis], at.low)) return false;
    at.high = at.low;
    return true;
  }

 private:
  /// Oblique grids of one orientation leave rounding off the diagonal, which would make them skew.
  void straighten() {
    Geometry straight = voxel_to_voxel;
    for (int r = 0; r < 3; ++r) {
      double away = 0;  // at the far end of the target
      for (int c = 0; c < 3; ++c)
        if (c != r) {
          away += std::abs(straight.affine(r, c)) * double(to[std::size_t(c)]);
          straight.affine(r, c) = 0;
        }
      if (away > on_grid) return;
    }
    voxel_to_voxel = straight;
  }
};

/// The taps of all voxels along one axis that lie in the source: those from `first` to `last`.
struct AxisTaps {
  std::vector<LinearTap> taps;
  Index first, last;

  AxisTaps(const GridMap& map, std::size_t axis, Interpolation how)
      : taps(std::size_t(map.to[axis])), first(0), last(map.to[axis]) {
    const double start = map.voxel_to_voxel.affine(int(axis), 3),
                 step = map.voxel_to_voxel.affine(int(axis), int(axis));
    std::vector<bool> inside;
    for (std::size_t i = 0; i < taps.size(); ++i)
      inside.push_back(map.tap(axis, start + step * double(i), how, taps[i]));
    while (first < last && !inside[std::size_t(first)]) ++first;
    while (last > first && !inside[std::size_t(last - 1)]) --last;
  }
  const LinearTap& operator[](Index i) const { return taps[std::size_t(i)]; }
  bool has(Index i) const { return i >= first && i < last; }
};

/// to = low (1 - part) + high part, of `count` numbers; a neighbor of weight zero is not read.
template <class A>
void mix_rows(const A* low, const A* high, double part, Index count, double* to) {
  if (part == 0)
    for (Index i = 0; i < count; ++i) to[i] = double(low[i]);
  else
    for (Index i = 0; i < count; ++i) to[i] = double(low[i]) * (1 - part) + double(high[i]) * part;
}

/// Rows of the target whose axes are those of the source: what y and z say is the same for a whole
/// row, so source rows are mixed first and then read along x.
template <class T>
void resample_along_axes(const Volume<T>& from, const GridMap& map, Interpolation how,
                         Volume<T>& to) {
  const AxisTaps along_x(map, 0, how), along_y(map, 1, how), along_z(map, 2, how);
  const Index channels = to.channels, width = from.extent[0] * channels;
  const auto row_of = [&](Index y, Index z) {
    return from.voxels.data() + (z * from.extent[1] + y) * width;
  };
  parallel_for(to.extent[1] * to.extent[2], 1 + 8192 / width, [&](Index begin, Index end) {
    std::vector<double> near(static_cast<std::size_t>(width)), far = near;
    for (Index row = begin; row < end; ++row) {
      const Index y = row % to.extent[1], z = row / to.extent[1];
      if (!along_y.has(y) || !along_z.has(z)) continue;
      const LinearTap &ty = along_y[y], &tz = along_z[z];
      T* out = to.voxels.data() + (row * to.extent[0] + along_x.first) * channels;
      if (how == Interpolation::nearest) {
        for (Index x = along_x.first; x < along_x.last; ++x, out += channels)
          std::copy_n(row_of(ty.low, tz.low) + along_x[x].low * channels, channels, out);
        continue;
      }
      mix_rows(row_of(ty.low, tz.low), row_of(ty.high, tz.low), ty.part, width, near.data());
      if (tz.part > 0) {
        mix_rows(row_of(ty.low, tz.high), row_of(ty.high, tz.high), ty.part, width, far.data());
        mix_rows(near.data(), far.data(), tz.part, width, near.data());
      }
      for (Index x = along_x.first; x < along_x.last; ++x) {
        const LinearTap& tx = along_x[x];
        const double *low = near.data() + tx.low * channels,
                     *high = near.data() + tx.high * channels;
        for (Index c = 0; c < channels; ++c)
          *out++ = stored_as<T>(tx.part == 0 ? low[c] : low[c] * (1 - tx.part) + high[c] * tx.part);
      }
    }
  });
}

/// Rows of a target that is turned or sheared against the source.
template <class T>
void resample_turned(const Volume<T>& from, const GridMap& map, Interpolation how, Volume<T>& to) {
  const Extent3 stride{from.channels, from.channels * from.extent[0],
                       from.channels * from.extent[0] * from.extent[1]};
  const Index grain = std::max<Index>(1, 8192 / (to.extent[0] * to.channels));
  parallel_for(to.extent[1] * to.extent[2], grain, [&](Index first, Index last) {
    std::array<LinearTap, 3> taps;
    for (Index row = first; row < last; ++row) {
      const Eigen::Vector3d start =
          map.voxel_to_voxel.to_world(0, double(row % to.extent[1]), double(row / to.extent[1]));
      T* out = to.voxels.data() + row * to.extent[0] * to.channels;
      for (Index x = 0; x < to.extent[0]; ++x, out += to.channels) {
        bool inside = true;
        for (std::size_t k = 0; k < 3 && inside; ++k) {
          const double step = map.voxel_to_voxel.affine(int(k), 0);
          inside = map.tap(k, start[Index(k)] + step * double(x), how, taps[k]);
        }
        for (Index c = 0; inside && c < to.channels; ++c)
          out[c] = stored_as<T>(linear_value(from.voxels.data() + c, stride, taps));
      }
    }
  });
}

/// A volume's values on another grid in the patient, which may be turned, sheared, smaller or
/// larger. Within half a voxel of the border the last voxel's value is continued; farther out lies
/// `outside`. No smoothing is done before a grid becomes coarser.
///
///   shapes   any number of channels, each by itself
///   throws   ShapeError for a volume that is not filled, DataError for an affine without inverse
template <class T>
Volume<T> resample_onto(const Volume<T>& from, const VoxelGrid& grid, Interpolation how,
                        T outside = T{}, Beyond beyond = Beyond::outside) {
  check_filled(from, "resample");
  require<DataError>(from.geometry.is_valid() && grid.geometry.is_valid(), "resample",
                     "an affine has no inverse");
  Volume<T> to = make_volume<T>(grid.extent, grid.geometry, from.channels, outside);
  const GridMap map({from.extent, from.geometry}, grid, beyond);
  if (map.along_axes())
    resample_along_axes(from, map, how, to);
  else
    resample_turned(from, map, how, to);
  return to;
}

/// A volume on the grid of another volume, as for a label map that must fit its scan.
template <class T, class U>
Volume<T> resample_like(const Volume<T>& from, const Volume<U>& reference, Interpolation how,
                        T outside = T{}) {
  return resample_onto(from, VoxelGrid{reference.extent, reference.geometry}, how, outside);
}

/// A volume with another spacing over the same field of view; see grid_of_spacing for its edges.
///
///   units    spacing in mm along the volume's own x, y and z
template <class T>
Volume<T> resample(const Volume<T>& from, const std::array<double, 3>& spacing, Interpolation how) {
  const VoxelGrid grid = grid_of_spacing({from.extent, from.geometry}, spacing);
  // One voxel larger than the whole volume has its center beyond it.
  return resample_onto(from, grid, how, T{}, Beyond::border);
}

}  // namespace segmed
