// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/pointwise.hpp>
#include <segmed/losses/labels.hpp>
#include <segmed/tensor/gather.hpp>
#include <segmed/tensor/reduce.hpp>

namespace segmed {

/// What a network says of the voxels for which nobody did.
template <class T>
struct OpenVoxels {
  const T* z;
  const std::uint8_t* label;
  const AnnotatedSet* annotated;
  Index classes, voxels;
  struct Answer {
    Index label;
    float confidence;  // its probability among the classes that are open
  };

  SEGMED_HD bool decided(Index v) const { return annotated[v / voxels].settles(label[v]); }
  SEGMED_HD bool open(Index v, Index c) const { return annotated[v / voxels].open(c); }
  SEGMED_HD float logit(Index v, Index c) const { return float(Wide<T>(z[v * classes + c])); }
  SEGMED_HD Answer answer(Index v) const {
    Index best = 0;
    float total = 0;
    for (Index c = 1; c < classes; ++c)
      if (open(v, c) && logit(v, c) > logit(v, best)) best = c;
    for (Index c = 0; c < classes; ++c)
      if (open(v, c)) total += std::exp(logit(v, c) - logit(v, best));
    return {best, 1 / total};
  }
};
template <class T>
struct CompleteKernel {  // one item per voxel
  OpenVoxels<T> in;
  const float* least;  // per class
  std::uint8_t* out;
  SEGMED_HD void operator()(Index v) const {
    if (in.decided(v)) {
      out[v] = in.label[v];
      return;
    }
    const auto [best, confidence] = in.answer(v);
    out[v] = confidence < least[best] ? ignored : std::uint8_t(best);
  }
};
template <class T>
struct ConfidenceKernel {  // per class: the sum of confidences; voxels
  OpenVoxels<T> in;
  SEGMED_HD void operator()(Index, Index v, double* sums) const {
    if (in.decided(v)) return;
    const auto [best, confidence] = in.answer(v);
    sums[2 * best] += double(confidence);
    sums[2 * best + 1] += 1;
  }
};

/// What kernels read; points into `logits` and `sets`, which must outlive it.
template <FeatureMap F, Device D>
OpenVoxels<typename F::value_type> open_voxels(const Labels<D>& labels, const F& logits,
                                               const Storage<AnnotatedSet, D>& sets) {
  const Grid grid = logits.grid();
  require(labels.grid == grid.with_channels(1), "complete", "logits ", grid,
          " do not match labels ", labels.grid);
  return {logits.data(), labels.classes.read(), sets.read(), grid.channels, grid.voxels()};
}

/// Pseudo labels that respect what people drew: a drawn voxel keeps its label; any other becomes
/// background or one of the classes that nobody annotated in its case, or is ignored where the
/// network is less sure than the confidence of its answer.
///
///   shapes   labels (N, spatial...); logits (N, spatial..., C); confidences (C) at least; result
///            as labels, all annotated
///   units    confidences are probabilities among the classes that are open at the voxel
template <FeatureMap F>
Labels<typename F::device> complete(const Labels<typename F::device>& labels, const F& logits,
                                    const Storage<float, typename F::device>& confidences) {
  using D = typename F::device;
  const F z = detach(logits);
  const auto sets = labels.sets();
  const auto in = open_voxels(labels, z, sets);
  require(confidences.size() >= in.classes, "complete", confidences.size(), " confidences for ",
          in.classes, " classes");
  Labels<D> out{labels.grid,
                Storage<std::uint8_t, D>(labels.grid.size(), Uninitialized{}),
                std::vector<AnnotatedSet>(labels.annotated.size(), AnnotatedSet::all(in.classes)),
                {}};
  D::launch(labels.grid.size(),
            CompleteKernel<typename F::value_type>{in, confidences.read(), out.classes.write()});
  return out;
}
/// The same with one confidence for all classes.
template <FeatureMap F>
Labels<typename F::device> complete(const Labels<typename F::device>& labels, const F& logits,
                                    float confidence = 0) {
  return complete(labels, logits,
                  Storage<float, typename F::device>(logits.grid().channels, confidence));
}

/// How sure a network is where `complete` may set a label.
///
///   shapes   logits (N, spatial..., C); result (C, 2): per class the sum of the confidences of the
///            voxels that it is the answer for, and their number, over all ranks
template <FeatureMap F>
Storage<double, typename F::device> open_confidence(const Labels<typename F::device>& labels,
                                                    const F& logits) {
  const F z = detach(logits);
  const auto sets = labels.sets();
  const auto in = open_voxels(labels, z, sets);
  return over_ranks(reduce<typename F::device>(1, labels.grid.size(), 2 * in.classes,
                                               ConfidenceKernel<typename F::value_type>{in}));
}

}  // namespace segmed
