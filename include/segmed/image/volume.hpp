// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>
#include <segmed/image/geometry.hpp>

namespace segmed {

/// A scan or a label map on a grid in the patient.
///
///   shapes   index ((z*Y + y)*X + x)*C + c: a feature map of depth z, height y, width x
///   units    geometry in RAS+ mm
template <class T>
struct Volume {
  Extent3 extent{};    // x, y, z
  Index channels = 1;  // last, together
  Geometry geometry;
  std::vector<T> voxels;

  /// Voxels of the grid, without channels.
  Index grid_size() const { return extent[0] * extent[1] * extent[2]; }
  /// Values held when the volume is filled: grid times channels.
  Index size() const { return grid_size() * channels; }
  bool empty() const { return voxels.empty(); }
  /// Distance between neighboring voxels, in mm.
  Eigen::Vector3d spacing() const { return geometry.spacing(); }

  /// Position of a value in `voxels`.
  Index index(Index x, Index y, Index z, Index c = 0) const {
    return ((z * extent[1] + y) * extent[0] + x) * channels + c;
  }
  T& at(Index x, Index y, Index z, Index c = 0) { return voxels[std::size_t(index(x, y, z, c))]; }
  const T& at(Index x, Index y, Index z, Index c = 0) const {
    return voxels[std::size_t(index(x, y, z, c))];
  }
  bool contains(Index x, Index y, Index z) const {
    return x >= 0 && y >= 0 && z >= 0 && x < extent[0] && y < extent[1] && z < extent[2];
  }
};

/// A volume of one value on a grid.
///
///   throws   ShapeError when an extent is below 1 or the number of values overflows
template <class T>
Volume<T> make_volume(const Extent3& extent, const Geometry& geometry = {}, Index channels = 1,
                      T value = T{}) {
  Index count = 1;
  for (const Index n : {extent[0], extent[1], extent[2], channels}) {
    require(n >= 1 && n <= std::numeric_limits<Index>::max() / Index(sizeof(T)) / count, "volume",
            "extent ", extent[0], "x", extent[1], "x", extent[2], " with ", channels,
            " channels cannot be held");
    count *= n;
  }
  Volume<T> made;
  made.extent = extent;
  made.channels = channels;
  made.geometry = geometry;
  made.voxels.assign(std::size_t(count), value);
  return made;
}

/// A volume of one value on another volume's grid.
template <class T, class U>
Volume<T> make_volume_like(const Volume<U>& grid, Index channels = 1, T value = T{}) {
  return make_volume<T>(grid.extent, grid.geometry, channels, value);
}

/// Throws ShapeError unless the number of values is what the extents say.
template <class T>
void check_filled(const Volume<T>& volume, const char* who) {
  require(Index(volume.voxels.size()) == volume.size() && volume.size() > 0, who, "volume of ",
          volume.extent[0], "x", volume.extent[1], "x", volume.extent[2], " with ", volume.channels,
          " channels holds ", volume.voxels.size(), " values");
}

/// True when two volumes have the same extents and no corner is off by more than `tolerance` mm.
template <class T, class U>
bool same_grid(const Volume<T>& a, const Volume<U>& b, double tolerance = 1e-3) {
  return a.extent == b.extent && a.geometry.distance(b.geometry, a.extent) <= tolerance;
}

/// A copy with another voxel type, each value converted by static_cast.
template <class To, class From>
Volume<To> converted(const Volume<From>& from) {
  Volume<To> to;
  to.extent = from.extent;
  to.channels = from.channels;
  to.geometry = from.geometry;
  to.voxels.resize(from.voxels.size());
  std::transform(from.voxels.begin(), from.voxels.end(), to.voxels.begin(),
                 [](From value) { return static_cast<To>(value); });
  return to;
}

/// The box of `extent` voxels that starts at `first`; what lies outside is `outside`.
template <class T>
Volume<T> cropped(const Volume<T>& from, const Extent3& first, const Extent3& extent,
                  T outside = T{}) {
  check_filled(from, "cropped");
  Volume<T> box = make_volume<T>(extent, from.geometry.cropped(first), from.channels, outside);
  const Index x0 = std::max<Index>(0, -first[0]);
  const Index x1 = std::min(extent[0], from.extent[0] - first[0]);
  if (x0 >= x1) return box;
  for (Index z = 0; z < extent[2]; ++z)
    for (Index y = 0; y < extent[1]; ++y) {
      if (!from.contains(x0 + first[0], y + first[1], z + first[2])) continue;
      const T* source = &from.at(x0 + first[0], y + first[1], z + first[2]);
      std::copy(source, source + (x1 - x0) * from.channels, &box.at(x0, y, z));
    }
  return box;
}

}  // namespace segmed
