// SPDX-License-Identifier: Apache-2.0
// Changes of feature maps that what reads them shall not mind.
#pragma once
#include <vector>

#include <segmed/autograd/pointwise.hpp>

namespace segmed {

namespace math {

struct Noise {
  static constexpr bool straight = true;
  Philox random;
  float deviation;
  template <class W>
  SEGMED_HD W operator()(W x, Index i) const {
    return x + W(deviation * random.normal(i));
  }
  template <class W>
  SEGMED_HD W slope(W, Index) const {
    return 1;
  }
};
/// Noise that is never stronger than `limit`.
struct LimitedNoise {
  static constexpr bool straight = true;
  Philox random;
  float deviation, limit;
  template <class W>
  SEGMED_HD W operator()(W x, Index i) const {
    const float drawn = deviation * random.normal(i), below = drawn < limit ? drawn : limit;
    return x + W(below > -limit ? below : -limit);
  }
  template <class W>
  SEGMED_HD W slope(W, Index) const {
    return 1;
  }
};
/// x (1 + u) with u uniform between -range and range, one draw per element.
struct FeatureNoise {
  Philox random;
  float range;
  template <class W>
  SEGMED_HD W slope(W, Index i) const {
    return W(1) + W(random.uniform(i, -range, range));
  }
  template <class W>
  SEGMED_HD W operator()(W x, Index i) const {
    return x * slope(x, i);
  }
};

}  // namespace math

/// Gaussian noise, in the units of the image as the network sees it.
template <FeatureMap F>
F add_noise(const F& x, float deviation) {
  return map(math::Noise{Draws::next(Purpose::noise, x.grid().size()), deviation}, x);
}
/// The same, cut off at plus and minus `limit`.
template <FeatureMap F>
F add_noise(const F& x, float deviation, float limit) {
  return map(math::LimitedNoise{Draws::next(Purpose::noise, x.grid().size()), deviation, limit}, x);
}

/// Adds to every element a random part of itself, between -range and range times it.
///
///   source   Ouali et al., 2020, arXiv:2003.09005, F-Noise; drawn for each case by itself
template <FeatureMap F>
F feature_noise(const F& x, float range) {
  return map(math::FeatureNoise{Draws::next(Purpose::noise, x.grid().size()), range}, x);
}

template <class T>
struct AttentionKernel {  // one item per voxel: the mean over its channels
  const T* x;
  Index channels;
  Wide<T>* out;
  SEGMED_HD void operator()(Index row) const {
    Wide<T> sum = 0;
    for (Index i = row * channels; i < (row + 1) * channels; ++i) sum += Wide<T>(x[i]);
    out[row] = sum / Wide<T>(channels);
  }
};
template <class W>
struct HighestKernel {  // one item per block of a segment
  static constexpr Index block = 2048;
  const W* x;
  Index size, blocks;  // of a segment
  W* out;
  SEGMED_HD void operator()(Index i) const {
    const Index first = i % blocks * block, last = first + block < size ? first + block : size;
    const W* const from = x + i / blocks * size;
    W top = from[first];
    for (Index k = first + 1; k < last; ++k) top = from[k] > top ? from[k] : top;
    out[i] = top;
  }
};
template <class W>
struct ThresholdKernel {  // one item per case
  const W* highest;
  Index blocks;
  Philox random;
  float low, high;
  W* out;
  SEGMED_HD void operator()(Index n) const {
    W top = highest[n * blocks];
    for (Index b = 1; b < blocks; ++b)
      top = highest[n * blocks + b] > top ? highest[n * blocks + b] : top;
    out[n] = top * W(random.uniform(n, low, high));
  }
};
/// Voxels below their case's threshold: what both passes of the dropout ask.
template <class W>
struct BelowThreshold {
  const W *attention, *threshold;
  Index voxels;
  SEGMED_HD bool operator()(Index row) const { return attention[row] < threshold[row / voxels]; }
};
template <class T>
struct KeepKernel {
  BelowThreshold<Wide<T>> keep;
  const T* x;
  Index channels;
  T* y;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index i = row * channels + c;
    y[i] = keep(row) ? x[i] : T(Wide<T>(0));
  }
};
template <class T>
struct KeepPull {
  BelowThreshold<Wide<T>> keep;
  const T* g;
  Index channels;
  T* gx;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index i = row * channels + c;
    if (keep(row)) gx[i] = T(Wide<T>(gx[i]) + Wide<T>(g[i]));
  }
};
/// Zeroes the voxels that stand out most: those whose mean over the channels reaches the case's
/// highest times a factor, drawn per case between `low` and `high`. Nothing is scaled up.
///
///   source   Ouali et al., 2020, arXiv:2003.09005, F-Drop; one factor per case, not per batch
template <FeatureMap F>
F attention_dropout(const F& input, float low, float high) {
  using T = typename F::value_type;
  using W = typename F::Wide;
  using D = typename F::device;
  require<ConfigError>(low <= high, "attention_dropout", "factors from ", low, " to ", high);
  const F x = value(input);
  const Grid grid = x.grid();
  const Index block = HighestKernel<W>::block, blocks = (grid.voxels() + block - 1) / block;
  Storage<W, D> attention(grid.rows(), Uninitialized{}), threshold(grid.cases, Uninitialized{});
  Storage<W, D> highest(grid.cases * blocks, Uninitialized{});
  D::launch(grid.rows(), AttentionKernel<T>{x.data(), grid.channels, attention.write()});
  D::launch_blocks(grid.cases * blocks,
                   HighestKernel<W>{attention.read(), grid.voxels(), blocks, highest.write()});
  D::launch(grid.cases,
            ThresholdKernel<W>{highest.read(), blocks, Draws::next(Purpose::dropout, grid.cases),
                               low, high, threshold.write()});
  const BelowThreshold<W> keep{attention.read(), threshold.read(), grid.voxels()};
  F y(grid, x.tracked());
  D::launch_rows(grid.rows(), grid.channels,
                 KeepKernel<T>{keep, x.data(), grid.channels, y.mutable_data()});
  record_dense(y, {}, [=](const T* g) {
    D::launch_rows(grid.rows(), grid.channels,
                   KeepPull<T>{keep, g, grid.channels, x.gradient_to_add()});
    (void)attention, (void)threshold;  // `keep` points into them
  });
  return y;
}

