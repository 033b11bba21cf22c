// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <string>

#include <segmed/backend/parallel.hpp>
#include <segmed/image/volume.hpp>

namespace segmed {

/// The same voxels in the same places of the patient, stored along other axes: no value changes.
template <class T>
Volume<T> turned(const Volume<T>& from, const AxisMap& map) {
  check_filled(from, "turned");
  if (map.is_identity()) return from;
  Volume<T> to = make_volume<T>(map.extent(from.extent), from.geometry.turned(map, from.extent),
                                from.channels);
  const Extent3 stride{from.channels, from.channels * from.extent[0],
                       from.channels * from.extent[0] * from.extent[1]};
  Extent3 step{};
  Index start = 0;
  for (std::size_t k = 0; k < 3; ++k) {
    const auto source = std::size_t(map.from[k]);
    step[k] = map.flip[k] ? -stride[source] : stride[source];
    if (map.flip[k]) start += stride[source] * (from.extent[source] - 1);
  }
  const Index rows = to.extent[1] * to.extent[2];
  const Index grain = std::max<Index>(1, 65536 / (to.extent[0] * to.channels));
  parallel_for(rows, grain, [&](Index first, Index last) {
    for (Index row = first; row < last; ++row) {
      const Index y = row % to.extent[1], z = row / to.extent[1];
      const T* in = from.voxels.data() + start + y * step[1] + z * step[2];
      T* out = to.voxels.data() + row * to.extent[0] * to.channels;
      for (Index x = 0; x < to.extent[0]; ++x, out += to.channels)
        std::copy_n(in + x * step[0], to.channels, out);
    }
  });
  return to;
}

/// Turns a volume so that its axes run as close to `code` as they can: "RAS" is x to the right,
/// y to the front, z up. An exact permutation; reorient with the first code brings it back.
///
///   throws   ConfigError for a code that is no orientation
template <class T>
Volume<T> reorient(const Volume<T>& from, const std::string& code = "RAS") {
  return turned(from, from.geometry.turn_to(code));
}

}  // namespace segmed
