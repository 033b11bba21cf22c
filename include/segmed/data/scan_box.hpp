// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include <segmed/core/annotated_set.hpp>

namespace segmed {

/// A box of a scan with its labels, as kernels read it. All positions are in the scan's voxels.
///
///   shapes   voxels (z, y, x, channels) and labels (z, y, x) of the box; outside (channels)
struct ScanBox {
  const float* voxels;
  const std::uint8_t* labels;          // null: the scan has none
  const float* outside;                // what lies beyond the scan
  const std::uint8_t* renamed;         // what each of 256 labels is called in the patch
  Index scan[3], first[3], extent[3];  // of the scan; where the box begins and its own, x, y, z
  Index channels;

  SEGMED_HD Index offset(const Index (&at)[3]) const {
    return ((at[2] - first[2]) * extent[1] + at[1] - first[1]) * extent[0] + at[0] - first[0];
  }
  SEGMED_HD void blank(float* to, std::uint8_t& label) const {
    for (Index c = 0; c < channels; ++c) to[c] = outside[c];
    label = ignored;
  }
  /// A voxel of the box as it is.
  SEGMED_HD void take(Index voxel, float* to, std::uint8_t& label) const {
    for (Index c = 0; c < channels; ++c) to[c] = voxels[voxel * channels + c];
    label = labels ? renamed[labels[voxel]] : ignored;
  }
  /// What lies between voxels, linearly, and the nearest label. Within half a voxel beyond the
  /// scan its border's value goes on.
  SEGMED_HD void interpolate(const float (&at)[3], float* to, std::uint8_t& label) const {
    Index low[3], high[3], nearest[3];
    float part[3];
    for (int k = 0; k < 3; ++k) {
      const float most = float(scan[k] - 1);
      if (!(at[k] >= -0.5f && at[k] <= most + 0.5f)) return blank(to, label);
      const float inside = at[k] < 0 ? 0.0f : at[k] > most ? most : at[k];
      low[k] = Index(inside), high[k] = low[k] + 1 < scan[k] ? low[k] + 1 : low[k];
      part[k] = inside - float(low[k]);
      nearest[k] = part[k] >= 0.5f ? high[k] : low[k];
    }
    for (Index c = 0; c < channels; ++c) {
      float value = 0;
      for (int corner = 0; corner < 8; ++corner) {
        float weight = 1;
        Index from[3];
        for (int k = 0; k < 3; ++k) {
          const bool up = (corner >> k & 1) != 0;
          weight *= up ? part[k] : 1 - part[k];
          from[k] = up ? high[k] : low[k];
        }
        value += weight * voxels[offset(from) * channels + c];
      }
      to[c] = value;
    }
    label = labels ? renamed[labels[offset(nearest)]] : ignored;
  }
};

}  // namespace segmed
