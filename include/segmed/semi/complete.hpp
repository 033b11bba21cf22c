// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/pointwise.hpp>
#include <segmed/losses/labels.hpp>

namespace segmed {

template <class T>
struct CompleteKernel {  // one item per voxel
  const T* z;
  const std::uint8_t* label;
  const AnnotatedSet* annotated;
  std::uint8_t* out;
  Index classes, voxels;
  float confidence;

  /// A class that this voxel may turn out to be: nobody looked for it here.
  SEGMED_HD bool open(Index v, Index c) const { return c == 0 || !annotated[v / voxels].has(c); }
  SEGMED_HD float logit(Index v, Index c) const { return float(Wide<T>(z[v * classes + c])); }
  SEGMED_HD void operator()(Index v) const {
    const bool unlabelled = annotated[v / voxels].none();  // then every voxel is `ignored`
    if (label[v] != 0 && !unlabelled) {
      out[v] = label[v];  // somebody drew it, or it lies outside of the scan
      return;
    }
    Index best = 0;
    float total = 0;
    for (Index c = 1; c < classes; ++c)
      if (open(v, c) && logit(v, c) > logit(v, best)) best = c;
    for (Index c = 0; c < classes; ++c)
      if (open(v, c)) total += std::exp(logit(v, c) - logit(v, best));
    out[v] = 1 / total < confidence ? ignored : std::uint8_t(best);
  }
};

/// Pseudo labels that respect what people drew: a drawn voxel keeps its label; any other becomes
/// background or one of the classes that nobody annotated in its case, or is ignored where the
/// network is less sure than `confidence`.
///
///   shapes   labels (N, spatial...); logits (N, spatial..., C); result as labels, all annotated
///   units    confidence is a probability among the classes that are open at the voxel
template <FeatureMap F>
Labels<typename F::device> complete(const Labels<typename F::device>& labels, const F& logits,
                                    float confidence = 0) {
  using T = typename F::value_type;
  using D = typename F::device;
  const F z = detach(logits);
  const Grid grid = z.grid();
  require(labels.grid == grid.with_channels(1), "complete", "logits ", grid,
          " do not match labels ", labels.grid);
  Labels<D> out{
      labels.grid, Storage<std::uint8_t, D>(labels.grid.size(), Uninitialized{}),
      std::vector<AnnotatedSet>(std::size_t(grid.cases), AnnotatedSet::all(grid.channels))};
  const Storage<AnnotatedSet, D> annotated(labels.annotated);
  D::launch(labels.grid.size(),
            CompleteKernel<T>{z.data(), labels.classes.read(), annotated.read(),
                              out.classes.write(), grid.channels, grid.voxels(), confidence});
  return out;
}

/// An annotated class has been looked for: elsewhere in its case it cannot be.
struct OpenClasses {
  AnnotatedSet annotated;
  Index classes;
  SEGMED_HD bool open(Index i) const { return i % classes == 0 || !annotated.has(i % classes); }
  template <class W>
  SEGMED_HD W operator()(W z, Index i) const {
    return open(i) ? z : W(-1e9);
  }
  template <class W>
  SEGMED_HD W slope(W, Index i) const {
    return W(open(i) ? 1 : 0);
  }
};
/// Logits whose softmax is over the classes that `complete` may choose from.
template <FeatureMap F>
F open_logits(const F& logits, const AnnotatedSet& annotated) {
  return map(OpenClasses{annotated, logits.grid().channels}, logits);
}

}  // namespace segmed
