// SPDX-License-Identifier: Apache-2.0
// Normalisation and the activations that fold into a view. None of them touches a voxel forward.
#pragma once
#include <segmed/autograd/features.hpp>
#include <segmed/backend/convolution.hpp>
#include <segmed/core/clock.hpp>
#include <segmed/tensor/gather.hpp>

namespace segmed {

template <class T>
struct SpreadKernel {  // one item per (case, channel)
  Lane<T> x;
  const T* seen;
  T* raw;
  double *scale_grad, *shift_grad, *slope_grad;
  SEGMED_HD void operator()(Index nc) const {
    double to_scale = 0, to_shift = 0, to_slope = 0;
    for (Index v = 0; v < x.grid.voxels(); ++v) {
      const At p{nc / x.grid.channels, v, nc % x.grid.channels};
      const Index i = x.grid.index(p);
      const Wide<T> g = Wide<T>(seen[i]), before = x.through_leak(p, g), z = x.before_leak(p);
      if (raw) raw[i] = T(Wide<T>(raw[i]) + x.through(p, g));
      to_scale += double(before) * double(x.raw(p));
      to_shift += double(before);
      if (!(z > 0)) to_slope += double(g) * double(z);
    }
    if (scale_grad) scale_grad[nc] += to_scale;
    if (shift_grad) shift_grad[nc] += to_shift;
    if (slope_grad) slope_grad[nc] += to_slope;
  }
};

/// Carries the gradient of what readers saw towards the raw tensor, and sums it for the pending
/// scale, shift and slope. The first view of a produced tensor writes no voxel: its producer will
/// read the gradient through the view. Nor does the first normalised view of a leaf: the
/// normalisation will.
template <class T, Device D>
void spread(const Source<T, D>& s) {
  if (s.plain() || s.grad->sum.empty()) return;
  Dense<T, D>& raw = *s.raw;
  const bool settled = s.affine && s.affine->settles && raw.grad->tracked;
  const bool defer = (raw.produced || settled) && !raw.deferred;
  if (defer) raw.deferred = s;
  const bool wanted = !defer && raw.grad->tracked, sums = s.affine || s.slopes;
  if (!wanted && !sums) return;
  const Grid grid = raw.grid;
  const Lane<T> lane = Features<3, T, D>::lane(raw, s);
  const T* seen = s.grad->sum.read();
  if (!sums) {
    Incoming<T> g;
    g.view = lane, g.seen = seen;
    Sink<T> sink;
    Features<3, T, D>::aim(sink, 0, grid, *raw.grad);
    return deposit<D>(grid, g, sink);
  }
  T* into = wanted ? raw.grad->sum.or_zeros(grid.size()).write() : nullptr;
  double *scale = nullptr, *shift = nullptr, *slope = nullptr;
  if (s.affine) {
    scale = s.affine->scale_grad.or_zeros(grid.pairs()).write();
    shift = s.affine->shift_grad.or_zeros(grid.pairs()).write();
  }
  if (s.slopes) slope = s.slopes->grad.or_zeros(grid.pairs()).write();
  if constexpr (HasRows<D, T>)
    D::spread(lane, seen, into, scale, shift, slope);
  else
    D::launch(grid.pairs(), SpreadKernel<T>{lane, seen, into, scale, shift, slope});
}
/// Adds what a leaf has deferred, and the gradient of its moments, to its gradient.
template <class T, Device D>
void settle(Dense<T, D>& leaf) {
  if (!leaf.deferred && leaf.moments_grad.empty()) return;
  Incoming<T> g;
  const View<T, D> untouched;
  const View<T, D>& view = leaf.deferred ? *leaf.deferred : untouched;
  g.view = Features<3, T, D>::lane(leaf, view);
  g.seen = leaf.deferred ? view.grad->sum.read() : nullptr;
  g.moments = leaf.moments_grad.read();
  Sink<T> sink;
  Features<3, T, D>::aim(sink, 0, leaf.grid, *leaf.grad);
  deposit<D>(leaf.grid, g, sink);
  leaf.moments_grad = {}, leaf.deferred = {};
}

/// ReLU (leak 0) or LeakyReLU: folds into the pending leak.
template <FeatureMap F>
F leaky_relu(const F& input, double leak) {
  require<ConfigError>(leak >= 0, "leaky_relu", "leak ", leak,
                       " would turn the sign; use map with a functor of your own");
  bool folds = true;
  for (const auto& s : input.sources()) folds &= !s.slopes;
  const F x = folds ? input : value(input);
  auto sources = x.sources();
  for (auto& s : sources) {
    s.leak *= typename F::Wide(leak);  // two in a row multiply, since both keep the sign
    s.grad = F::slot(s.grad->tracked);
  }
  const F y(std::move(sources));
  if (y.tracked())
    record({}, [y] {
      for (const auto& s : y.sources()) spread(s);
    });
  return pending(y);
}

template <class W>
struct RepeatKernel {  // one number, or one per channel, for each (case, channel)
  const W* from;
  Index size, channels, first;
  W* to;
  SEGMED_HD void operator()(Index nc) const {
    to[nc] = from[size == 1 ? 0 : first + nc % channels];
  }
};
template <class W>
struct SlopePull {  // one item per learned slope
  const double* grad;
  Index cases, channels, size, first;
  W* into;
  SEGMED_HD void operator()(Index i) const {
    double total = 0;
    for (Index nc = 0; nc < cases * channels; ++nc)
      if (size == 1 || first + nc % channels == i) total += grad[nc];
    into[i] += W(total);
  }
};

/// PReLU: a learned slope below zero, one in all or one per channel.
///
///   source   He et al., Delving deep into rectifiers, 2015, arXiv:1502.01852, eq. 1
template <FeatureMap F>
F prelu(const F& input, const typename F::P& slope) {
  using W = typename F::Wide;
  using D = typename F::device;
  bool folds = true;
  for (const auto& s : input.sources())  // a constant view of a tracked tensor stays one
    folds &= !s.slopes && s.leak == W(1) && (s.grad->tracked || !s.raw->grad->tracked);
  const F x = folds ? input : value(input);
  const Index channels = x.grid().channels;
  require(slope.size() == 1 || slope.size() == channels, "prelu", "input ", x.grid(),
          " takes 1 or ", channels, " slopes, not ", slope.size());
  const bool weights = slope.trained();
  auto sources = x.sources();
  Index first = 0;
  for (auto& s : sources) {
    const Grid grid = s.raw->grid;
    s.slopes = std::make_shared<Slopes<W, D>>();
    s.slopes->slope = Storage<W, D>(grid.pairs(), Uninitialized{});
    D::launch(grid.pairs(), RepeatKernel<W>{slope.value().read(), slope.size(), grid.channels,
                                            first, s.slopes->slope.write()});
    s.grad = F::slot(s.grad->tracked || weights);
    first += grid.channels;
  }
  const F y(std::move(sources));
  if (y.tracked())
    record(weights ? Uses{slope.state()} : Uses{}, [y, weights, slope = slope.state()] {
      Index at = 0;
      for (const auto& s : y.sources()) {
        spread(s);
        const Grid grid = s.raw->grid;
        const Index size = slope->value.size();
        if (weights && !s.slopes->grad.empty())
          D::launch(size, SlopePull<W>{s.slopes->grad.read(), grid.cases, grid.channels, size, at,
                                       slope->grad.write()});
        at += grid.channels;
      }
    });
  return pending(y);
}

/// Which (case, channel) pairs share a mean and a deviation.
struct NormSets {
  enum class Kind { instance, group, batch } kind = Kind::instance;
  Index cases = 1, channels = 1, groups = 1;

