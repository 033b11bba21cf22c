// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/features.hpp>
#include <segmed/backend/cpu.hpp>
#include <segmed/tensor/reduce.hpp>

namespace segmed {

/// The largest value under each window, which lies within the grid, and which tap it was.
template <class T>
struct PoolKernel {
  Window w;
  const T* x;
  T* y;
  std::uint8_t* winner;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index line = row / w.coarse.width, l = row % w.coarse.width;
    columns<1>(first_of(line) + l * w.stride[2] * w.fine.channels + c, row * w.coarse.channels + c);
  }
  /// What the windows of a line of output voxels along x begin with.
  SEGMED_HD const T* first_of(Index line) const {
    const Index h = line % w.coarse.height * w.stride[1],
                d = line / w.coarse.height % w.coarse.depth * w.stride[0],
                n = line / w.coarse.height / w.coarse.depth;
    return x + ((n * w.fine.depth + d) * w.fine.height + h) * w.fine.width * w.fine.channels;
  }
  /// n channels of output number `at`, whose window begins at `base`.
  template <int n>
  SEGMED_HD void columns(const T* base, Index at) const {
    using W = Wide<T>;
    const Index channels = w.fine.channels;
    W best[n];
    std::int32_t which[n];
    for (int i = 0; i < n; ++i) best[i] = W(base[i]), which[i] = 0;
    std::int32_t tap = 0;
    for (Index a = 0; a < w.kernel[0]; ++a)
      for (Index b = 0; b < w.kernel[1]; ++b)
        for (Index e = 0; e < w.kernel[2]; ++e, ++tap) {
          const T* const from = base + ((a * w.fine.height + b) * w.fine.width + e) * channels;
          for (int i = 0; i < n; ++i) {
            // As in PyTorch: the first of equals wins, and a NaN wins over all.
            const W value = W(from[i]);
            const bool wins = (value > best[i]) | (value != value);
            best[i] = wins ? value : best[i];
            which[i] = wins ? tap : which[i];
          }
        }
    T* const to = y + at;
    std::uint8_t* const first = winner + at;
    for (int i = 0; i < n; ++i) to[i] = T(best[i]);
    for (int i = 0; i < n; ++i) first[i] = std::uint8_t(which[i]);
  }
};
/// The same on the processor, one item per some lines of output voxels: where a line lies is found
/// once. Windows read short pieces of many lines, which no processor foresees: while a line is
/// computed, memory is asked for what the next one reads.
template <class T>
struct PoolLines {
  static constexpr Index together = 8;
  PoolKernel<T> kernel;
  Index lines;

  Index items() const { return (lines + together - 1) / together; }
  void operator()(Index item) const {
    for (Index line = item * together; line < lines && line < (item + 1) * together; ++line)
      pool(line);
  }

