// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>
#include <segmed/image/volume.hpp>

namespace segmed {

/// The voxels of the largest piece of a mask; pieces hang together by faces, edges and corners. Of
/// equal pieces the one that begins first.
///
///   shapes   mask and result x fastest, extent[0] * extent[1] * extent[2] values, 0 or not
///   throws   ShapeError when the mask has another size
inline std::vector<std::uint8_t> largest_component(const std::vector<std::uint8_t>& mask,
                                                   const Extent3& extent) {
  const auto [nx, ny, nz] = extent;
  require(nx >= 1 && ny >= 1 && nz >= 1 && Index(mask.size()) == nx * ny * nz, "component",
          "a mask of ", mask.size(), " voxels is not ", nx, "x", ny, "x", nz);
  std::vector<std::uint8_t> seen(mask.size()), kept(mask.size());
  std::vector<Index> piece, largest;
  for (Index seed = 0; seed < Index(mask.size()); ++seed) {
    if (mask[std::size_t(seed)] == 0 || seen[std::size_t(seed)]) continue;
    piece.assign(1, seed);
    seen[std::size_t(seed)] = 1;
    for (std::size_t next = 0; next < piece.size(); ++next) {
      const Index v = piece[next], x = v % nx, y = v / nx % ny, z = v / nx / ny;
      for (Index c = std::max<Index>(0, z - 1); c <= std::min(nz - 1, z + 1); ++c)
        for (Index b = std::max<Index>(0, y - 1); b <= std::min(ny - 1, y + 1); ++b)
          for (Index a = std::max<Index>(0, x - 1); a <= std::min(nx - 1, x + 1); ++a) {
            const Index to = (c * ny + b) * nx + a;
            if (mask[std::size_t(to)] == 0 || seen[std::size_t(to)]) continue;
            seen[std::size_t(to)] = 1;
            piece.push_back(to);
          }
    }
    if (piece.size() > largest.size()) largest.swap(piece);
  }
  for (const Index v : largest) kept[std::size_t(v)] = 1;
  return kept;
}

}  // namespace segmed
