// SPDX-License-Identifier: Apache-2.0
// Maps read at displaced positions.
#pragma once
#include <segmed/autograd/pointwise.hpp>
#include <segmed/autograd/spatial.hpp>

namespace segmed {

/// What one output voxel reads: on each axis two neighbours, and the weight of the second.
template <class W>
struct WarpTap {
  Index first[3], second[3];
  W weight[3];
};
/// Where output voxels read. No displacement counts for more than `farthest`, and outside of the
/// map the edge is repeated.
template <class T>
struct WarpField {
  Grid grid;
  const T* displacement;  // (cases, voxels, axes), in voxels
  Index axes;
  float farthest;

  SEGMED_HD WarpTap<Wide<T>> tap(Index n, Index z, Index y, Index x) const {
    using W = Wide<T>;
    const Index at[3] = {z, y, x}, extent[3] = {grid.depth, grid.height, grid.width};
    const T* by = displacement + (((n * grid.depth + z) * grid.height + y) * grid.width + x) * axes;
    WarpTap<W> tap;
    for (Index a = 0; a < 3; ++a) {
      W to = W(at[a]);
      if (a >= 3 - axes) to += std::fmax(-W(farthest), std::fmin(W(farthest), W(by[a - 3 + axes])));
      to = std::fmax(W(0), std::fmin(W(extent[a] - 1), to));
      tap.first[a] = Index(to);
      tap.second[a] = tap.first[a] + 1 < extent[a] ? tap.first[a] + 1 : tap.first[a];
      tap.weight[a] = to - W(tap.first[a]);
    }
    return tap;
  }
  /// Calls visit(offset of the input voxel in its case, weight) for each corner that counts.
  template <class Visit>
  SEGMED_HD void each_corner(const WarpTap<Wide<T>>& tap, const Visit& visit) const {
    using W = Wide<T>;
    for (int corner = 0; corner < 8; ++corner) {
      W weight = 1;
      Index from = 0;
      const Index extent[3] = {grid.depth, grid.height, grid.width};
      for (int a = 0; a < 3; ++a) {
        const bool second = (corner >> (2 - a) & 1) != 0;
        weight *= second ? tap.weight[a] : W(1) - tap.weight[a];
        from = from * extent[a] + (second ? tap.second[a] : tap.first[a]);
      }
      if (weight != W(0)) visit(from, weight);
    }
  }
};

template <class T>
struct WarpKernel {  // one item per output voxel
  WarpField<T> field;
  const T* x;
  T* y;
  SEGMED_HD void operator()(Index row) const {
    using W = Wide<T>;
    const Grid& g = field.grid;
    const Index n = row / g.voxels(), v = row % g.voxels();
    const auto tap = field.tap(n, v / g.width / g.height, v / g.width % g.height, v % g.width);
    const T* from[8];
    W weight[8];
    int corners = 0;
    field.each_corner(tap, [&](Index at, W w) {
      from[corners] = x + (n * g.voxels() + at) * g.channels;
      weight[corners++] = w;
    });
    for (Index c = 0; c < g.channels; ++c) {
      W sum = 0;
      for (int k = 0; k < corners; ++k) sum += weight[k] * W(from[k][c]);
      y[row * g.channels + c] = T(sum);
    }
  }
};

/// Input voxels that one item of the backward pass owns, along each axis. No part of the numerics:
/// every input voxel adds up its readers in their order.
inline constexpr Index warp_tile = 8;

template <class T>
struct WarpPull {  // one item per tile of input voxels, which looks for its readers around it
  WarpField<T> field;
  const T* g;
  Wide<T>* sums;
  T* gx;

