// SPDX-License-Identifier: Apache-2.0
// What a loss over voxels is: sums per class, a finish over the sums, a slope per voxel.
#pragma once
#include <concepts>
#include <type_traits>

#include <segmed/core/annotated_set.hpp>

namespace segmed {

/// One class of one voxel, as a loss sees it. Values are those of the softmax over all classes;
/// `joined` are those in which classes that nobody annotated have become part of the background
/// (they differ from the former for background only).
template <class W>
struct ClassVoxel {
  W logit, p, log_p;
  W joined_p, joined_log_p;
  W is;            // 1 where the label is this class, else 0
  W organ;         // 1 where the label is some annotated class, 0 on background
  bool annotated;  // the class is in the case's annotated set
  bool known;      // the label says yes or no: background only where all classes are annotated
};

/// The derivative of one voxel's part: with respect to log p, to the joined log p, to the logit. A
/// loss that sees p only returns its one number.
template <class W>
struct Slope {
  W own, joined, logit;
  SEGMED_HD Slope(W by_log_p = 0, W by_joined_log_p = 0, W by_logit = 0)
      : own(by_log_p), joined(by_joined_log_p), logit(by_logit) {}
};

/// What `finish` reads and writes: a loss's sums per (case, class), and the slope of the result in
/// each of them, which is zero until it is written.
struct ClassSums {
  double *sum, *slope;
  const AnnotatedSet* annotated;
  AnnotatedSet every;  // all classes of the network
  Index cases, classes;
  int stride;           // sums of all parts of the loss
  bool joined = false;  // background holds the classes that nobody annotated

  /// One more than the sums of a case: the number of voxels with labels that no class has.
  SEGMED_HD Index per_case() const { return classes * stride + 1; }
  SEGMED_HD double* sums(Index n, Index c) const { return sum + n * per_case() + c * stride; }
  SEGMED_HD double* slopes(Index n, Index c) const { return slope + n * per_case() + c * stride; }
  /// Whether every class is annotated in case n.
  SEGMED_HD bool complete(Index n) const {
    bool all = true;
    for (int i = 0; i < 4; ++i) all &= (every.words[i] & ~annotated[n].words[i]) == 0;
    return all;
  }
  /// Whether no foreground class is annotated in case n: it takes part in nothing.
  SEGMED_HD bool unlabelled(Index n) const {
    std::uint64_t any = annotated[n].words[0] & every.words[0] & ~std::uint64_t{1};
    for (int i = 1; i < 4; ++i) any |= annotated[n].words[i] & every.words[i];
    return any == 0;
  }
  /// Whether the labels of case n say of class c where it is and where it is not.
  SEGMED_HD bool counts(Index n, Index c) const {
    return annotated[n].has(c) && !unlabelled(n) && (c > 0 || joined || complete(n));
  }
  /// Some of the cases.
  ClassSums own(Index first, Index count) const {
    ClassSums part = *this;
    part.sum += first * per_case(), part.slope += first * per_case(), part.annotated += first;
    part.cases = count;
    return part;
  }
  /// The sums that belong to a later part of a composition.
  SEGMED_HD ClassSums from(int first) const {
    ClassSums part = *this;
    part.sum += first, part.slope += first;
    return part;
  }
};

/// A loss over voxels, a plain struct. `add` puts one voxel of one class on top of the sums;
/// `finish` maps the sums to the loss and its slopes; `slope` is the derivative of what `add` adds,
/// weighted by the slopes of the sums. `add` and `slope` may be templates over the number type
/// (then float logits are computed in float), or take double.
///
/// Optional constants: `partial_labels` (accepts cases in which classes are not annotated), `joins`
/// (reads the joined values), `softmax = false` (reads no probabilities, they need not be
/// computed).
template <class L>
concept VoxelLoss = std::is_trivially_copyable_v<L> &&
    requires(const L& loss, double* sums, const double* slopes, const ClassVoxel<double>& x,
             const ClassSums& all) {
  { L::sums } -> std::convertible_to<int>;
  loss.add(sums, x);
  { loss.finish(all) } -> std::same_as<double>;
  { loss.slope(slopes, x) } -> std::convertible_to<Slope<double>>;
};

template <class L, class W>
concept ComputesIn = requires(const L& loss, W* sums, const W* slopes, const ClassVoxel<W>& x) {
  loss.add(sums, x);
  { loss.slope(slopes, x) } -> std::convertible_to<Slope<W>>;
};
/// The number type of a loss's voxels: that of the logits, or double where it knows no other.
template <class L, class W>
using VoxelNumber = std::conditional_t<ComputesIn<L, W>, W, double>;

/// Whether a loss accepts cases in which some classes were not annotated.
template <class L>
inline constexpr bool takes_partial_labels = requires {
  requires L::partial_labels;
};
/// Whether a loss reads values in which unannotated classes have joined the background.
template <class L>
inline constexpr bool reads_joined = requires {
  requires L::joins;
};
/// Whether a loss reads probabilities; it does unless it says otherwise.
template <class L>
inline constexpr bool reads_softmax = !requires {
  requires !L::softmax;
};

}  // namespace segmed
