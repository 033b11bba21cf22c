// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <concepts>
#include <limits>

#include <segmed/autograd/group.hpp>
#include <segmed/tensor/clock.hpp>
#include <segmed/tensor/reduce.hpp>

namespace segmed {

/// A plain struct whose `step` moves a group's values against their gradients by the clock's rate.
/// What it remembers lies in `group.state(k)`, where it is saved with the run; `rate` is the base
/// rate, which the run multiplies with its schedule and puts on the clock.
template <class O, class F>
concept OptimizerFor = requires(const O& optimizer, GroupOf<F>& group,
                                const Clock<typename F::device>& clock) {
  optimizer.step(group, clock);
  { optimizer.rate } -> std::convertible_to<float>;
};

// The factors of one step lie in double beside the weights, so that a compiler sees that no weight
// written can change them, and the loops below become vector code.

struct SgdFactors {
  const Ticks* ticks;
  double momentum, decay;
  double* out;
  SEGMED_HD void operator()(Index) const {
    out[0] = double(ticks->rate), out[1] = momentum, out[2] = decay;
  }
};
template <class W>
struct SgdKernel {
  const double* factors;
  const W* grad;
  W *value, *momentum;
  bool nesterov;
  SEGMED_HD void operator()(Index i) const {
    const W rate = W(factors[0]), keep = W(factors[1]), decay = W(factors[2]);
    const W g = grad[i] + decay * value[i];
    const W m = keep * momentum[i] + g;
    momentum[i] = m;
    value[i] -= rate * (nesterov ? g + keep * m : m);
  }
};

/// Stochastic gradient descent with momentum; the defaults are nnU-Net's.
///
///   source   Sutskever et al., On the importance of initialization and momentum, ICML 2013, as
///            PyTorch writes it: decay added to the gradient, no dampening
struct Sgd {
  float rate = 1e-2f, momentum = 0.99f, decay = 3e-5f;
  bool nesterov = true;

  template <class W, Device D>
  void step(Group<W, D>& group, const Clock<D>& clock) const {
    require<Error>(group.role == Role::trained, "Sgd", "a group of frozen weights has no step");
    Storage<double, D> factors(3, Uninitialized{});
    D::launch(1, SgdFactors{clock.ticks(), double(momentum), double(decay), factors.write()});
    D::launch(group.values.size(),
              SgdKernel<W>{factors.read(), group.grads.read(), group.values.write(),
                           group.state(0).write(), nesterov});
  }
};

struct AdamWFactors {
  const Ticks* ticks;
  double beta1, beta2, decay;
  double* out;
  SEGMED_HD void operator()(Index) const {
    const double t = double(ticks->step) + 1, rate = double(ticks->rate);
    out[0] = rate / (1 - std::pow(beta1, t));
    out[1] = std::sqrt(1 - std::pow(beta2, t));
    out[2] = 1 - rate * decay;
    out[3] = beta1, out[4] = 1 - beta1;
    out[5] = beta2, out[6] = 1 - beta2;
  }
};
template <class W>
struct AdamWKernel {
  const double* factors;
  double epsilon;
  const W* grad;
  W *value, *mean, *square;
  SEGMED_HD void operator()(Index i) const {
    const W g = grad[i];
    const W m = W(factors[3]) * mean[i] + W(factors[4]) * g;
    const W s = W(factors[5]) * square[i] + W(factors[6]) * g * g;
    mean[i] = m, square[i] = s;
    value[i] =
        W(factors[2]) * value[i] - W(factors[0]) * m / (std::sqrt(s) / W(factors[1]) + W(epsilon));
  }
};

/// Adam whose weight decay does not pass through the moments.
///
///   source   Loshchilov & Hutter, Decoupled weight decay regularization, 2019, arXiv:1711.05101,
///            algorithm 2, the decay multiplied with the rate as in PyTorch
struct AdamW {
  float rate = 1e-3f, beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f, decay = 1e-2f;

  template <class W, Device D>
  void step(Group<W, D>& group, const Clock<D>& clock) const {
    require<Error>(group.role == Role::trained, "AdamW", "a group of frozen weights has no step");
    Storage<double, D> factors(7, Uninitialized{});
    D::launch(1, AdamWFactors{clock.ticks(), double(beta1), double(beta2), double(decay),
                              factors.write()});
    D::launch(group.values.size(),
              AdamWKernel<W>{factors.read(), double(epsilon), group.grads.read(),
                             group.values.write(), group.state(0).write(), group.state(1).write()});
  }
};

template <class W>
struct SquareKernel {
  const W* x;
  SEGMED_HD void operator()(Index, Index i, double* sums) const {
    sums[0] += double(x[i]) * double(x[i]);
  }
};
template <class W>
struct MultiplyInto {
  double factor;
  W* x;
  SEGMED_HD void operator()(Index i) const { x[i] *= W(factor); }
};

/// Scales the gradients of a group down to at most `max_norm` and returns the norm that they had.
/// Where one is infinite or no number, the norm is not finite and all gradients become zero; see
/// `update`, which leaves such a step out. Waits for the device.
///
///   throws   ConfigError when max_norm is not positive; give infinity to clip nothing
///   source   Pascanu et al., On the difficulty of training recurrent neural networks, 2013,
///            arXiv:1211.5063, algorithm 1, over all parameters together
template <class W, Device D>
double clip_gradients(Group<W, D>& group, double max_norm) {
  require<ConfigError>(max_norm > 0, "clip_gradients", "max_norm is ", max_norm,
                       "; give a positive number");
  const Index size = group.grads.size();
  const double square = reduce<D>(1, size, 1, SquareKernel<W>{group.grads.read()}).host()[0];
  const double norm = std::sqrt(square);
  if (!std::isfinite(norm))
    group.clear_grads();
  else if (norm > max_norm)
    D::launch(size, MultiplyInto<W>{max_norm / norm, group.grads.write()});
  return norm;
}

/// One step with clipped gradients; returns their norm. A norm that is not finite means that
/// nothing happened: weights and the optimizer's state are what they were.
template <class O, class W, Device D>
double update(const O& optimizer, Group<W, D>& group, const Clock<D>& clock,
              double max_norm = std::numeric_limits<double>::infinity()) {
  const double norm = clip_gradients(group, max_norm);
  if (std::isfinite(norm)) optimizer.step(group, clock);
  return norm;
}

/// An average over the steps, which is often better than the weights of the last one. It follows
/// quickly at first, by min(keep, (1 + t) / (10 + t)) at step t, and so needs no state of its own.
///
///   source   Polyak & Juditsky, 1992; warm-up as in TensorFlow's ExponentialMovingAverage
struct WeightAverage {
  float keep = 0.999f;

  double keep_at(Index step) const {
    return std::min(double(keep), double(1 + step) / double(10 + step));
  }
  /// Moves `average` towards `now`, running statistics included.
  template <Module M>
  void follow(Frozen<M>& average, const M& now, Index step) const {
    ema(average, now, keep_at(step));
  }
};

}  // namespace segmed