  struct Range {
    Index begin, end;
    SEGMED_HD Range around(Index reach, Index extent) const {
      return {begin > reach ? begin - reach : 0, end + reach < extent ? end + reach : extent};
    }
    SEGMED_HD bool has(Index i) const { return i >= begin && i < end; }
  };
  SEGMED_HD static Index tiles(Index extent) { return (extent + warp_tile - 1) / warp_tile; }
  SEGMED_HD static Range range(Index tile, Index extent) {
    const Index begin = tile * warp_tile;
    return {begin, begin + warp_tile < extent ? begin + warp_tile : extent};
  }
  SEGMED_HD void operator()(Index item) const {
    using W = Wide<T>;
    const Grid& grid = field.grid;
    const Index across = tiles(grid.width), down = tiles(grid.height);
    const Range x = range(item % across, grid.width);
    const Range y = range(item / across % down, grid.height);
    const Range z = range(item / across / down % tiles(grid.depth), grid.depth);
    const Index n = item / across / down / tiles(grid.depth), channels = grid.channels;
    const Index first = n * grid.voxels();
    each_voxel(z, y, x, [&](Index d, Index h, Index w) {
      W* own = sums + (first + (d * grid.height + h) * grid.width + w) * channels;
      for (Index c = 0; c < channels; ++c) own[c] = 0;
    });
    const Index reach = Index(std::ceil(field.farthest));
    each_voxel(z.around(reach, grid.depth), y.around(reach, grid.height),
               x.around(reach, grid.width), [&](Index d, Index h, Index w) {
                 const auto tap = field.tap(n, d, h, w);
                 const bool far = tap.second[0] < z.begin || tap.first[0] >= z.end ||
                                  tap.second[1] < y.begin || tap.first[1] >= y.end ||
                                  tap.second[2] < x.begin || tap.first[2] >= x.end;
                 if (far) return;
                 const T* up = g + (first + (d * grid.height + h) * grid.width + w) * channels;
                 field.each_corner(tap, [&](Index at, W weight) {
                   const bool own = x.has(at % grid.width) &&
                                    y.has(at / grid.width % grid.height) &&
                                    z.has(at / grid.width / grid.height);
                   if (!own) return;
                   W* to = sums + (first + at) * channels;
                   for (Index c = 0; c < channels; ++c) to[c] += weight * W(up[c]);
                 });
               });
    each_voxel(z, y, x, [&](Index d, Index h, Index w) {
      const Index at = (first + (d * grid.height + h) * grid.width + w) * channels;
      for (Index c = 0; c < channels; ++c) gx[at + c] = T(W(gx[at + c]) + sums[at + c]);
    });
  }

 private:
  template <class Visit>
  SEGMED_HD static void each_voxel(Range z, Range y, Range x, const Visit& visit) {
    for (Index d = z.begin; d < z.end; ++d)
      for (Index h = y.begin; h < y.end; ++h)
        for (Index w = x.begin; w < x.end; ++w) visit(d, h, w);
  }
};

/// The map read at displaced positions, linearly between voxels. The displacement is a constant;
/// `farthest` voxels is the most that counts of it along any axis.
///
///   shapes   x (N, spatial..., C); displacement (N, spatial..., axes), an axis as those of the map
///            are ordered; result as x
///   units    voxels
template <FeatureMap F>
F warp(const F& input, const F& displacement, float farthest) {
  using T = typename F::value_type;
  using W = typename F::Wide;
  using D = typename F::device;
  require<ConfigError>(farthest >= 0, "warp", "displacements of at most ", farthest, " voxels");
  const F x = value(input), by = detach(displacement);
  const Grid grid = x.grid();
  require(by.grid() == grid.with_channels(Index(F::dim)), "warp", "displacement ", by.grid(),
          " does not fit ", grid, "; give it one channel per axis");
  const WarpField<T> field{grid, by.data(), Index(F::dim), farthest};
  F y(grid, x.tracked());
  D::launch(grid.rows(), WarpKernel<T>{field, x.data(), y.mutable_data()});
  record_dense(y, {}, [=](const T* g) {
    const auto tiles = [](Index extent) { return WarpPull<T>::tiles(extent); };
    Storage<W, D> sums(grid.size(), Uninitialized{});
    D::launch_blocks(grid.cases * tiles(grid.depth) * tiles(grid.height) * tiles(grid.width),
                     WarpPull<T>{field, g, sums.write(), x.gradient_to_add()});
    (void)by;  // the field points into it
  });
  return y;
}

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

/// A random displacement for each case of a map, linear between points that are about `cell` voxels
/// apart. It stays below a quarter of their distance too, so that it stretches and squeezes by half
/// at most.
///
///   shapes   grid (N, spatial..., any); result (N, spatial..., axes)
///   units    voxels
template <FeatureMap F>
F smooth_displacement(const Philox& random, const Grid& grid, Index cell, float farthest) {
  using T = typename F::value_type;
  require<ConfigError>(cell > 0, "smooth_displacement", "cells of ", cell, " voxels");
  const Index extents[3] = {grid.depth, grid.height, grid.width};
  Grid coarse = grid.with_channels(Index(F::dim));
  Index* const points[3] = {&coarse.depth, &coarse.height, &coarse.width};
  std::array<Index, F::dim> extent;
  for (std::size_t a = 3 - F::dim; a < 3; ++a) {
    *points[a] = std::max<Index>(1, (extents[a] + cell / 2) / cell);
    extent[a + F::dim - 3] = extents[a];
    if (*points[a] > 1)
      farthest = std::min(farthest, 0.25f * float(extents[a]) / float(*points[a]));
  }
  const F zero(coarse, Storage<T, typename F::device>(coarse.size()));
  return stretch(map(math::Uniform{random, farthest}, zero), extent, Interpolation::linear);
}

}  // namespace segmed
