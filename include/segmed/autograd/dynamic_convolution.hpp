// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/features.hpp>
#include <segmed/tensor/reduce.hpp>

namespace segmed {

/// Three 1x1 convolutions from 8 channels by way of 8 and 8 to one, ReLU between them, whose
/// weights are data. They lie as weight (out, in), bias, layer after layer.
template <class T>
struct PointwiseChain {
  using W = Wide<T>;
  static constexpr int width = 8, layer = width * width + width, size = 2 * layer + width + 1;
  const T *x, *weights;  // of one voxel; of one chain
  W first[width], second[width];

  SEGMED_HD PointwiseChain(const T* voxel, const T* chain) : x(voxel), weights(chain) {
    W start[width];
    for (int i = 0; i < width; ++i) start[i] = W(x[i]);
    forward(start, weights, first);
    forward(first, weights + layer, second);
  }
  SEGMED_HD W weight(int i) const { return W(weights[i]); }
  SEGMED_HD W value() const {
    W total = weight(size - 1);
    for (int i = 0; i < width; ++i) total += weight(2 * layer + i) * second[i];
    return total;
  }
  /// With the value's gradient g: the gradients of what the first two convolutions gave.
  SEGMED_HD void backward(W g, W* to_first, W* to_second) const {
    for (int o = 0; o < width; ++o)
      to_second[o] = second[o] > W(0) ? g * weight(2 * layer + o) : W(0);
    for (int i = 0; i < width; ++i) {
      W total = 0;
      for (int o = 0; o < width; ++o) total += to_second[o] * weight(layer + o * width + i);
      to_first[i] = first[i] > W(0) ? total : W(0);
    }
  }

 private:
  SEGMED_HD static void forward(const W* in, const T* w, W* out) {
    for (int o = 0; o < width; ++o) {
      W total = W(w[width * width + o]);
      for (int i = 0; i < width; ++i) total += W(w[o * width + i]) * in[i];
      out[o] = total > W(0) ? total : W(0);
    }
  }
};

/// Where voxels and chains lie.
template <class T>
struct ChainLayout {
  const T *x, *weights;
  Index voxels, chains;  // per case
  SEGMED_HD PointwiseChain<T> at(Index row, Index k) const {
    using Chain = PointwiseChain<T>;
    return {x + row * Chain::width, weights + (row / voxels * chains + k) * Chain::size};
  }
};
template <class T>
struct ChainKernel {
  ChainLayout<T> in;
  T* y;
  SEGMED_HD void operator()(Index row, Index k) const {
    y[row * in.chains + k] = T(in.at(row, k).value());
  }
};
template <class T>
struct ChainPull {  // to the voxels; one item per voxel
  ChainLayout<T> in;
  const T* g;
  T* gx;
  SEGMED_HD void operator()(Index row) const {
    using W = Wide<T>;
    constexpr int width = PointwiseChain<T>::width;
    W total[width] = {}, to_first[width], to_second[width];
    for (Index k = 0; k < in.chains; ++k) {
      const auto chain = in.at(row, k);
      chain.backward(W(g[row * in.chains + k]), to_first, to_second);
      for (int i = 0; i < width; ++i)
        for (int o = 0; o < width; ++o) total[i] += to_first[o] * chain.weight(o * width + i);
    }
    for (int i = 0; i < width; ++i) gx[row * width + i] = T(W(gx[row * width + i]) + total[i]);
  }
};
template <class T>
struct ChainWeightSums {  // to the chains; a segment is one chain of one case
  ChainLayout<T> in;
  const T* g;
  SEGMED_HD void operator()(Index segment, Index voxel, double* sums) const {
    using W = Wide<T>;
    using Chain = PointwiseChain<T>;
    const Index row = segment / in.chains * in.voxels + voxel, k = segment % in.chains;
    const W up = W(g[row * in.chains + k]);
    W to_first[Chain::width], to_second[Chain::width];
    const Chain chain = in.at(row, k);
    chain.backward(up, to_first, to_second);
    for (int o = 0; o < Chain::width; ++o) {
      double *one = sums + o * Chain::width, *two = one + Chain::layer;
      for (int i = 0; i < Chain::width; ++i) {
        one[i] += double(to_first[o] * W(chain.x[i]));
        two[i] += double(to_second[o] * chain.first[i]);
      }
      sums[Chain::width * Chain::width + o] += double(to_first[o]);
      sums[Chain::layer + Chain::width * Chain::width + o] += double(to_second[o]);
      sums[2 * Chain::layer + o] += double(up * chain.second[o]);
    }
    sums[Chain::size - 1] += double(up);
  }
};
/// Each voxel through chains of three 1x1 convolutions (8 channels, 8, 8, 1; ReLU between) with
/// weights of their own per case: one channel per chain.
///
///   shapes   input (N, spatial..., 8); weights (N, chains on any grid..., 153); result
///            (N, spatial..., chains)
///   throws   ShapeError when they do not fit
///   source   Zhang et al., DoDNet, 2021, arXiv:2011.10217, with one logit per class
template <FeatureMap F>
F pointwise_chains(const F& input, const F& weights) {
  using T = typename F::value_type;
  using D = typename F::device;
  using Chain = PointwiseChain<T>;
  const F x = value(input), w = value(weights);
  const Grid grid = x.grid(), of = w.grid();
  require(grid.channels == Chain::width && of.channels == Chain::size && of.cases == grid.cases,
          "pointwise_chains", "input ", grid, " and weights ", of, " need ", Chain::width, " and ",
          Chain::size, " channels and as many cases");
  const ChainLayout<T> in{x.data(), w.data(), grid.voxels(), of.voxels()};
  F y(grid.with_channels(in.chains), x.tracked() || w.tracked());
  D::launch_rows(grid.rows(), in.chains, ChainKernel<T>{in, y.mutable_data()});
  record_dense(y, {}, [=](const T* g) {
    if (x.tracked()) D::launch(grid.rows(), ChainPull<T>{in, g, x.gradient_to_add()});
    if (!w.tracked()) return;
    const auto sums = reduce<D>(of.rows(), grid.voxels(), Chain::size, ChainWeightSums<T>{in, g});
    D::launch(of.size(), AddSums<T>{sums.read(), w.gradient_to_add()});
  });
  return y;
}

}  // namespace segmed