template <class W>
struct DropFactors {  // one item per (case, channel)
  math::Drop drop;
  W* out;
  SEGMED_HD void operator()(Index i) const { out[i] = drop.slope(W(0), i); }
};
template <class T>
struct ScaleChannels {
  const Wide<T>* factor;  // per (case, channel)
  const T* x;
  Index voxels, channels;
  T* y;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index i = row * channels + c;
    y[i] = T(Wide<T>(x[i]) * factor[row / voxels * channels + c]);
  }
};
template <class T>
struct ScaleChannelsPull {
  const Wide<T>* factor;
  const T* g;
  Index voxels, channels;
  Additions<T> gx;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index i = row * channels + c;
    gx.add(i, factor[row / voxels * channels + c] * Wide<T>(g[i]));
  }
};
/// Zeroes whole channels of a case with probability `rate` while training, and scales the others
/// up.
template <FeatureMap F>
F channel_dropout(const F& x, float rate) {
  require<ConfigError>(rate >= 0 && rate < 1, "channel_dropout", "rate ", rate,
                       " is outside of [0, 1)");
  if (rate == 0 || !Mode::current().training) return x;
  using T = typename F::value_type;
  using D = typename F::device;
  const F from = value(x);
  const Grid grid = from.grid();
  // Drawn once, since all voxels of a channel ask for the same number.
  Storage<Wide<T>, D> factors(grid.cases * grid.channels, Uninitialized{});
  D::launch(
      factors.size(),
      DropFactors<Wide<T>>{{Draws::next(Purpose::dropout, factors.size()), rate}, factors.write()});
  F y(grid, from.tracked());
  D::launch_rows(grid.rows(), grid.channels,
                 ScaleChannels<T>{factors.read(), from.data(), grid.voxels(), grid.channels,
                                  y.mutable_data()});
  record_dense(y, {}, [=](const T* g) {
    D::launch_rows(grid.rows(), grid.channels,
                   ScaleChannelsPull<T>{factors.read(), g, grid.voxels(), grid.channels,
                                        from.gradient_additions()});
  });
  return y;
}
/// Channel dropout of every level of an encoder, each with draws of its own.
template <FeatureMap F>
std::vector<F> channel_dropout(const std::vector<F>& levels, float rate) {
  std::vector<F> spoilt;
  for (const F& level : levels) spoilt.push_back(channel_dropout(level, rate));
  return spoilt;
}

}  // namespace segmed