  SEGMED_HD Index members() const {
    return kind == Kind::instance ? 1 : kind == Kind::batch ? cases : channels / groups;
  }
  /// The k-th pair that shares the set of `pair`.
  SEGMED_HD Index member(Index pair, Index k) const {
    if (kind == Kind::instance) return pair;
    if (kind == Kind::batch) return k * channels + pair % channels;
    const Index width = channels / groups;
    return pair / width * width + k;
  }
};
struct MeanSpread {
  double mean, inverse;  // one over the deviation
};
/// The statistics that normalisation uses: of the batch, or the running ones.
template <class W>
struct NormStatistics {
  NormSets sets;
  const double* moments;
  Index voxels;
  double epsilon;
  const W *running_mean = nullptr, *running_variance = nullptr;  // set: per channel, constants

  SEGMED_HD MeanSpread operator()(Index pair) const {
    if (running_mean) {
      const Index c = pair % sets.channels;
      return {double(running_mean[c]), 1 / std::sqrt(double(running_variance[c]) + epsilon)};
    }
    const MeanSpread m = mean_variance(pair);
    return {m.mean, 1 / std::sqrt(m.inverse + epsilon)};
  }
  /// Mean and variance (in place of the inverse deviation).
  SEGMED_HD MeanSpread mean_variance(Index pair) const {
    double sum = 0, squares = 0;
    for (Index k = 0; k < sets.members(); ++k) {
      const Index m = 2 * sets.member(pair, k);
      sum += moments[m], squares += moments[m + 1];
    }
    const double count = double(voxels * sets.members()), mean = sum / count;
    const double variance = squares / count - mean * mean;
    return {mean, variance > 0 ? variance : 0};
  }
};
template <class W>
struct NormKernel {  // one item per (case, channel)
  NormStatistics<W> statistics;
  const W *gain, *bias;
  W *scale, *shift;
  SEGMED_HD void operator()(Index nc) const {
    const Index c = nc % statistics.sets.channels;
    const MeanSpread s = statistics(nc);
    const double slope = double(gain[c]) * s.inverse;
    scale[nc] = W(slope);
    shift[nc] = W(double(bias[c]) - s.mean * slope);
  }
};
template <class W>
struct NormGainPull {  // one item per channel
  NormStatistics<W> statistics;
  Index cases;  // of this rank
  const double *scale_grad, *shift_grad;
  W *gain_grad, *bias_grad;
  SEGMED_HD void operator()(Index c) const {
    double to_gain = 0, to_bias = 0;
    for (Index n = 0; n < cases; ++n) {
      const Index nc = n * statistics.sets.channels + c;
      const MeanSpread s = statistics(nc);
      to_gain += s.inverse * (scale_grad[nc] - s.mean * shift_grad[nc]);
      to_bias += shift_grad[nc];
    }
    gain_grad[c] += W(to_gain), bias_grad[c] += W(to_bias);
  }
};
template <class W>
struct NormMomentsPull {  // one item per (case, channel); touches no voxel
  NormStatistics<W> statistics;
  const W* gain;
  const double *scale_grad, *shift_grad;
  double* moments_grad;
  SEGMED_HD void operator()(Index nc) const {
    const MeanSpread s = statistics(nc);
    double to_inverse = 0, to_mean = 0;
    for (Index k = 0; k < statistics.sets.members(); ++k) {
      const Index m = statistics.sets.member(nc, k);
      const double g = double(gain[m % statistics.sets.channels]);
      to_inverse += g * (scale_grad[m] - s.mean * shift_grad[m]);
      to_mean -= shift_grad[m] * g * s.inverse;
    }
    const double to_variance = -0.5 * to_inverse * s.inverse * s.inverse * s.inverse;
    const double count = double(statistics.voxels * statistics.sets.members());
    moments_grad[2 * nc] += (to_mean - 2 * to_variance * s.mean) / count;
    moments_grad[2 * nc + 1] += to_variance / count;
  }
};
template <class W>
struct RunningKernel {  // one item per channel
  NormStatistics<W> statistics;
  double momentum;
  W *mean, *variance;
  SEGMED_HD void operator()(Index c) const {
    const MeanSpread m = statistics.mean_variance(c);
    const double count = double(statistics.voxels * statistics.sets.members());
    const double unbiased = count > 1 ? m.inverse * count / (count - 1) : m.inverse;
    mean[c] = W((1 - momentum) * double(mean[c]) + momentum * m.mean);
    variance[c] = W((1 - momentum) * double(variance[c]) + momentum * unbiased);
  }
};
/// The running mean and variance of batch normalisation.
template <class W, Device D>
struct Running {
  const Buffer<W, D>*mean = nullptr, *variance = nullptr;
  double momentum = 0.1;
};

/// (x - mean) / deviation * gain + bias over the sets of `kind`: turns moments into a pending scale
/// and shift, and reads no voxel if the producer summed the moments. Sets that span the batch span
/// the batches of all ranks that train together.
template <FeatureMap F>
F normalize(const F& input, NormSets sets, const typename F::P& gain, const typename F::P& bias,
            double epsilon, const Running<typename F::Wide, typename F::device>& running = {}) {
  using T = typename F::value_type;
  using W = typename F::Wide;
  using D = typename F::device;
  const F x = value(input);  // nobody summed the moments of pending values
  const Grid grid = x.grid();
  sets.cases = grid.cases, sets.channels = grid.channels;
  require(gain.size() == grid.channels && bias.size() == grid.channels, "normalize", "input ", grid,
          " takes ", grid.channels, " gains, not ", gain.size());
  require(sets.groups > 0 && grid.channels % sets.groups == 0, "normalize", sets.groups,
          " groups do not divide ", grid.channels, " channels");
  const bool fixed = running.mean && !Mode::current().training;
  const bool weights = gain.trained();
  Source<T, D> s = x.sources()[0];
  Dense<T, D>& raw = *s.raw;
  if (raw.moments.empty() && !fixed) {
    raw.moments = Storage<double, D>(2 * grid.pairs());
    const Lane<T> lane = F::lane(raw, s);
    if constexpr (HasRows<D, T>)
      D::moments(lane, raw.moments.write());
    else
      D::launch(grid.pairs(), ChannelMoments<T>{lane, raw.moments.write()});
  }
  s.affine = std::make_shared<ScaleShift<W, D>>();
  s.affine->scale = Storage<W, D>(grid.pairs(), Uninitialized{});
  s.affine->shift = Storage<W, D>(grid.pairs(), Uninitialized{});
  s.grad = F::slot(s.grad->tracked || weights);
  const bool shared = sets.kind == NormSets::Kind::batch && !fixed && !Ranks::current().alone();
  const Storage<double, D> moments = shared ? gathered(raw.moments) : raw.moments;
  if (shared) sets.cases *= Ranks::current().size();
  NormStatistics<W> statistics{sets, moments.read(), grid.voxels(), epsilon};
  if (running.mean && !fixed && Mode::current().record && !Mode::current().again)
    D::launch(grid.channels,
              RunningKernel<W>{statistics, running.momentum, running.mean->running().write(),
                               running.variance->running().write()});
  Storage<W, D> kept[2];  // the pull reads them, perhaps after the module is gone
  if (fixed) {
    kept[0] = running.mean->running(), kept[1] = running.variance->running();
    statistics.running_mean = running.mean->running().read();
    statistics.running_variance = running.variance->running().read();
  }
  D::launch(grid.pairs(), NormKernel<W>{statistics, gain.value().read(), bias.value().read(),
                                        s.affine->scale.write(), s.affine->shift.write()});
  const F y(std::vector<Source<T, D>>{s});
  if (!y.tracked()) return pending(y);
  s.affine->settles = true;
  record(weights ? Uses{gain.state(), bias.state()} : Uses{},
         [y, statistics, weights, fixed, shared, moments, mean = kept[0], variance = kept[1],
          gain = gain.state(), bias = bias.state()] {
           const auto& source = y.sources()[0];
           spread(source);
           auto& affine = *source.affine;
           if (affine.scale_grad.empty()) return;  // nobody read it
           const Grid on = source.raw->grid;
           if (weights)
             D::launch(on.channels, NormGainPull<W>{statistics, on.cases, affine.scale_grad.read(),
                                                    affine.shift_grad.read(), gain->grad.write(),
                                                    bias->grad.write()});
           Dense<T, D>& from = *source.raw;
           if (!from.grad->tracked) return;
           if (!fixed) {
             const auto scale = shared ? gathered(affine.scale_grad) : affine.scale_grad;
             const auto shift = shared ? gathered(affine.shift_grad) : affine.shift_grad;
             D::launch(on.pairs(), NormMomentsPull<W>{
                                       statistics, gain->value.read(), scale.read(), shift.read(),
                                       from.moments_grad.or_zeros(2 * on.pairs()).write()});
           }
           if (!from.produced) settle(from);
         });
  return pending(y);
}

/// Ulyanov et al., 2016, arXiv:1607.08022: each case and channel by itself.
template <FeatureMap F>
F instance_norm(const F& x, const typename F::P& gain, const typename F::P& bias,
                double epsilon = 1e-5) {
  return normalize(x, {.kind = NormSets::Kind::instance}, gain, bias, epsilon);
}
/// Wu & He, 2018, arXiv:1803.08494: channels of a case in groups.
template <FeatureMap F>
F group_norm(const F& x, Index groups, const typename F::P& gain, const typename F::P& bias,
             double epsilon = 1e-5) {
  return normalize(x, {.kind = NormSets::Kind::group, .groups = groups}, gain, bias, epsilon);
}
/// Ioffe & Szegedy, 2015, arXiv:1502.03167: each channel over the batch, or by running statistics.
template <FeatureMap F>
F batch_norm(const F& x, const typename F::P& gain, const typename F::P& bias,
             const Running<typename F::Wide, typename F::device>& running = {},
             double epsilon = 1e-5) {
  return normalize(x, {.kind = NormSets::Kind::batch}, gain, bias, epsilon, running);
}

}  // namespace segmed
