// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/pointwise.hpp>
#include <segmed/autograd/spatial.hpp>
#include <segmed/autograd/stretch.hpp>
#include <segmed/autograd/warp.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

namespace math {

struct Uniform {  // random numbers, whatever stood there
  Philox random;
  float size;
  template <class W>
  SEGMED_HD W operator()(W, Index i) const {
    return W(random.uniform(i, -size, size));
  }
  template <class W>
  SEGMED_HD W slope(W, Index) const {
    return 0;
  }
};

}  // namespace math

/// The points between which a displacement is linear, about `cell` voxels apart; an axis a channel.
template <FeatureMap F>
Grid displacement_points(const Grid& grid, Index cell) {
  require<ConfigError>(cell > 0, "smooth_displacement", "cells of ", cell, " voxels");
  Grid points = grid.with_channels(Index(F::dim));
  Index* const counts[3] = {&points.depth, &points.height, &points.width};
  for (std::size_t a = 3 - F::dim; a < 3; ++a)
    *counts[a] = std::max<Index>(1, (*counts[a] + cell / 2) / cell);
  return points;
}
/// A random displacement for each case of a map, linear between points that are about `cell` voxels
/// apart. It stays below a quarter of their distance too, so that it stretches and squeezes by half
/// at most.
///
///   shapes   grid (N, spatial..., any); result (N, spatial..., axes)
///   units    voxels
template <FeatureMap F>
F smooth_displacement(const Philox& random, const Grid& grid, Index cell, float farthest) {
  using T = typename F::value_type;
  const Grid coarse = displacement_points<F>(grid, cell);
  const Index extents[3] = {grid.depth, grid.height, grid.width};
  const Index points[3] = {coarse.depth, coarse.height, coarse.width};
  std::array<Index, F::dim> extent;
  for (std::size_t a = 3 - F::dim; a < 3; ++a) {
    extent[a + F::dim - 3] = extents[a];
    if (points[a] > 1) farthest = std::min(farthest, 0.25f * float(extents[a]) / float(points[a]));
  }
  const F zero(coarse, Storage<T, typename F::device>(coarse.size()));
  return stretch(map(math::Uniform{random, farthest}, zero), extent, Interpolation::linear);
}

/// What the student says of a deformed image is what it says of the image, deformed in the same
/// way. Uses D_1's partial labels by the usual term of the labels alone.
///
///   source   Bortsova et al., 2019, arXiv:1911.01218: one network, no teacher, the gradient goes
///            through both answers; the squared distance of probabilities, on D_1 only, and one of
///            the two views is the image itself
struct DeformationConsistency {
  float weight = 0.1f;  // after its warm-up
  float farthest = 4;   // voxels that anything moves along an axis; at most a quarter of a cell
  Index cell = 16;      // voxels over which the displacement changes

  template <class Now>
  typename Now::Value loss(Now& now) {
    if (now.partial.empty()) return {};
    const auto& image = now.partial.image;
    using F = typename Now::F;
    const Index numbers = displacement_points<F>(image.grid(), cell).size();
    const auto field =
        smooth_displacement<F>(Draws::next(Purpose::view, numbers), image.grid(), cell, farthest);
    const auto of_warped = softmax(now.student(warp(image, field, farthest)));
    const auto warped = warp(softmax(now.logits_partial()), field, farthest);
    return now.clock.ramp(weight) * mean_square(of_warped, warped);
  }
  static void options(auto& self, auto&& visit) {
    visit("weight", self.weight, at_least(0));
    visit("farthest", self.farthest, at_least(0));
    visit("cell", self.cell, at_least(1));
  }
};

}  // namespace segmed
