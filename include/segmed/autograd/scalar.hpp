// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/features.hpp>
#include <segmed/tensor/gather.hpp>
#include <segmed/tensor/reduce.hpp>

namespace segmed {

/// One number on the tape: a loss. The empty one is zero and costs nothing.
template <FeatureMap F>
class Scalar {
 public:
  using W = typename F::Wide;
  using D = typename F::device;
  Scalar() = default;
  explicit Scalar(bool tracked) : node_(std::make_shared<Node>()) {
    node_->tracked = tracked && Mode::current().record;
  }
  explicit operator bool() const { return node_ != nullptr; }
  bool tracked() const { return node_ && node_->tracked; }
  Storage<W, D>& value() const { return node_->value; }
  Storage<W, D>& grad() const { return node_->grad; }
  /// The number itself; waits for the device.
  double host() const { return node_ ? double(value().host()[0]) : 0; }

 private:
  struct Node {
    Storage<W, D> value{1}, grad;
    bool tracked = false;
  };
  std::shared_ptr<Node> node_;
};

/// Records the pull of a scalar; `pull(gradient)` gets a device pointer to it.
template <FeatureMap F, class Pull>
void record_scalar(const Scalar<F>& y, Pull pull) {
  if (!y.tracked()) return;
  record({}, [y, pull] {
    if (!y.grad().empty()) pull(y.grad().read());
  });
}

/// Gradients of everything that led to `loss`, added where they belong. Consumes the tape.
template <FeatureMap F>
void backward(const Scalar<F>& loss, const OnReady& on_ready = {}) {
  require<Error>(loss.tracked() && Tape::current()->size() > 0, "backward",
                 "nothing that is trained led to this loss");
  loss.grad() = Storage<typename F::Wide, typename F::device>(1, 1);
  Tape::current()->pull_all(on_ready);
}

/// A weight that does not change.
struct FixedWeight {
  float weight;
  SEGMED_HD float operator()() const { return weight; }
};
/// A weight that kernels look up when they run.
template <class W>
concept WeightFactor = requires(const W& factor) {
  { factor() } -> std::same_as<float>;
};
template <class Factor, class W>
struct ScaleInto {
  Factor factor;
  W* into;
  const W* from;
  SEGMED_HD void operator()(Index) const { *into += W(factor()) * *from; }
};
/// A weight times a loss; the factor is looked up on the device, forward and backward.
template <WeightFactor Factor, FeatureMap F>
Scalar<F> operator*(Factor factor, const Scalar<F>& x) {
  using W = typename F::Wide;
  if (!x) return x;
  Scalar<F> y(x.tracked());
  F::device::launch(1, ScaleInto<Factor, W>{factor, y.value().write(), x.value().read()});
  record_scalar(y, [=](const W* g) {
    F::device::launch(1, ScaleInto<Factor, W>{factor, x.grad().or_zeros(1).write(), g});
  });
  return y;
}
template <FeatureMap F>
Scalar<F> operator*(float weight, const Scalar<F>& x) {
  return FixedWeight{weight} * x;
}
template <FeatureMap F>
Scalar<F> operator+(const Scalar<F>& a, const Scalar<F>& b) {
  if (!a || !b) return a ? a : b;
  Scalar<F> y(a.tracked() || b.tracked());
  y.value().add(a.value());
  y.value().add(b.value());
  record_scalar(y, [=](const auto*) {
    for (const auto* x : {&a, &b})
      if (x->tracked()) x->grad().or_zeros(1).add(y.grad());
  });
  return y;
}

template <class W>
struct StoreSum {
  const double* sum;
  double divisor;
  W* out;
  SEGMED_HD void operator()(Index) const { *out = W(*sum / divisor); }
};
template <class T, class Math>
struct MeanKernel {
  Math f;
  const T *a, *b;
  Index channels;
  SEGMED_HD void operator()(Index, Index row, double* sums) const {
    double total = 0;
    for (Index i = row * channels; i < (row + 1) * channels; ++i)
      total += double(f(Wide<T>(a[i]), b ? Wide<T>(b[i]) : Wide<T>(0)));
    sums[0] += total;
  }
};
template <class T, class Math>
struct MeanPull {
  Math f;
  const T *a, *b;
  double size;
  const Wide<T>* g;
  Index channels;
  T *ga, *gb;
  SEGMED_HD void operator()(Index row, Index c) const {
    using W = Wide<T>;
    const Index i = row * channels + c;
    const W x = W(a[i]), y = b ? W(b[i]) : W(0), up = W(double(*g) / size);
    if (ga) ga[i] = T(W(ga[i]) + up * f.first_slope(x, y));
    if (gb) gb[i] = T(W(gb[i]) + up * f.second_slope(x, y));
  }
};
/// The mean over all elements of f(a, b), with its two derivatives; without b, f(a, 0). Where ranks
/// train together, of the elements of all.
template <class Math, FeatureMap F>
Scalar<F> mean_of(Math f, const F& first, const F* second) {
  using T = typename F::value_type;
  using W = typename F::Wide;
  using D = typename F::device;
  const F a = value(first), b = second ? value(*second) : F();
  const Grid grid = a.grid();
  if (second) require(grid == b.grid(), "mean_of", "shapes differ: ", grid, " and ", b.grid());
  const bool to_second = second && b.tracked();
  Scalar<F> y(a.tracked() || to_second);
  const T* other = second ? b.data() : nullptr;
  const auto sum = over_ranks(
      reduce<D>(1, grid.rows(), 1, MeanKernel<T, Math>{f, a.data(), other, grid.channels}));
  const double size = double(grid.size() * Ranks::current().size());
  D::launch(1, StoreSum<W>{sum.read(), size, y.value().write()});
  record_scalar(y, [=](const W* g) {
    D::launch_rows(grid.rows(), grid.channels,
                   MeanPull<T, Math>{f, a.data(), other, size, g, grid.channels,
                                     a.tracked() ? a.gradient_to_add() : nullptr,
                                     to_second ? b.gradient_to_add() : nullptr});
    (void)b;  // `other` points into it
  });
  return y;
}

namespace math {

struct First {
  template <class W>
  SEGMED_HD W operator()(W a, W) const {
    return a;
  }
  template <class W>
  SEGMED_HD W first_slope(W, W) const {
    return 1;
  }
  template <class W>
  SEGMED_HD W second_slope(W, W) const {
    return 0;
  }
};
struct SquareDistance {
  double offset = 0;
  template <class W>
  SEGMED_HD W operator()(W a, W b) const {
    const W d = a - b - W(offset);
    return d * d;
  }
  template <class W>
  SEGMED_HD W first_slope(W a, W b) const {
    return 2 * (a - b - W(offset));
  }
  template <class W>
  SEGMED_HD W second_slope(W a, W b) const {
    return -first_slope(a, b);
  }
};

}  // namespace math

template <FeatureMap F>
Scalar<F> mean(const F& x) {
  return mean_of<math::First, F>({}, x, nullptr);
}
/// Mean squared difference; both sides receive a gradient unless they are constants.
template <FeatureMap F>
Scalar<F> mean_square(const F& a, const F& b) {
  return mean_of<math::SquareDistance, F>({}, a, &b);
}
/// Mean squared distance to one number.
template <FeatureMap F>
Scalar<F> mean_square(const F& a, double target) {
  return mean_of<math::SquareDistance, F>({target}, a, nullptr);
}

}  // namespace segmed
