// SPDX-License-Identifier: Apache-2.0
// Maps read at displaced positions.
#pragma once
#include <cmath>

#include <segmed/autograd/features.hpp>
#include <segmed/backend/cpu.hpp>

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
      if (a >= 3 - axes) to += within(W(by[a - 3 + axes]), -W(farthest), W(farthest));
      to = within(to, W(0), W(extent[a] - 1));
      tap.first[a] = Index(to);
      tap.second[a] = tap.first[a] + 1 < extent[a] ? tap.first[a] + 1 : tap.first[a];
      tap.weight[a] = to - W(tap.first[a]);
    }
    return tap;
  }
  /// Calls visit(z, y, x, weight) for each input voxel that counts.
  template <class Visit>
  SEGMED_HD static void each_corner(const WarpTap<Wide<T>>& tap, const Visit& visit) {
    using W = Wide<T>;
    for (int z = 0; z < 2; ++z)
      for (int y = 0; y < 2; ++y)
        for (int x = 0; x < 2; ++x) {
          const W weight = (z ? tap.weight[0] : W(1) - tap.weight[0]) *
                           (y ? tap.weight[1] : W(1) - tap.weight[1]) *
                           (x ? tap.weight[2] : W(1) - tap.weight[2]);
          if (weight != W(0))
            visit(z ? tap.second[0] : tap.first[0], y ? tap.second[1] : tap.first[1],
                  x ? tap.second[2] : tap.first[2], weight);
        }
  }

 private:
  /// What is not a number becomes `low`.
  template <class W>
  SEGMED_HD static W within(W x, W low, W high) {
    return !(x > low) ? low : x < high ? x : high;
  }
};

template <class T>
struct WarpKernel {  // one item per output voxel
  WarpField<T> field;
  const T* input;
  T* output;
  SEGMED_HD void operator()(Index row) const {
    using W = Wide<T>;
    const Grid& g = field.grid;
    const Index n = row / g.voxels(), v = row % g.voxels();
    const auto tap = field.tap(n, v / g.width / g.height, v / g.width % g.height, v % g.width);
    const T* from[8];
    W weight[8];
    int corners = 0;
    field.each_corner(tap, [&](Index z, Index y, Index x, W by) {
      from[corners] = input + (((n * g.depth + z) * g.height + y) * g.width + x) * g.channels;
      weight[corners++] = by;
    });
    for (Index c = 0; c < g.channels; ++c) {
      W sum = 0;
      for (int k = 0; k < corners; ++k) sum += weight[k] * W(from[k][c]);
      output[row * g.channels + c] = T(sum);
    }
  }
};

/// Voxels from begin to before end along one axis.
struct WarpRange {
  Index begin, end;

  SEGMED_HD bool has(Index i) const { return i >= begin && i < end; }
  SEGMED_HD WarpRange around(Index reach, Index extent) const {
    return {begin > reach ? begin - reach : 0, end + reach < extent ? end + reach : extent};
  }
};
/// The backward pass: an item owns a tile of `Side` input voxels along each axis, and looks around
/// it for those who read them. However large the tiles, an input voxel adds up its readers in their
/// order.
template <class T, Index Side>
struct WarpPull {
  WarpField<T> field;
  const T* g;
  Wide<T>* sums;
  T* gx;

  SEGMED_HD static Index tiles(Index extent) { return (extent + Side - 1) / Side; }
  static Index items(const Grid& g) {
    return g.cases * tiles(g.depth) * tiles(g.height) * tiles(g.width);
  }
  SEGMED_HD void operator()(Index item) const {
    using W = Wide<T>;
    const Grid& grid = field.grid;
    const Index channels = grid.channels, reach = Index(std::ceil(field.farthest));
    const WarpRange xs = take(item, grid.width), ys = take(item, grid.height),
                    zs = take(item, grid.depth);
    const Index n = item;  // what is left of it
    const auto at = [&](Index z, Index y, Index x) {
      return (((n * grid.depth + z) * grid.height + y) * grid.width + x) * channels;
    };
    each_voxel(zs, ys, xs, [&](Index z, Index y, Index x) {
      for (Index c = 0; c < channels; ++c) sums[at(z, y, x) + c] = 0;
    });
    const auto read = [&](Index z, Index y, Index x) {
      const auto tap = field.tap(n, z, y, x);
      if (!meets(tap, 0, zs) || !meets(tap, 1, ys) || !meets(tap, 2, xs)) return;
      const T* from = g + at(z, y, x);
      field.each_corner(tap, [&](Index d, Index h, Index w, W weight) {
        if (!zs.has(d) || !ys.has(h) || !xs.has(w)) return;
        W* to = sums + at(d, h, w);
        for (Index c = 0; c < channels; ++c) to[c] += weight * W(from[c]);
      });
    };
    each_voxel(zs.around(reach, grid.depth), ys.around(reach, grid.height),
               xs.around(reach, grid.width), read);
    each_voxel(zs, ys, xs, [&](Index z, Index y, Index x) {
      const Index i = at(z, y, x);
      for (Index c = 0; c < channels; ++c) gx[i + c] = T(W(gx[i + c]) + sums[i + c]);
    });
  }

 private:
  /// The item's tile along an axis; leaves the number of the tile along the others.
  SEGMED_HD static WarpRange take(Index& item, Index extent) {
    const Index begin = item % tiles(extent) * Side;
    item /= tiles(extent);
    return {begin, begin + Side < extent ? begin + Side : extent};
  }
  SEGMED_HD static bool meets(const WarpTap<Wide<T>>& tap, int axis, const WarpRange& range) {
    return tap.second[axis] >= range.begin && tap.first[axis] < range.end;
  }
  template <class Visit>
  SEGMED_HD static void each_voxel(WarpRange zs, WarpRange ys, WarpRange xs, const Visit& visit) {
    for (Index z = zs.begin; z < zs.end; ++z)
      for (Index y = ys.begin; y < ys.end; ++y)
        for (Index x = xs.begin; x < xs.end; ++x) visit(z, y, x);
  }
};
/// Large tiles look at fewer voxels twice, small ones make more items.
template <Device D>
inline constexpr Index warp_side = std::same_as<D, Cpu> ? 32 : 8;

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
    using Pull = WarpPull<T, warp_side<D>>;
    Storage<W, D> sums(grid.size(), Uninitialized{});
    D::launch_blocks(Pull::items(grid), Pull{field, g, sums.write(), x.gradient_to_add()});
    (void)by;  // the field points into it
  });
  return y;
}

}  // namespace segmed
