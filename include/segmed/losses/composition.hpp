// SPDX-License-Identifier: Apache-2.0
// Losses made of losses. A voxel's slope is linear in the slopes of the sums, so a weight is
// applied once per sum, never per voxel.
#pragma once
#include <segmed/core/elementary.hpp>
#include <segmed/losses/voxel_loss.hpp>

namespace segmed {

/// A weight times a loss: `Weighted{0.5f, CrossEntropy{}}`.
template <VoxelLoss L>
struct Weighted {
  float weight;
  L loss;

  static constexpr int sums = L::sums;
  static constexpr bool partial_labels = takes_partial_labels<L>, joins = reads_joined<L>,
                        softmax = reads_softmax<L>;
  template <class W>
  SEGMED_HD auto add(W* s, const ClassVoxel<W>& x) const -> decltype(loss.add(s, x)) {
    loss.add(s, x);
  }
  template <class W>
  SEGMED_HD auto slope(const W* ds, const ClassVoxel<W>& x) const -> decltype(loss.slope(ds, x)) {
    return loss.slope(ds, x);
  }
  SEGMED_HD double finish(const ClassSums& all) const {
    const double value = loss.finish(all);
    for (Index n = 0; n < all.cases; ++n)
      for (Index c = 0; c < all.classes; ++c)
        for (int k = 0; k < sums; ++k) all.slopes(n, c)[k] *= double(weight);
    return double(weight) * value;
  }
};
template <class L>
Weighted(float, L) -> Weighted<L>;

/// Two losses in one pass: `Sum{Dice{}, Weighted{0.5f, CrossEntropy{}}}`; nest for more.
template <VoxelLoss A, VoxelLoss B>
struct Sum {
  A first;
  B second;

  static constexpr int sums = A::sums + B::sums;
  static constexpr bool partial_labels = takes_partial_labels<A> && takes_partial_labels<B>,
                        joins = reads_joined<A> || reads_joined<B>,
                        softmax = reads_softmax<A> || reads_softmax<B>;
  template <class W>
  SEGMED_HD auto add(W* s, const ClassVoxel<W>& x) const
      -> decltype(first.add(s, x), second.add(s, x)) {
    first.add(s, x);
    second.add(s + A::sums, x);
  }
  template <class W>
  SEGMED_HD auto slope(const W* ds, const ClassVoxel<W>& x) const
      -> decltype(first.slope(ds, x), second.slope(ds, x), Slope<W>()) {
    const Slope<W> a = first.slope(ds, x), b = second.slope(ds + A::sums, x);
    return {a.own + b.own, a.joined + b.joined, a.logit + b.logit};
  }
  SEGMED_HD double finish(const ClassSums& all) const {
    const double value = first.finish(all);
    return value + second.finish(all.from(A::sums));
  }
};
template <class A, class B>
Sum(A, B) -> Sum<A, B>;

/// A loss that sees each class by itself, through the sigmoid of its logit instead of the softmax:
/// `Sum{Independent{Dice{}}, BinaryCrossEntropy{}}`. A class that a case's labels do not know takes
/// no part in that case.
template <VoxelLoss L>
struct Independent {
  L loss;
  static_assert(!takes_partial_labels<L>,
                "Independent: this loss already says how it reads classes that nobody annotated; "
                "see losses/composition.hpp");

  static constexpr int sums = L::sums;
  static constexpr bool partial_labels = true, softmax = false;
  template <class W>
  SEGMED_HD static ClassVoxel<W> alone(ClassVoxel<W> x) {
    x.p = x.joined_p = math::logistic(x.logit);
    x.log_p = x.joined_log_p = -math::softplus(-x.logit);
    return x;
  }
  template <class W>
  SEGMED_HD auto add(W* s, const ClassVoxel<W>& x) const -> decltype(loss.add(s, x)) {
    if (x.known) loss.add(s, alone(x));
  }
  template <class W>
  SEGMED_HD auto slope(const W* ds, const ClassVoxel<W>& x) const
      -> decltype(loss.slope(ds, x), Slope<W>()) {
    if (!x.known) return {};
    const ClassVoxel<W> own = alone(x);
    const Slope<W> s = loss.slope(ds, own);
    return {0, 0, s.own * (W(1) - own.p)};
  }
  SEGMED_HD double finish(const ClassSums& all) const { return loss.finish(all); }
};
template <class L>
Independent(L) -> Independent<L>;

}  // namespace segmed
