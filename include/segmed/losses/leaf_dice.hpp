// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/losses/voxel_loss.hpp>

namespace segmed {

/// Dice loss of labels that may name several classes at once. Where classes were not annotated, a
/// background label stands for all of them and for background: such a voxel is nobody's target, yet
/// what is predicted there counts against each annotated class. The mean over all classes with
/// background; a class without a voxel, be it absent or not annotated, scores zero and has no
/// slope: what pushes absent classes down is `Marginal{CrossEntropy{}}` beside it. A case without
/// any annotated class is left out.
///
///   shapes   logits (cases, spatial..., classes); labels (cases, spatial...); result scalar
///   units    none; between 0 and 1, at least the part of classes that score zero
///   source   Fidon et al., Label-set loss functions for partial supervision, 2021,
///            arXiv:2107.03846, with squares in the denominator
struct LeafDice {
  float smooth = 1e-5f;  // in the denominator

  static constexpr int sums = 2;  // overlap; both sizes, the prediction's of squares
  static constexpr bool partial_labels = true;
  template <class W>
  SEGMED_HD void add(W* s, const ClassVoxel<W>& x) const {
    if (!x.known) return;  // the overlap is zero, so that the sizes do not matter
    s[0] += x.is * x.p;
    s[1] += x.p * x.p + x.is;
  }
  template <class W>
  SEGMED_HD W slope(const W* ds, const ClassVoxel<W>& x) const {
    return x.known ? x.p * (x.is * ds[0] + W(2) * x.p * ds[1]) : W(0);
  }
  SEGMED_HD double finish(const ClassSums& all) const {
    Index labelled = 0;
    for (Index n = 0; n < all.cases; ++n) labelled += all.unlabelled(n) ? 0 : 1;
    if (labelled == 0) return 0;
    const double share = 1.0 / double(labelled * all.classes);
    double value = 1;
    for (Index n = 0; n < all.cases; ++n)
      for (Index c = 0; c < all.classes; ++c) {
        const double* s = all.sums(n, c);
        const double bottom = s[1] + double(smooth);
        if (!all.counts(n, c) || !(bottom > 0)) continue;
        value -= share * 2 * s[0] / bottom;
        all.slopes(n, c)[0] = -share * 2 / bottom;
        all.slopes(n, c)[1] = share * 2 * s[0] / (bottom * bottom);
      }
    return value;
  }
};
static_assert(VoxelLoss<LeafDice>);

}  // namespace segmed
