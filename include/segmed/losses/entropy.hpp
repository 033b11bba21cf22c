// SPDX-License-Identifier: Apache-2.0
// Losses that ask each voxel by itself.
#pragma once
#include <initializer_list>

#include <segmed/core/elementary.hpp>
#include <segmed/core/error.hpp>
#include <segmed/losses/voxel_loss.hpp>

namespace segmed {

/// A weight per label; 1 where none was given.
struct LabelWeights {
  float of[256];

  LabelWeights(std::initializer_list<float> given = {}) {
    require<ConfigError>(given.size() <= 255, "label weights", given.size(),
                         " weights are more than the 255 that labels can name");
    for (float& weight : of) weight = 1;
    std::size_t c = 0;
    for (const float weight : given) {
      require<ConfigError>(weight >= 0, "label weights", "the weight of label ", c, " is ", weight);
      of[c++] = weight;
    }
  }
  SEGMED_HD double operator[](Index c) const { return double(of[c]); }
};

/// The weighted mean of a term per voxel, of which a loss keeps the sum and the number of voxels
/// per (case, label); also writes the slopes.
SEGMED_HD inline double mean_of_voxels(const ClassSums& all, const LabelWeights& weights) {
  double total = 0, voxels = 0;
  for (Index n = 0; n < all.cases; ++n)
    for (Index c = 0; c < all.classes; ++c) {
      total += weights[c] * all.sums(n, c)[0];
      voxels += weights[c] * all.sums(n, c)[1];
    }
  if (!(voxels > 0)) return 0;
  for (Index n = 0; n < all.cases; ++n)
    for (Index c = 0; c < all.classes; ++c) all.slopes(n, c)[0] = weights[c] / voxels;
  return total / voxels;
}

/// Mean negative log-likelihood of the label; with weights, the weighted mean.
///
///   shapes   logits (cases, spatial..., classes); labels (cases, spatial...); result scalar
///   units    nats
///   source   softmax cross-entropy, as torch.nn.functional.cross_entropy
struct CrossEntropy {
  LabelWeights weights = {};

  static constexpr int sums = 2;  // minus log-likelihood; voxels
  template <class W>
  SEGMED_HD void add(W* s, const ClassVoxel<W>& x) const {
    s[0] -= x.is * x.log_p;
    s[1] += x.is;
  }
  template <class W>
  SEGMED_HD W slope(const W* ds, const ClassVoxel<W>& x) const {
    return -x.is * ds[0];
  }
  SEGMED_HD double finish(const ClassSums& all) const { return mean_of_voxels(all, weights); }
};
static_assert(VoxelLoss<CrossEntropy>);

/// Cross-entropy in which voxels that are already right count little: the mean of
/// -(1 - p)^gamma log p over the label's probabilities p.
///
///   shapes   logits (cases, spatial..., classes); labels (cases, spatial...); result scalar
///   units    nats
///   source   Lin et al., Focal loss for dense object detection, 2017, arXiv:1708.02002, eq. 4;
///            softmax form
struct Focal {
  float gamma = 2;
  LabelWeights weights = {};

  static constexpr int sums = 2;  // focal term; voxels
  template <class W>
  SEGMED_HD void add(W* s, const ClassVoxel<W>& x) const {
    s[0] -= x.is * math::fast_exp(W(gamma) * log_rest(x.p)) * x.log_p;
    s[1] += x.is;
  }
  template <class W>
  SEGMED_HD W slope(const W* ds, const ClassVoxel<W>& x) const {
    const W log_r = log_rest(x.p), factor = math::fast_exp(W(gamma) * log_r);
    return x.is * ds[0] * factor * (W(gamma) * x.p * x.log_p * math::fast_exp(-log_r) - W(1));
  }
  SEGMED_HD double finish(const ClassSums& all) const { return mean_of_voxels(all, weights); }

 private:
  /// log(1 - p), kept from minus infinity by as much as rounding leaves of 1 - p.
  template <class W>
  SEGMED_HD static W log_rest(W p) {
    return math::fast_log((W(1) - p) + W(sizeof(W) < 8 ? 1.2e-7 : 2.3e-16));
  }
};
static_assert(VoxelLoss<Focal>);

/// How undecided the prediction is: the mean entropy of a voxel's probabilities, over the largest
/// that so many classes can have. Labels only say which voxels count.
///
///   shapes   logits (cases, spatial..., classes); labels (cases, spatial...); result scalar
///   units    none; 0 where one class has it all, 1 where all are equally probable
///   source   Grandvalet & Bengio, Semi-supervised learning by entropy minimization, 2004
struct Entropy {
  static constexpr int sums = 2;  // entropy; voxels
  template <class W>
  SEGMED_HD void add(W* s, const ClassVoxel<W>& x) const {
    s[0] -= x.p * x.log_p;
    s[1] += x.is;
  }
  template <class W>
  SEGMED_HD W slope(const W* ds, const ClassVoxel<W>& x) const {
    return -x.p * (x.log_p + W(1)) * ds[0];
  }
  SEGMED_HD double finish(const ClassSums& all) const {
    double entropy = 0, voxels = 0;
    for (Index n = 0; n < all.cases; ++n)
      for (Index c = 0; c < all.classes; ++c) {
        entropy += all.sums(n, c)[0];
        voxels += all.sums(n, c)[1];
      }
    const double most = voxels * std::log(double(all.classes));
    if (!(most > 0)) return 0;
    for (Index n = 0; n < all.cases; ++n)
      for (Index c = 0; c < all.classes; ++c) all.slopes(n, c)[0] = 1 / most;
    return entropy / most;
  }
};
static_assert(VoxelLoss<Entropy>);

/// Mean binary cross-entropy of each class against all others, by the sigmoid of its own logit. A
/// class that a case's labels do not know takes no part in that case.
///
///   shapes   logits (cases, spatial..., classes); labels (cases, spatial...); result scalar
///   units    nats
///   source   as torch.nn.functional.binary_cross_entropy_with_logits, over the known classes
struct BinaryCrossEntropy {
  bool include_background = true;

  static constexpr int sums = 2;  // minus log-likelihood; voxels
  static constexpr bool partial_labels = true, softmax = false;
  template <class W>
  SEGMED_HD void add(W* s, const ClassVoxel<W>& x) const {
    if (!x.known) return;
    s[0] += math::softplus(x.logit * (W(1) - W(2) * x.is));
    s[1] += W(1);
  }
  template <class W>
  SEGMED_HD Slope<W> slope(const W* ds, const ClassVoxel<W>& x) const {
    if (!x.known) return {};
    return {0, 0, ds[0] * (math::logistic(x.logit) - x.is)};
  }
  SEGMED_HD double finish(const ClassSums& all) const {
    const Index first = include_background ? 0 : 1;
    double total = 0, voxels = 0;
    for (Index n = 0; n < all.cases; ++n)
      for (Index c = first; c < all.classes; ++c) {
        total += all.sums(n, c)[0];
        voxels += all.sums(n, c)[1];
      }
    if (!(voxels > 0)) return 0;
    for (Index n = 0; n < all.cases; ++n)
      for (Index c = first; c < all.classes; ++c) all.slopes(n, c)[0] = 1 / voxels;
    return total / voxels;
  }
};
static_assert(VoxelLoss<BinaryCrossEntropy>);

}  // namespace segmed