 private:
  void pool(Index line) const {
    const Window& w = kernel.w;
    const Index channels = w.coarse.channels, next = w.stride[2] * channels;
    const T *base = kernel.first_of(line), *soon = kernel.first_of((line + 1) % lines);
    Index at = line * w.coarse.width * channels;
    for (Index l = 0; l < w.coarse.width; ++l, base += next, soon += next, at += channels) {
      fetch(soon, next);
      in_vectors(channels, [&](auto n, Index c) { kernel.template columns<n>(base + c, at + c); });
    }
  }
  void fetch(const T* from, Index count) const {
    const Window& w = kernel.w;
    for (Index a = 0; a < w.kernel[0]; ++a)
      for (Index b = 0; b < w.kernel[1]; ++b) {
        const T* const line = from + (a * w.fine.height + b) * w.fine.width * w.fine.channels;
        for (Index i = 0; i < count; i += 64 / Index(sizeof(T))) __builtin_prefetch(line + i);
      }
    asm volatile("");  // g++ 12 drops a function that only prefetches
  }
};
/// The gradient of input voxels, each from all windows that it lies under.
template <class T>
struct PoolPull {
  Window w;
  const T* g;
  const std::uint8_t* winner;
  Additions<T> gx;
  SEGMED_HD void operator()(Index row, Index c) const { columns<1>(row, c); }
  template <int n>
  SEGMED_HD void columns(Index row, Index c) const {
    using W = Wide<T>;
    const Index u = row % w.fine.voxels();
    const Index at[3] = {u / w.fine.width / w.fine.height, u / w.fine.width % w.fine.height,
                         u % w.fine.width};
    const Index extent[3] = {w.coarse.depth, w.coarse.height, w.coarse.width};
    Index first[3], last[3];
    for (int a = 0; a < 3; ++a) {
      const Index before = at[a] - w.kernel[a];
      first[a] = before < 0 ? 0 : before / w.stride[a] + 1;
      last[a] = at[a] / w.stride[a] < extent[a] ? at[a] / w.stride[a] : extent[a] - 1;
    }
    W total[n];
    for (int i = 0; i < n; ++i) total[i] = 0;
    const Index base = row / w.fine.voxels() * w.coarse.voxels();
    // Taps in ascending order, that is windows in descending order.
    for (Index d = last[0]; d >= first[0]; --d)
      for (Index h = last[1]; h >= first[1]; --h)
        for (Index l = last[2]; l >= first[2]; --l) {
          const Index tap =
              ((at[0] - d * w.stride[0]) * w.kernel[1] + at[1] - h * w.stride[1]) * w.kernel[2] +
              at[2] - l * w.stride[2];
          const Index from =
              (base + (d * w.coarse.height + h) * w.coarse.width + l) * w.coarse.channels + c;
          for (int i = 0; i < n; ++i) total[i] += winner[from + i] == tap ? W(g[from + i]) : W(0);
        }
    for (int i = 0; i < n; ++i) gx.add(row * w.fine.channels + c + i, total[i]);
  }
};
/// The same where windows lie side by side and cover everything: each gives to its own voxels.
template <class T>
struct SideBySidePull {
  Window w;
  const T* g;
  const std::uint8_t* winner;
  Additions<T> gx;

  static bool fits(const Window& w) {
    const Index fine[3] = {w.fine.depth, w.fine.height, w.fine.width},
                coarse[3] = {w.coarse.depth, w.coarse.height, w.coarse.width};
    bool all = true;
    for (int a = 0; a < 3; ++a)
      all &= w.kernel[a] == w.stride[a] && coarse[a] * w.kernel[a] == fine[a];
    return all;
  }
  SEGMED_HD void operator()(Index row, Index c) const { columns<1>(row, c); }
  template <int n>
  SEGMED_HD void columns(Index row, Index c) const {
    using W = Wide<T>;
    const Index channels = w.fine.channels, at = row * channels + c;
    // Consecutive windows along z, over all cases, start at consecutive multiples of the kernel.
    const Index d = row / w.coarse.width / w.coarse.height * w.kernel[0],
                h = row / w.coarse.width % w.coarse.height * w.kernel[1],
                l = row % w.coarse.width * w.kernel[2];
    W slope[n];
    std::int32_t which[n];
    for (int i = 0; i < n; ++i) slope[i] = W(g[at + i]), which[i] = winner[at + i];
    std::int32_t tap = 0;
    for (Index a = 0; a < w.kernel[0]; ++a)
      for (Index b = 0; b < w.kernel[1]; ++b)
        for (Index e = 0; e < w.kernel[2]; ++e, ++tap) {
          const Index to =
              (((d + a) * w.fine.height + h + b) * w.fine.width + l + e) * channels + c;
          for (int i = 0; i < n; ++i) gx.add(to + i, which[i] == tap ? slope[i] : W(0));
        }
  }
};
/// The largest value under a window of `kernel` voxels that moves by `stride`.
template <FeatureMap F>
F max_pool(const F& input, const std::array<Index, F::dim>& kernel,
           const std::array<Index, F::dim>& stride) {
  using T = typename F::value_type;
  using D = typename F::device;
  const F x = value(input);
  Window w;
  w.fine = w.coarse = x.grid();
  Index* const to[3] = {&w.coarse.depth, &w.coarse.height, &w.coarse.width};
  for (std::size_t a = 0; a < F::dim; ++a) {
    const std::size_t axis = a + 3 - F::dim;
    w.kernel[axis] = kernel[a], w.stride[axis] = stride[a];
    require(kernel[a] > 0 && stride[a] > 0 && *to[axis] >= kernel[a], "max_pool", "a kernel of ",
            kernel[a], " and stride ", stride[a], " on axis ", a, " of ", w.fine);
    *to[axis] = (*to[axis] - kernel[a]) / stride[a] + 1;
  }
  require(w.taps() <= 255, "max_pool", "a window of ", w.taps(), " voxels; at most 255");
  F y(w.coarse, x.tracked());
  Storage<std::uint8_t, D> winner(w.coarse.size(), Uninitialized{});
  const PoolKernel<T> pool{w, x.data(), y.mutable_data(), winner.write()};
  const Index lines = w.coarse.cases * w.coarse.depth * w.coarse.height;
  if constexpr (std::same_as<D, Cpu>) {
    const PoolLines<T> by_lines{pool, lines};
    D::launch_blocks(by_lines.items(), by_lines);
  } else {
    D::launch_rows(w.coarse.rows(), w.coarse.channels, pool);
  }
  forget(input, x);
  record_dense(y, {}, [=](const T* g) {
    const Additions<T> gx = x.gradient_additions();
    if (SideBySidePull<T>::fits(w))
      D::launch_rows(w.coarse.rows(), w.coarse.channels,
                     SideBySidePull<T>{w, g, winner.read(), gx});
    else
      D::launch_rows(w.fine.rows(), w.fine.channels, PoolPull<T>{w, g, winner.read(), gx});
  });
  return y;
}

