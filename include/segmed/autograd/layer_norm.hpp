// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstring>

#include <segmed/autograd/features.hpp>
#include <segmed/backend/cpu.hpp>
#include <segmed/tensor/reduce.hpp>

namespace segmed {

/// Numbers of as many neighbouring channels, which one operation does at once.
template <class W, int lanes>
struct SideBySide {
  typedef W type;
};
template <>
struct SideBySide<float, 16> {
  typedef float type __attribute__((vector_size(64)));
};
template <>
struct SideBySide<double, 16> {
  typedef double type __attribute__((vector_size(128)));
};

/// Mean and deviation of one voxel's channels.
template <class W>
struct LayerMoments {
  W mean, inverse;  // one over the deviation
};
/// What both passes of layer norm read.
template <class T>
struct LayerInput {
  const T* x;
  const Wide<T>*gain, *bias;
  Wide<T> epsilon;
  Index rows, channels;
};

/// On the processor an item is `rows_each` voxels, and `lanes` channels of one are done side by
/// side.
template <class T>
struct LayerRows : LayerInput<T> {
  using W = Wide<T>;
  static constexpr int lanes = 16;
  static constexpr Index rows_each = 128;

  Index items() const { return (this->rows + rows_each - 1) / rows_each; }
  Index first(Index item) const { return item * rows_each; }
  Index last(Index item) const { return std::min(this->rows, (item + 1) * rows_each); }
  template <int n>
  using Numbers = typename SideBySide<W, n>::type;
  // Vectors come and go by reference: how they are passed by value depends on a unit's flags.
  template <int n, class From>
  static void read(const From* from, Numbers<n>& to) {
    if constexpr (n == 1) {
      to = W(*from);
    } else if constexpr (std::same_as<From, W>) {
      std::memcpy(&to, from, sizeof to);
    } else {
      W wide[n];
      for (int l = 0; l < n; ++l) wide[l] = W(from[l]);
      std::memcpy(&to, wide, sizeof to);
    }
  }
  template <int n>
  static void write(const Numbers<n>& from, T* to) {
    if constexpr (n == 1) {
      *to = T(from);
    } else if constexpr (std::same_as<T, W>) {
      std::memcpy(to, &from, sizeof from);
    } else {
      for (int l = 0; l < n; ++l) to[l] = T(from[l]);
    }
  }
  /// The sum of a vector's numbers and one more.
  static W total(const Numbers<lanes>& numbers, W more) {
    W part[lanes];
    std::memcpy(part, &numbers, sizeof numbers);
    for (int half = lanes / 2; half > 0; half /= 2)
      for (int l = 0; l < half; ++l) part[l] += part[l + half];
    return part[0] + more;
  }
};
template <class T>
struct LayerNormKernel {
  using W = Wide<T>;
  static constexpr int lanes = LayerRows<T>::lanes;
  LayerRows<T> in;
  T* y;
  LayerMoments<W>* kept;  // of each voxel, if set

  void operator()(Index item) const {
    for (Index row = in.first(item); row < in.last(item); ++row) {
      T* const to = y + row * in.channels;
      const T* const x = in.x + row * in.channels;
      const LayerMoments<W> of = moments(x);
      if (kept) kept[row] = of;
      Index c = 0;
      for (; c + lanes <= in.channels; c += lanes) write<lanes>(of, x + c, c, to + c);
      for (; c < in.channels; ++c) write<1>(of, x + c, c, to + c);
    }
  }

 private:
  using Rows = LayerRows<T>;
  template <int n>
  using Numbers = typename Rows::template Numbers<n>;

  LayerMoments<W> moments(const T* x) const {
    Numbers<lanes> v, sums{}, squares{};
    W sum = 0, square = 0;  // of what fills no vector
    Index c = 0;
    for (; c + lanes <= in.channels; c += lanes) {
      Rows::template read<lanes>(x + c, v);
      sums += v;
    }
    for (; c < in.channels; ++c) sum += W(x[c]);
    const W mean = Rows::total(sums, sum) / W(in.channels);
    for (c = 0; c + lanes <= in.channels; c += lanes) {
      Rows::template read<lanes>(x + c, v);
      v -= mean;
      squares += v * v;
    }
    for (; c < in.channels; ++c) square += (W(x[c]) - mean) * (W(x[c]) - mean);
    const W variance = Rows::total(squares, square) / W(in.channels);
    return {mean, W(1) / std::sqrt(variance + in.epsilon)};
  }
  template <int n>
  void write(const LayerMoments<W>& of, const T* x, Index c, T* to) const {
    Numbers<n> v, gain, bias;
    Rows::template read<n>(x, v);
    Rows::template read<n>(in.gain + c, gain);
    Rows::template read<n>(in.bias + c, bias);
    const Numbers<n> made = (v - of.mean) * of.inverse * gain + bias;
    Rows::template write<n>(made, to);
  }
};
template <class T>
struct LayerNormPull {
  using W = Wide<T>;
  static constexpr int lanes = LayerRows<T>::lanes;
  LayerRows<T> in;
  const LayerMoments<W>* kept;
  const T* g;
  Additions<T> gx;
  W* sums;  // set: (items, gain and bias, channels), the weights' gradients

