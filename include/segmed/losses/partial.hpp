// SPDX-License-Identifier: Apache-2.0
// Losses for cases in which only some classes were annotated.
#pragma once
#include <segmed/losses/voxel_loss.hpp>

namespace segmed {

/// Makes a loss fit for partial labels: in each case, the probabilities of classes that nobody
/// annotated join the background's, because there the label says 0. Where all classes are
/// annotated it is the loss itself, to the bit; a case without any annotated class is left out.
///
///   source   Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ
///            segmentation, 2021, arXiv:2007.03868, eq. 4 to 6; the log of the sum of
///            probabilities, not of logits
template <VoxelLoss L>
struct Marginal {
  L loss;
  static_assert(!takes_partial_labels<L>,
                "Marginal: this loss already takes partial labels; add it to Marginal with Sum; "
                "see losses/partial.hpp");

  static constexpr int sums = L::sums;
  static constexpr bool partial_labels = true, joins = true;
  template <class W>
  SEGMED_HD static ClassVoxel<W> joined(ClassVoxel<W> x) {
    x.p = x.joined_p, x.log_p = x.joined_log_p, x.known = true;
    return x;
  }
  template <class W>
  SEGMED_HD auto add(W* s, const ClassVoxel<W>& x) const -> decltype(loss.add(s, x)) {
    if (x.annotated) loss.add(s, joined(x));
  }
  template <class W>
  SEGMED_HD auto slope(const W* ds, const ClassVoxel<W>& x) const
      -> decltype(loss.slope(ds, x), Slope<W>()) {
    if (!x.annotated) return {};
    const Slope<W> s = loss.slope(ds, joined(x));
    return {0, s.own, s.logit};
  }
  SEGMED_HD double finish(const ClassSums& all) const {
    ClassSums merged = all;
    merged.joined = true;
    return loss.finish(merged);
  }
};
template <class L>
Marginal(L) -> Marginal<L>;

/// Says where classes that nobody annotated cannot be: the mean soft Dice between each of them, as
/// predicted, and the union of the annotated organs of its case. Zero where all are annotated. Add
/// it with a weight: `Sum{Marginal{Dice{}}, Weighted{2.f, Exclusion{}}}`.
///
///   shapes   logits (cases, spatial..., classes); labels (cases, spatial...); result scalar
///   units    none; between 0 and 1
///   source   Shi et al. 2021, arXiv:2007.03868, eq. 8 and 9; for annotated classes nothing is
///            added, their own Dice already says it
struct Exclusion {
  float smooth = 1e-5f;  // in the denominator

  static constexpr int sums = 3;  // overlap; size of the prediction; size of the annotated organs
  static constexpr bool partial_labels = true;
  template <class W>
  SEGMED_HD void add(W* s, const ClassVoxel<W>& x) const {
    if (x.annotated) return;
    s[0] += x.organ * x.p;
    s[1] += x.p;
    s[2] += x.organ;
  }
  template <class W>
  SEGMED_HD W slope(const W* ds, const ClassVoxel<W>& x) const {
    return x.annotated ? W(0) : x.p * (x.organ * ds[0] + ds[1]);
  }
  SEGMED_HD double finish(const ClassSums& all) const {
    Index regions = 0;
    for (Index n = 0; n < all.cases; ++n)
      for (Index c = 1; c < all.classes; ++c) regions += excluded(all, n, c) ? 1 : 0;
    double value = 0;
    for (Index n = 0; n < all.cases; ++n)
      for (Index c = 1; c < all.classes; ++c) {
        if (!excluded(all, n, c)) continue;
        const double* s = all.sums(n, c);
        const double bottom = (s[1] + s[2] + double(smooth)) * double(regions);
        if (!(bottom > 0)) continue;
        value += 2 * s[0] / bottom;
        all.slopes(n, c)[0] = 2 / bottom;
        all.slopes(n, c)[1] = -2 * s[0] * double(regions) / (bottom * bottom);
      }
    return value;
  }

 private:
  SEGMED_HD static bool excluded(const ClassSums& all, Index n, Index c) {
    return !all.unlabelled(n) && !all.annotated[n].has(c);
  }
};
static_assert(VoxelLoss<Exclusion>);

}  // namespace segmed
