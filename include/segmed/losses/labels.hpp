// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <utility>
#include <vector>

#include <segmed/backend/view.hpp>
#include <segmed/core/annotated_set.hpp>
#include <segmed/tensor/storage.hpp>

namespace segmed {

/// Integer labels of a batch, one per voxel, that never travel without their annotated sets, one
/// per case. 255 is an ignored voxel; a label whose class is not annotated counts as background.
///
///   shapes   grid (cases, depth, height, width, 1); classes (cases, depth, height, width)
template <Device D>
struct Labels {
  Grid grid{0, 0, 0, 0, 1};
  Storage<std::uint8_t, D> classes = {};
  std::vector<AnnotatedSet> annotated = {};
  Storage<AnnotatedSet, D> on_device = {};  // the same sets for kernels; empty: copied at each use

  bool empty() const { return classes.empty(); }
  /// The annotated sets where kernels can read them.
  Storage<AnnotatedSet, D> sets() const {
    return on_device.empty() ? Storage<AnnotatedSet, D>(annotated) : on_device;
  }
};

/// Labels from host memory; without annotated sets, classes 0 to `classes` - 1 are annotated in
/// every case.
///
///   throws   ShapeError when the counts do not fit the grid
template <Device D>
Labels<D> labels_of(const Grid& grid, const std::vector<std::uint8_t>& values,
                    std::vector<AnnotatedSet> annotated) {
  const Grid single = grid.with_channels(1);
  require(Index(values.size()) == single.size(), "labels", "grid ", single, " needs ",
          single.size(), " labels, not ", values.size());
  require(Index(annotated.size()) == grid.cases, "labels", grid.cases, " cases need as many ",
          "annotated sets, not ", annotated.size());
  Labels<D> labels{single, Storage<std::uint8_t, D>(values), std::move(annotated), {}};
  labels.on_device = Storage<AnnotatedSet, D>(labels.annotated);
  return labels;
}
template <Device D>
Labels<D> labels_of(const Grid& grid, const std::vector<std::uint8_t>& values, Index classes) {
  return labels_of<D>(
      grid, values, std::vector<AnnotatedSet>(std::size_t(grid.cases), AnnotatedSet::all(classes)));
}

/// Background everywhere, and every class annotated: for losses that ask for no label.
template <Device D>
Labels<D> blank_labels(const Grid& grid) {
  const Grid single = grid.with_channels(1);
  return {single, Storage<std::uint8_t, D>(single.size()),
          std::vector<AnnotatedSet>(std::size_t(grid.cases), AnnotatedSet::all(grid.channels))};
}

struct SubsampleKernel {  // one item per voxel of the coarse grid
  Grid fine, coarse;
  const std::uint8_t* from;
  std::uint8_t* to;
  SEGMED_HD void operator()(Index i) const {
    const Index x = i % coarse.width * fine.width / coarse.width;
    const Index y = i / coarse.width % coarse.height * fine.height / coarse.height;
    const Index z = i / coarse.width / coarse.height % coarse.depth * fine.depth / coarse.depth;
    to[i] = from[((i / coarse.voxels() * fine.depth + z) * fine.height + y) * fine.width + x];
  }
};

/// The labels that a coarser output is compared with: the nearest voxel, without any mixing. Voxel
/// i of the coarse grid takes voxel floor(i * fine / coarse), the one on which a strided
/// convolution stands.
///
///   throws   ShapeError when the grid has other cases or is finer than the labels
template <Device D>
Labels<D> subsampled(const Labels<D>& labels, const Grid& grid) {
  const Grid fine = labels.grid, coarse = grid.with_channels(1);
  if (fine == coarse) return labels;
  require(coarse.cases == fine.cases && coarse.size() > 0 && coarse.depth <= fine.depth &&
              coarse.height <= fine.height && coarse.width <= fine.width,
          "subsampled", "labels ", fine, " cannot be thinned out to ", coarse);
  Labels<D> out{coarse, Storage<std::uint8_t, D>(coarse.size(), Uninitialized{}), labels.annotated,
                labels.on_device};
  D::launch(coarse.size(),
            SubsampleKernel{fine, coarse, labels.classes.read(), out.classes.write()});
  return out;
}

}  // namespace segmed