  void operator()(Index item) const {
    W* const own = sums ? sums + 2 * item * in.channels : nullptr;
    for (Index k = 0; own && k < 2 * in.channels; ++k) own[k] = 0;
    for (Index row = in.first(item); row < in.last(item); ++row) {
      const Row of = read(row);
      Index c = 0;
      for (; c + lanes <= in.channels; c += lanes) carry<lanes>(of, c, row, own);
      for (; c < in.channels; ++c) carry<1>(of, c, row, own);
    }
  }

 private:
  using Rows = LayerRows<T>;
  template <int n>
  using Numbers = typename Rows::template Numbers<n>;
  struct Row {
    const T *x, *up;
    LayerMoments<W> of;
    W level, tilt;  // the means of upstream * gain, and of that times the normal number
  };
  Row read(Index row) const {
    const Index channels = in.channels;
    Row r{in.x + row * channels, g + row * channels, kept[row], 0, 0};
    if (!gx.to) return r;
    Numbers<lanes> v, up, gain, levels{}, tilts{};
    Index c = 0;
    for (; c + lanes <= channels; c += lanes) {
      Rows::template read<lanes>(r.x + c, v);
      Rows::template read<lanes>(r.up + c, up);
      Rows::template read<lanes>(in.gain + c, gain);
      up *= gain;
      levels += up, tilts += up * (v - r.of.mean);
    }
    for (; c < channels; ++c) {
      const W one = W(r.up[c]) * in.gain[c];
      r.level += one, r.tilt += one * (W(r.x[c]) - r.of.mean);
    }
    r.level = Rows::total(levels, r.level) / W(channels);
    r.tilt = Rows::total(tilts, r.tilt) * r.of.inverse / W(channels);
    return r;
  }
  template <int n>
  void carry(const Row& r, Index c, Index row, W* own) const {
    Numbers<n> normal, up, gain, before;
    Rows::template read<n>(r.x + c, normal);
    Rows::template read<n>(r.up + c, up);
    normal = (normal - r.of.mean) * r.of.inverse;
    if (gx.to) {
      T* const to = gx.to + row * in.channels + c;
      Rows::template read<n>(in.gain + c, gain);
      Numbers<n> made = (up * gain - r.level - normal * r.tilt) * r.of.inverse;
      if (!gx.fresh) {
        Rows::template read<n>(to, before);
        made += before;
      }
      Rows::template write<n>(made, to);
    }
    if (own) {
      add<n>(own + c, up * normal);
      add<n>(own + in.channels + c, up);
    }
  }
  template <int n>
  static void add(W* to, const Numbers<n>& change) {
    Numbers<n> before;
    LayerRows<W>::template read<n>(to, before);
    before += change;
    LayerRows<W>::template write<n>(before, to);
  }
};
template <class W>
struct AddLayerWeights {  // one item per channel
  const W* sums;
  Index items, channels;
  W *gain_grad, *bias_grad;
  void operator()(Index c) const {
    double to_gain = 0, to_bias = 0;
    for (Index i = 0; i < items; ++i) {
      to_gain += double(sums[2 * i * channels + c]);
      to_bias += double(sums[(2 * i + 1) * channels + c]);
    }
    gain_grad[c] += W(to_gain), bias_grad[c] += W(to_bias);
  }
};

/// The same where threads are many and small: one item per voxel.
template <class T>
struct LayerNormVoxel {
  using W = Wide<T>;
  LayerInput<T> in;
  T* y;
  LayerMoments<W>* kept;
  SEGMED_HD void operator()(Index row) const {
    const Index begin = row * in.channels, end = begin + in.channels;
    W mean = 0, variance = 0;
    for (Index i = begin; i < end; ++i) mean += W(in.x[i]);
    mean /= W(in.channels);
    for (Index i = begin; i < end; ++i) variance += (W(in.x[i]) - mean) * (W(in.x[i]) - mean);
    const W inverse = W(1) / std::sqrt(variance / W(in.channels) + in.epsilon);
    for (Index i = begin; i < end; ++i)
      y[i] = T((W(in.x[i]) - mean) * inverse * in.gain[i - begin] + in.bias[i - begin]);
    if (kept) kept[row] = {mean, inverse};
  }
};
template <class T>
struct LayerNormVoxelPull {
  using W = Wide<T>;
  LayerInput<T> in;
  const LayerMoments<W>* kept;
  const T* g;
  Additions<T> gx;
  SEGMED_HD void operator()(Index row) const {
    const Index begin = row * in.channels, end = begin + in.channels;
    const LayerMoments<W> of = kept[row];
    W level = 0, tilt = 0;
    for (Index i = begin; i < end; ++i) {
      const W up = W(g[i]) * in.gain[i - begin];
      level += up, tilt += up * (W(in.x[i]) - of.mean) * of.inverse;
    }
    level /= W(in.channels), tilt /= W(in.channels);
    for (Index i = begin; i < end; ++i)
      gx.add(i, of.inverse * (W(g[i]) * in.gain[i - begin] - level -
                              tilt * (W(in.x[i]) - of.mean) * of.inverse));
  }
};
/// The gradients of gain and bias: a segment is a channel, an item a voxel.
template <class T>
struct LayerWeightSums {
  const T *x, *g;
  const LayerMoments<Wide<T>>* kept;
  Index channels;
  SEGMED_HD void operator()(Index c, Index row, double* sums) const {
    using W = Wide<T>;
    const W up = W(g[row * channels + c]), away = W(x[row * channels + c]) - kept[row].mean;
    sums[0] += double(up * (away * kept[row].inverse));
    sums[1] += double(up);
  }
};
template <class W>
struct AddLayerSums {  // one item per channel
  const double* sums;
  W *gain_grad, *bias_grad;
  SEGMED_HD void operator()(Index c) const {
    gain_grad[c] += W(sums[2 * c]), bias_grad[c] += W(sums[2 * c + 1]);
  }
};

/// (x - mean) / deviation * gain + bias over the channels of each voxel by itself. Keeps its input
/// and two numbers per voxel.
///
///   shapes   input and result (N, spatial..., C); gain and bias C
///   throws   ShapeError when they do not fit, ConfigError unless epsilon is above 0
///   source   Ba et al., 2016, arXiv:1607.06450, eq. 4, per voxel as in transformers
template <FeatureMap F>
F layer_norm(const F& input, const typename F::P& gain, const typename F::P& bias,
             double epsilon = 1e-5) {
  using T = typename F::value_type;
  using W = typename F::Wide;
  using D = typename F::device;
  constexpr bool by_rows = std::same_as<D, Cpu>;
  const F x = value(input);
  const Grid grid = x.grid();
  const Index channels = grid.channels;
  require(gain.size() == channels && bias.size() == channels, "layer_norm", "input ", grid,
          " takes ", channels, " gains and biases, not ", gain.size(), " and ", bias.size());
  require<ConfigError>(epsilon > 0, "layer_norm", "epsilon ", epsilon, " is not above 0");
  const bool weights = gain.trained();
  F y(grid, x.tracked() || weights);
  Storage<LayerMoments<W>, D> kept(y.tracked() ? grid.rows() : 0, Uninitialized{});
  const LayerInput<T> in{x.data(),   gain.value().read(), bias.value().read(),
                         W(epsilon), grid.rows(),         channels};
  LayerMoments<W>* const moments = y.tracked() ? kept.write() : nullptr;
  if constexpr (by_rows) {
    const LayerRows<T> rows{in};
    D::launch_blocks(rows.items(), LayerNormKernel<T>{rows, y.mutable_data(), moments});
  } else {
    D::launch(in.rows, LayerNormVoxel<T>{in, y.mutable_data(), moments});
  }
  const auto pull = [x, in, kept, weights, gain = gain.state(), bias = bias.state()](const T* g) {
    LayerInput<T> now = in;
    now.gain = gain->value.read();
    const Additions<T> gx = x.tracked() ? x.gradient_additions() : Additions<T>{};
    const Index count = in.channels;
    if constexpr (by_rows) {
      const LayerRows<T> rows{now};
      Storage<W, D> sums(weights ? 2 * rows.items() * count : 0, Uninitialized{});
      W* const to = weights ? sums.write() : nullptr;
      D::launch_blocks(rows.items(), LayerNormPull<T>{rows, kept.read(), g, gx, to});
      if (weights)
        D::launch_blocks(count, AddLayerWeights<W>{sums.read(), rows.items(), count,
                                                   gain->grad.write(), bias->grad.write()});
    } else {
      if (gx.to) D::launch(in.rows, LayerNormVoxelPull<T>{now, kept.read(), g, gx});
      if (!weights) return;
      const auto sums =
          reduce<D>(count, in.rows, 2, LayerWeightSums<T>{in.x, g, kept.read(), count});
      D::launch(count, AddLayerSums<W>{sums.read(), gain->grad.write(), bias->grad.write()});
    }
  };
  record_dense(y, weights ? Uses{gain.state(), bias.state()} : Uses{}, pull);
  return y;
}

}  // namespace segmed
