// SPDX-License-Identifier: Apache-2.0
// Means in which some voxels count more than others, or not at all.
#pragma once
#include <segmed/autograd/scalar.hpp>

namespace segmed {

template <class T, class Math>
struct WeightedKernel {  // one item per voxel
  Math f;
  const T *a, *b, *weight;
  Index channels;
  SEGMED_HD void operator()(Index, Index row, double* sums) const {
    const double w = double(Wide<T>(weight[row]));
    if (w == 0) return;  // whatever stands there
    double total = 0;
    for (Index i = row * channels; i < (row + 1) * channels; ++i)
      total += double(f(Wide<T>(a[i]), Wide<T>(b[i])));
    sums[0] += w * total;
    sums[1] += w;
  }
};
template <class W>
struct StoreWeighted {
  const double* sums;  // of weighted terms; of weights
  double channels;
  W* out;
  SEGMED_HD void operator()(Index) const {
    *out = sums[1] > 0 ? W(sums[0] / (sums[1] * channels)) : W(0);
  }
};
template <class T, class Math>
struct WeightedPull {
  Math f;
  const T *a, *b, *weight;
  const double* sums;
  const Wide<T>* g;
  Index channels;
  T *ga, *gb;
  SEGMED_HD void operator()(Index row, Index c) const {
    using W = Wide<T>;
    const W w = W(weight[row]);
    if (w == W(0)) return;
    const Index i = row * channels + c;
    const W x = W(a[i]), y = W(b[i]);
    const W up = W(double(*g) * double(w) / (sums[1] * double(channels)));
    if (ga) ga[i] = T(W(ga[i]) + up * f.first_slope(x, y));
    if (gb) gb[i] = T(W(gb[i]) + up * f.second_slope(x, y));
  }
};
/// The mean of f(a, b) over the channels and, by its weight, over the voxels; 0 where nothing has
/// any weight. The weights, none of them negative, get no gradient. Where ranks train together, of
/// the voxels of all.
///
///   shapes   a and b (N, spatial..., C); weight (N, spatial..., 1)
template <class Math, FeatureMap F>
Scalar<F> weighted_mean_of(Math f, const F& first, const F& second, const F& by) {
  using T = typename F::value_type;
  using W = typename F::Wide;
  using D = typename F::device;
  const F a = value(first), b = value(second), weight = detach(by);
  const Grid grid = a.grid();
  require(grid == b.grid() && weight.grid() == grid.with_channels(1), "weighted_mean_of",
          "shapes differ: ", grid, ", ", b.grid(), " and weights ", weight.grid());
  Scalar<F> y(a.tracked() || b.tracked());
  const auto sums = over_ranks(
      reduce<D>(1, grid.rows(), 2,
                WeightedKernel<T, Math>{f, a.data(), b.data(), weight.data(), grid.channels}));
  D::launch(1, StoreWeighted<W>{sums.read(), double(grid.channels), y.value().write()});
  record_scalar(y, [=](const W* g) {
    D::launch_rows(grid.rows(), grid.channels,
                   WeightedPull<T, Math>{f, a.data(), b.data(), weight.data(), sums.read(), g,
                                         grid.channels, a.tracked() ? a.gradient_to_add() : nullptr,
                                         b.tracked() ? b.gradient_to_add() : nullptr});
  });
  return y;
}
/// The weighted mean of the squared difference.
template <FeatureMap F>
Scalar<F> weighted_mean_square(const F& a, const F& b, const F& weight) {
  return weighted_mean_of<math::SquareDistance, F>({}, a, b, weight);
}

}  // namespace segmed
