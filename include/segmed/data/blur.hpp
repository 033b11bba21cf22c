// SPDX-License-Identifier: Apache-2.0
// Patches made less sharp: what takes a voxel's neighbours as well as the voxel.
#pragma once
#include <cmath>

#include <segmed/data/augment.hpp>

namespace segmed {

/// The weights of a Gaussian: of a voxel, and of those at each distance on either side.
struct BlurTaps {
  static constexpr int farthest = int(3 * IntensityChange::widest_blur);
  int reach = 0;  // 0: the voxel stays as it is
  float weight[farthest + 1] = {1};

  static BlurTaps of(float deviation) {
    BlurTaps taps;
    taps.reach = int(std::ceil(3 * deviation));
    float sum = 0;
    for (int k = 0; k <= taps.reach; ++k) {
      const float at = float(k) / deviation;
      taps.weight[k] = std::exp(-0.5f * at * at);
      sum += (k > 0 ? 2 : 1) * taps.weight[k];
    }
    for (float& weight : taps.weight) weight /= sum;
    return taps;
  }
};

/// What becomes of the sharpness of one channel of one patch.
struct Sharpness {
  BlurTaps blur[3] = {};  // along x, y and z
  float left = 1;         // of the voxels along each axis

  bool blurred() const { return blur[0].reach > 0; }
  bool lowered() const { return left < 1; }
};

/// Blurs along one axis; beyond the patch its border goes on.
///
///   shapes   from, to (patches, z, y, x, channels); rows patches * z * y, columns x
struct BlurAxis {
  const Sharpness* how;  // (patches, channels)
  int axis;
  Index extent[3], channels;
  const float* from;
  float* to;

  SEGMED_HD void operator()(Index row, Index x) const { columns<1>(row, x); }
  template <int n>
  SEGMED_HD void columns(Index row, Index first) const {
    const Index patch = row / (extent[1] * extent[2]);
    const Index at[3] = {first, row % extent[1], row / extent[1] % extent[2]};
    const Index stride = axis == 0 ? 1 : axis == 1 ? extent[0] : extent[0] * extent[1];
    for (Index c = 0; c < channels; ++c) {
      const BlurTaps& taps = how[patch * channels + c].blur[axis];
      const float* here = from + (row * extent[0] + first) * channels + c;
      float sum[n];
      for (int i = 0; i < n; ++i) sum[i] = taps.weight[0] * here[i * channels];
      for (int k = 1; k <= taps.reach; ++k)
        for (int i = 0; i < n; ++i) {
          const Index place = at[axis] + (axis == 0 ? i : 0), after = extent[axis] - 1 - place;
          const float* middle = here + i * channels;
          sum[i] += taps.weight[k] * (middle[-(k < place ? k : place) * stride * channels] +
                                      middle[(k < after ? k : after) * stride * channels]);
        }
      float* out = to + (row * extent[0] + first) * channels + c;
      for (int i = 0; i < n; ++i) out[i * channels] = sum[i];
    }
  }
};

/// Leaves out voxels, nearest ones staying, and fills in linearly between those that are left.
///
///   shapes   as those of BlurAxis
struct LowerResolution {
  const Sharpness* how;
  Index extent[3], channels;
  const float* from;
  float* to;

  SEGMED_HD void operator()(Index row, Index x) const { columns<1>(row, x); }
  template <int n>
  SEGMED_HD void columns(Index row, Index first) const {
    const Index patch = row / (extent[1] * extent[2]), top = patch * extent[1] * extent[2];
    const Index y = row % extent[1], z = row / extent[1] % extent[2];
    for (Index c = 0; c < channels; ++c) {
      const float left = how[patch * channels + c].left;
      const float* here = from + c;
      float* out = to + (row * extent[0] + first) * channels + c;
      if (left >= 1) {
        for (int i = 0; i < n; ++i)
          out[i * channels] = here[(row * extent[0] + first + i) * channels];
        continue;
      }
      const Tap ty = tap_of(extent[1], left, y), tz = tap_of(extent[2], left, z);
      const Index planes[2] = {top + tz.low * extent[1], top + tz.high * extent[1]};
      for (int i = 0; i < n; ++i) {
        const Tap tx = tap_of(extent[0], left, first + i);
        const auto along = [&](Index line) {
          const float* v = here + line * extent[0] * channels;
          return v[tx.low * channels] + tx.part * (v[tx.high * channels] - v[tx.low * channels]);
        };
        const auto on = [&](Index plane) {
          const float low = along(plane + ty.low);
          return low + ty.part * (along(plane + ty.high) - low);
        };
        const float low = on(planes[0]);
        out[i * channels] = low + tz.part * (on(planes[1]) - low);
      }
    }
  }

 private:
  struct Tap {
    Index low, high;
    float part;
  };
  /// The two voxels that are left around a place, and the weight of the second.
  SEGMED_HD static Tap tap_of(Index n, float left, Index i) {
    const Index rounded = Index(float(n) * left + 0.5f), m = rounded < 1 ? 1 : rounded;
    const float at = (float(i) + 0.5f) * float(m) / float(n) - 0.5f;
    const float inside = at < 0 ? 0.0f : at > float(m - 1) ? float(m - 1) : at;
    const Index low = Index(inside), high = low + 1 < m ? low + 1 : low;
    return {kept(n, m, low), kept(n, m, high), inside - float(low)};
  }
  SEGMED_HD static Index kept(Index n, Index m, Index k) {
    const Index voxel = Index((float(k) + 0.5f) * float(n) / float(m));
    return voxel < n ? voxel : n - 1;
  }
};

}  // namespace segmed