template <class T>
struct SpatialSum {
  const T* x;
  Index voxels, channels;
  SEGMED_HD void operator()(Index n, Index voxel, double* sums) const {
    const T* from = x + (n * voxels + voxel) * channels;
    for (Index c = 0; c < channels; ++c) sums[c] += double(Wide<T>(from[c]));
  }
};
template <class T>
struct SpatialMean {
  const double* sums;
  Index step;  // from one sum to the next
  double voxels;
  T* y;
  SEGMED_HD void operator()(Index i) const { y[i] = T(Wide<T>(sums[i * step] / voxels)); }
};
template <class T>
struct SpatialMeanPull {
  const T* g;
  Index voxels, channels;
  T* gx;
  SEGMED_HD void operator()(Index row, Index c) const {
    using W = Wide<T>;
    const Index i = row * channels + c;
    gx[i] = T(W(gx[i]) + W(g[row / voxels * channels + c]) / W(voxels));
  }
};
/// The mean over all voxels of a case: global average pooling.
///
///   shapes   input (N, spatial..., C); result (N, 1..., C)
template <FeatureMap F>
F spatial_mean(const F& input) {
  using T = typename F::value_type;
  using D = typename F::device;
  const F x = value(input);
  const Grid grid = x.grid();
  const Index voxels = grid.voxels(), channels = grid.channels;
  F y(Grid{grid.cases, 1, 1, 1, channels}, x.tracked());
  Storage<double, D> sums;
  Index step = 1;
  if constexpr (HasTeams<D> && HasRows<D, T>) {  // the first of two moments
    sums = Storage<double, D>(2 * grid.pairs(), Uninitialized{}), step = 2;
    D::moments(F::lane(x.dense(), x.sources()[0]), sums.write());
  } else {
    sums = reduce<D>(grid.cases, voxels, channels, SpatialSum<T>{x.data(), voxels, channels});
  }
  D::launch(grid.pairs(), SpatialMean<T>{sums.read(), step, double(voxels), y.mutable_data()});
  forget(input, x);
  record_dense(y, {}, [=](const T* g) {
    D::launch_rows(grid.rows(), channels,
                   SpatialMeanPull<T>{g, voxels, channels, x.gradient_to_add()});
  });
  return y;
}

}  // namespace segmed
