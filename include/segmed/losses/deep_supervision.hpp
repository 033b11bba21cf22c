// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include <segmed/losses/criterion.hpp>

namespace segmed {

/// A loss on every output of a network that returns several: a `std::vector` of maps of logits, the
/// finest first, each on the labels' grid or a coarser one. Output i weighs 1 / 2^i, the weights
/// divided by their sum; labels are thinned out to each grid (see `subsampled`). A single map of
/// logits weighs 1.
///
///   shapes   logits[i] (cases, spatial_i..., classes); labels (cases, spatial_0...); result scalar
///   throws   ShapeError without outputs, or for one that is finer than the labels
///   source   Isensee et al., nnU-Net, 2021, doi:10.1038/s41592-020-01008-z; `skip_last` gives the
///            last and coarsest of several outputs no weight, as its trainer does
template <class L>
struct DeepSupervision {
  L loss;
  bool skip_last = false;
  static_assert(VoxelLoss<L>, "DeepSupervision: wraps a VoxelLoss; see losses/voxel_loss.hpp");
  static constexpr bool partial_labels = takes_partial_labels<L>;

  template <FeatureMap F>
  Scalar<F> operator()(const F& logits, const Labels<typename F::device>& labels) const {
    return voxel_loss(loss, logits, labels);
  }
  template <FeatureMap F>
  Scalar<F> operator()(const std::vector<F>& outputs,
                       const Labels<typename F::device>& labels) const {
    require(!outputs.empty(), "deep supervision", "the network returned no output");
    const std::vector<float> weights = weights_of(outputs.size());
    Scalar<F> total;
    for (std::size_t i = 0; i < weights.size(); ++i)
      total =
          total + weights[i] * voxel_loss(loss, outputs[i], subsampled(labels, outputs[i].grid()));
    return total;
  }
  /// The weights of that many outputs; one fewer where the last has none.
  std::vector<float> weights_of(std::size_t outputs) const {
    std::vector<float> weights(skip_last && outputs > 1 ? outputs - 1 : outputs);
    double sum = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) sum += std::ldexp(1.0, -int(i));
    for (std::size_t i = 0; i < weights.size(); ++i)
      weights[i] = float(std::ldexp(1.0, -int(i)) / sum);
    return weights;
  }
};
template <class L>
DeepSupervision(L) -> DeepSupervision<L>;
template <class L>
DeepSupervision(L, bool) -> DeepSupervision<L>;

}  // namespace segmed
