// SPDX-License-Identifier: Apache-2.0
// Losses of overlap between regions.
#pragma once
#include <segmed/losses/voxel_loss.hpp>

namespace segmed {

/// `perfect` + 1 - the mean score of a region loss over (case, class), or over classes with the
/// cases of the batch counted as one. `region.score(sums, slopes)` is the score of one region.
/// Classes that a case's labels do not know are left out of it.
template <class R>
SEGMED_HD double one_minus_mean_score(const R& region, const ClassSums& all) {
  const Index first = region.include_background ? 0 : 1;
  Index regions = 0;
  for (Index c = first; c < all.classes; ++c) {
    Index cases = 0;
    for (Index n = 0; n < all.cases; ++n) cases += all.counts(n, c) ? 1 : 0;
    regions += region.batch ? (cases > 0 ? 1 : 0) : cases;
  }
  double value = double(region.perfect);
  for (Index c = first; c < all.classes; ++c) {
    double slopes[R::sums], total[R::sums] = {};
    bool any = false;
    for (Index n = 0; n < all.cases; ++n) {
      if (!all.counts(n, c)) continue;
      any = true;
      for (int k = 0; k < R::sums; ++k) total[k] += all.sums(n, c)[k];
      if (region.batch) continue;
      value += (1 - region.score(total, slopes)) / double(regions);
      for (int k = 0; k < R::sums; ++k) {
        all.slopes(n, c)[k] = -slopes[k] / double(regions);
        total[k] = 0;
      }
    }
    if (!region.batch || !any) continue;
    value += (1 - region.score(total, slopes)) / double(regions);
    for (Index n = 0; n < all.cases; ++n)
      for (int k = 0; k < R::sums && all.counts(n, c); ++k)
        all.slopes(n, c)[k] = -slopes[k] / double(regions);
  }
  return value;
}

/// Soft Dice loss: one minus the mean overlap of the classes,
/// (2 sum(p g) + smooth) / (sum(p) + sum(g) + smooth).
///
///   shapes   logits (cases, spatial..., classes); labels (cases, spatial...); result scalar
///   units    none; between 0 and 1, plus `perfect`
///   source   Milletari et al., V-Net, 2016, arXiv:1606.04797, section 3; denominator without
///            squares unless `squared`
struct Dice {
  float smooth = 1e-5f;             // in both parts of the fraction
  bool squared = false;             // p^2 in the denominator
  bool batch = false;               // the cases of a batch count as one
  bool include_background = false;  // background is a class like others
  float perfect = 0;                // the value of a perfect prediction

  /// The defaults of MONAI's DiceLoss with `softmax` and `to_onehot_y`.
  static Dice monai() {
    Dice dice;
    dice.include_background = true;
    return dice;
  }
  /// nnU-Net's MemoryEfficientSoftDiceLoss: no background, and minus the Dice, from -1 on; its
  /// plans say whether `batch`.
  static Dice nnunet(bool batch = false) {
    Dice dice;
    dice.batch = batch, dice.perfect = -1;
    return dice;
  }

  static constexpr int sums = 2;  // overlap; both sizes
  template <class W>
  SEGMED_HD void add(W* s, const ClassVoxel<W>& x) const {
    s[0] += x.is * x.p;
    s[1] += x.p * (W(int(!squared)) + W(int(squared)) * x.p) + x.is;
  }
  template <class W>
  SEGMED_HD W slope(const W* ds, const ClassVoxel<W>& x) const {
    return x.p * (x.is * ds[0] + (W(int(!squared)) + W(2 * int(squared)) * x.p) * ds[1]);
  }
  SEGMED_HD double finish(const ClassSums& all) const { return one_minus_mean_score(*this, all); }
  SEGMED_HD double score(const double* s, double* slopes) const {
    const double top = 2 * s[0] + double(smooth), bottom = s[1] + double(smooth);
    if (!(bottom > 0)) {  // nothing there, nothing predicted
      slopes[0] = slopes[1] = 0;
      return 1;
    }
    slopes[0] = 2 / bottom, slopes[1] = -top / (bottom * bottom);
    return top / bottom;
  }
};
static_assert(VoxelLoss<Dice>);

/// Tversky loss: one minus the mean of (TP + smooth) / (TP + alpha FP + beta FN + smooth), where
/// `alpha` weighs voxels predicted in excess and `beta` missed ones; 0.5 and 0.5 is Dice.
///
///   shapes   logits (cases, spatial..., classes); labels (cases, spatial...); result scalar
///   units    none; between 0 and 1
///   source   Salehi et al., Tversky loss function for image segmentation, 2017, arXiv:1706.05721,
///            eq. 3
struct Tversky {
  float alpha = 0.5f, beta = 0.5f;
  float smooth = 1e-5f;
  bool batch = false;
  bool include_background = false;
  float perfect = 0;

  static constexpr int sums = 3;  // overlap; size of the prediction; size of the label
  template <class W>
  SEGMED_HD void add(W* s, const ClassVoxel<W>& x) const {
    s[0] += x.is * x.p;
    s[1] += x.p;
    s[2] += x.is;
  }
  template <class W>
  SEGMED_HD W slope(const W* ds, const ClassVoxel<W>& x) const {
    return x.p * (x.is * ds[0] + ds[1]);
  }
  SEGMED_HD double finish(const ClassSums& all) const { return one_minus_mean_score(*this, all); }
  SEGMED_HD double score(const double* s, double* slopes) const {
    const double a = double(alpha), b = double(beta);
    const double top = s[0] + double(smooth);
    const double bottom = top + a * (s[1] - s[0]) + b * (s[2] - s[0]);
    slopes[2] = 0;  // no probability is in it
    if (!(bottom > 0)) {
      slopes[0] = slopes[1] = 0;
      return 1;
    }
    slopes[0] = (bottom - top * (1 - a - b)) / (bottom * bottom);
    slopes[1] = -a * top / (bottom * bottom);
    return top / bottom;
  }
};
static_assert(VoxelLoss<Tversky>);

}  // namespace segmed
