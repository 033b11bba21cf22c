// SPDX-License-Identifier: Apache-2.0
// What a sliding window does on a device beside the network: crop, sum, decide.
#pragma once
#include <segmed/core/config.hpp>

namespace segmed {

/// One view of one window: a box in the image, mirrored along some axes. Axes are x, y, z.
struct WindowView {
  Index extent[3];         // of the image, in voxels
  Index patch[3];          // of the window
  Index start[3];          // where the window begins in the image; below 0: before it
  Index low[3], count[3];  // the patch positions that lie in the image: the first, and how many
  bool flip[3];

  /// Where a patch position lies in the mirrored patch, and the reverse.
  SEGMED_HD Index mirrored(int axis, Index i) const { return flip[axis] ? patch[axis] - 1 - i : i; }
  SEGMED_HD bool covers(int axis, Index i) const {
    return i >= low[axis] && i < low[axis] + count[axis];
  }
};

/// Reads the mirrored patch out of the image.
///
///   shapes   rows patch z * patch y, columns patch x, each with all channels
template <class T>
struct CropWindow {
  WindowView view;
  const float* image;
  Index channels;
  float outside;  // what the patch holds where there is no image
  T* patch;

  SEGMED_HD void operator()(Index row, Index x) const { several(row, x, 1); }
  template <int n>
  SEGMED_HD void columns(Index row, Index first) const {
    several(row, first, n);
  }

 private:
  SEGMED_HD void several(Index row, Index first, Index n) const {
    const Index z = view.mirrored(2, row / view.patch[1]);
    const Index y = view.mirrored(1, row % view.patch[1]);
    const bool covered = view.covers(2, z) && view.covers(1, y);
    const Index from =
        ((view.start[2] + z) * view.extent[1] + view.start[1] + y) * view.extent[0] + view.start[0];
    T* to = patch + (row * view.patch[0] + first) * channels;
    for (Index i = first; i < first + n; ++i, to += channels) {
      const Index x = view.mirrored(0, i);
      const bool inside = covered && view.covers(0, x);
      for (Index c = 0; c < channels; ++c)
        to[c] = T(Wide<T>(inside ? image[(from + x) * channels + c] : outside));
    }
  }
};

/// Adds the probabilities of a mirrored patch to the planes of sums, times the window's weights.
///
///   shapes   rows count z * count y, columns count x, each with all classes; sums (planes, height,
///            width, classes), where plane z lies at z % planes
template <class T>
struct DepositWindow {
  WindowView view;
  const T* probability;
  const float *taper_x, *taper_y, *taper_z;  // weights of the patch positions
  const std::uint8_t* partner;               // null: each class is its own
  Index classes, planes;
  float* sums;

  SEGMED_HD void operator()(Index row, Index x) const { several(row, x, 1); }
  template <int n>
  SEGMED_HD void columns(Index row, Index first) const {
    several(row, first, n);
  }

 private:
  SEGMED_HD void several(Index row, Index first, Index n) const {
    const Index z = view.low[2] + row / view.count[1], y = view.low[1] + row % view.count[1];
    const float weight = taper_z[z] * taper_y[y];
    const Index from = (view.mirrored(2, z) * view.patch[1] + view.mirrored(1, y)) * view.patch[0];
    const Index plane = (view.start[2] + z) % planes;
    const Index to = (plane * view.extent[1] + view.start[1] + y) * view.extent[0] + view.start[0];
    for (Index x = view.low[0] + first; x < view.low[0] + first + n; ++x)
      add(weight * taper_x[x], probability + (from + view.mirrored(0, x)) * classes,
          sums + (to + x) * classes);
  }
  SEGMED_HD void add(float weight, const T* p, float* sum) const {
    using W = Wide<T>;
    if (partner)
      for (Index c = 0; c < classes; ++c) sum[c] += weight * float(W(p[partner[c]]));
    else
      for (Index c = 0; c < classes; ++c) sum[c] += weight * float(W(p[c]));
  }
};

/// Fixes the labels of planes that no later window reaches, and clears their sums.
///
///   shapes   rows planes to finish * height, columns width; labels and confidence begin with the
///            first of these planes
struct FinishPlanes {
  static constexpr std::uint8_t no_number = 255;  // a label where the network gave NaN

  Index first, planes, height, width, classes;
  float views;
  const float *total_x, *total_y, *total_z;  // weights of all windows at each voxel
  float* sums;
  std::uint8_t* labels;
  float* confidence;  // null: nobody asked

  SEGMED_HD void operator()(Index row, Index x) const {
    const Index z = first + row / height, y = row % height;
    float* sum = sums + ((z % planes * height + y) * width + x) * classes;
    Index best = 0;
    for (Index c = 1; c < classes; ++c) best = sum[best] < sum[c] ? c : best;
    const float top = sum[best];
    const bool number = top - top == 0;  // neither NaN nor infinite
    labels[row * width + x] = number ? std::uint8_t(best) : no_number;
    if (confidence)
      confidence[row * width + x] = top / (total_z[z] * total_y[y] * total_x[x] * views);
    for (Index c = 0; c < classes; ++c) sum[c] = 0;
  }
};

}  // namespace segmed
