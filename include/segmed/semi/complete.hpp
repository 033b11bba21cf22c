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

}  // namespace segmed
