// SPDX-License-Identifier: Apache-2.0
// A network for tests of prediction that every device computes in the same way, and images for it.
#pragma once
#include <segmed/train/inference.hpp>

namespace placed {

using namespace segmed;

template <class T>
struct PlacedLogits {
  const T* x;
  Index channels, classes;
  T* y;
  SEGMED_HD void operator()(Index row) const {
    using W = Wide<T>;
    for (Index c = 0; c < classes; ++c) {
      W z = W(0.2) * W((row + c) % 5);
      for (Index k = 0; k < channels; ++k) {
        const W off = W(x[row * channels + k]) - W(c);
        z -= W(k + 1) * off * off;
      }
      y[row * classes + c] = T(z);
    }
  }
};
/// Logits that depend on the voxel and on where in the patch it lies.
template <class F>
struct Placed {
  Index classes = 3;
  F operator()(const F& x) const {
    const Grid grid = x.grid();
    F y(grid.with_channels(classes), false);
    using Kernel = PlacedLogits<typename F::value_type>;
    F::device::launch(grid.rows(), Kernel{x.data(), grid.channels, classes, y.mutable_data()});
    return y;
  }
};

inline Volume<float> noise(const Extent3& extent, Index channels = 1) {
  Volume<float> image = make_volume<float>(extent, Geometry::of_spacing(1, 1, 2), channels);
  for (Index i = 0; i < image.size(); ++i)
    image.voxels[std::size_t(i)] = Philox{4, Purpose::noise}.normal(i);
  return image;
}

}  // namespace placed
