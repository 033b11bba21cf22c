// SPDX-License-Identifier: Apache-2.0
// Element by element: a named functor carries a value and its slope, and runs on every device.
#pragma once
#include <segmed/autograd/features.hpp>
#include <segmed/core/clock.hpp>

namespace segmed {

/// Whether f.slope(x, i) is the same for all x, as `Math::straight` says.
template <class Math>
inline constexpr bool is_straight = requires {
  requires Math::straight;
};
template <class T, class Math>
struct MapKernel {
  Math f;
  const T* x;
  Index channels;
  T* y;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index i = row * channels + c;
    y[i] = T(f(Wide<T>(x[i]), i));
  }
};
template <class T, class Math>
struct MapPull {
  Math f;
  const T *x, *g;
  Index channels;
  Additions<T> gx;
  SEGMED_HD void operator()(Index row, Index c) const { columns<1>(row, c); }
  template <int n>
  SEGMED_HD void columns(Index row, Index c) const {
    const Index first = row * channels + c;
    Wide<T> slope[n];
    for (int k = 0; k < n; ++k)
      slope[k] = f.slope(read(first + k), first + k) * Wide<T>(g[first + k]);
    gx.add(first, slope);
  }
  SEGMED_HD Wide<T> read(Index i) const { return is_straight<Math> ? Wide<T>(0) : Wide<T>(x[i]); }
};

/// y = f(x): f(x, i) is the value of element i, f.slope(x, i) its derivative.
template <class Math, FeatureMap F>
F map(Math f, const F& input) {
  using T = typename F::value_type;
  using D = typename F::device;
  const F x = value(input);
  const Grid grid = x.grid();
  F y(grid, x.tracked());
  // Elements in rows that are long enough for vectors, also where there are few channels.
  Index rows = grid.rows(), columns = grid.channels;
  while (columns < 512 && rows > 1 && rows % 2 == 0) rows /= 2, columns *= 2;
  D::launch_rows(rows, columns, MapKernel<T, Math>{f, x.data(), columns, y.mutable_data()});
  if constexpr (is_straight<Math>) forget(input, x);
  record_dense(y, {}, [=](const T* g) {
    D::launch_rows(grid.rows(), grid.channels,
                   MapPull<T, Math>{f, x.data(), g, grid.channels, x.gradient_additions()});
  });
  return y;
}

template <class T, class Math>
struct ZipKernel {
  Math f;
  const T *a, *b;
  Index channels;
  T* y;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index i = row * channels + c;
    y[i] = T(f(Wide<T>(a[i]), Wide<T>(b[i])));
  }
};
template <class T, class Math>
struct ZipPull {
  Math f;
  const T *a, *b, *g;
  Index channels;
  Additions<T> ga, gb;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index i = row * channels + c;
    const Wide<T> x = Wide<T>(a[i]), y = Wide<T>(b[i]), up = Wide<T>(g[i]);
    if (ga.to) ga.add(i, f.first_slope(x, y) * up);
    if (gb.to) gb.add(i, f.second_slope(x, y) * up);
  }
};
/// y = f(a, b), with derivatives f.first_slope(a, b) and f.second_slope(a, b).
template <class Math, FeatureMap F>
F zip(Math f, const F& first, const F& second) {
  using T = typename F::value_type;
  using D = typename F::device;
  const F a = value(first), b = value(second);
  const Grid grid = a.grid();
  require(grid == b.grid(), "zip", "shapes differ: ", grid, " and ", b.grid());
  F y(grid, a.tracked() || b.tracked());
  D::launch_rows(grid.rows(), grid.channels,
                 ZipKernel<T, Math>{f, a.data(), b.data(), grid.channels, y.mutable_data()});
  record_dense(y, {}, [=](const T* g) {
    D::launch_rows(grid.rows(), grid.channels,
                   ZipPull<T, Math>{f, a.data(), b.data(), g, grid.channels,
                                    a.tracked() ? a.gradient_additions() : Additions<T>{},
                                    b.tracked() ? b.gradient_additions() : Additions<T>{}});
  });
  return y;
}

namespace math {

struct Scale {
  static constexpr bool straight = true;
  double factor, offset = 0;
  template <class W>
  SEGMED_HD W operator()(W x, Index) const {
    return W(factor) * x + W(offset);
  }
  template <class W>
  SEGMED_HD W slope(W, Index) const {
    return W(factor);
  }
};
struct Exp {
  template <class W>
  SEGMED_HD W operator()(W x, Index) const {
    return std::exp(x);
  }
  template <class W>
  SEGMED_HD W slope(W x, Index) const {
    return std::exp(x);
  }
};
struct Log {
  template <class W>
  SEGMED_HD W operator()(W x, Index) const {
    return std::log(x);
  }
  template <class W>
  SEGMED_HD W slope(W x, Index) const {
    return W(1) / x;
  }
};
struct Sigmoid {
  template <class W>
  SEGMED_HD W operator()(W x, Index) const {
    return W(1) / (W(1) + std::exp(-x));
  }
  template <class W>
  SEGMED_HD W slope(W x, Index i) const {
    const W y = (*this)(x, i);
    return y * (W(1) - y);
  }
};
struct Tanh {
  template <class W>
  SEGMED_HD W operator()(W x, Index) const {
    return std::tanh(x);
  }
  template <class W>
  SEGMED_HD W slope(W x, Index) const {
    const W y = std::tanh(x);
    return W(1) - y * y;
  }
};
/// x * sigmoid(x).
struct Silu {
  template <class W>
  SEGMED_HD W operator()(W x, Index i) const {
    return x * Sigmoid{}(x, i);
  }
  template <class W>
  SEGMED_HD W slope(W x, Index i) const {
    const W s = Sigmoid{}(x, i);
    return s * (W(1) + x * (W(1) - s));
  }
};
/// x times the normal distribution function, exactly (no tanh approximation).
struct Gelu {
  template <class W>
  SEGMED_HD static W below(W x) {
    return W(0.5) * (W(1) + std::erf(x * W(0.70710678118654752)));
  }
  template <class W>
  SEGMED_HD W operator()(W x, Index) const {
    return x * below(x);
  }
  template <class W>
  SEGMED_HD W slope(W x, Index) const {
    return below(x) + x * W(0.39894228040143268) * std::exp(W(-0.5) * x * x);
  }
};
struct Subtract {
  template <class W>
  SEGMED_HD W operator()(W a, W b) const {
    return a - b;
  }
  template <class W>
  SEGMED_HD W first_slope(W, W) const {
    return 1;
  }
  template <class W>
  SEGMED_HD W second_slope(W, W) const {
    return -1;
  }
};
struct Multiply {
  template <class W>
  SEGMED_HD W operator()(W a, W b) const {
    return a * b;
  }
  template <class W>
  SEGMED_HD W first_slope(W, W b) const {
    return b;
  }
  template <class W>
  SEGMED_HD W second_slope(W a, W) const {
    return a;
  }
};
struct Divide {
  template <class W>
  SEGMED_HD W operator()(W a, W b) const {
    return a / b;
  }
  template <class W>
  SEGMED_HD W first_slope(W, W b) const {
    return W(1) / b;
  }
  template <class W>
  SEGMED_HD W second_slope(W a, W b) const {
    return -a / (b * b);
  }
};
/// Keeps an element with probability 1 - rate. The pull draws the mask again; it is stored nowhere.
struct Drop {
  static constexpr bool straight = true;
  Philox random;
  float rate;
  template <class W>
  SEGMED_HD W slope(W, Index i) const {
    return random.uniform(i) < rate ? W(0) : W(1 / (1 - rate));
  }
  template <class W>
  SEGMED_HD W operator()(W x, Index i) const {
    return x * slope(x, i);
  }
};

}  // namespace math

template <FeatureMap F>
F operator-(const F& a, const F& b) {
  return zip(math::Subtract{}, a, b);
}
template <FeatureMap F>
F operator*(const F& a, const F& b) {
  return zip(math::Multiply{}, a, b);
}
template <FeatureMap F>
F operator/(const F& a, const F& b) {
  return zip(math::Divide{}, a, b);
}
/// factor * x + offset.
template <FeatureMap F>
F scaled(const F& x, double factor, double offset = 0) {
  return map(math::Scale{factor, offset}, x);
}

template <class T>
struct WhereKernel {
  const T *condition, *a, *b;
  Index channels;
  T* y;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index i = row * channels + c;
    y[i] = Wide<T>(condition[i]) != 0 ? a[i] : b[i];
  }
};
template <class T>
struct WherePull {
  const T *condition, *g;
  Index channels;
  T *ga, *gb;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index i = row * channels + c;
    T* into = Wide<T>(condition[i]) != 0 ? ga : gb;
    if (into) into[i] = T(Wide<T>(into[i]) + Wide<T>(g[i]));
  }
};
/// a where the condition is not zero, b elsewhere. The condition gets no gradient.
template <FeatureMap F>
F where(const F& condition, const F& first, const F& second) {
  using T = typename F::value_type;
  using D = typename F::device;
  const F chosen = detach(condition), a = value(first), b = value(second);
  const Grid grid = a.grid();
  require(grid == b.grid() && grid == chosen.grid(), "where", "shapes differ: ", chosen.grid(),
          ", ", grid, " and ", b.grid());
  F y(grid, a.tracked() || b.tracked());
  D::launch_rows(
      grid.rows(), grid.channels,
      WhereKernel<T>{chosen.data(), a.data(), b.data(), grid.channels, y.mutable_data()});
  record_dense(y, {}, [=](const T* g) {
    D::launch_rows(
        grid.rows(), grid.channels,
        WherePull<T>{chosen.data(), g, grid.channels, a.tracked() ? a.gradient_to_add() : nullptr,
                     b.tracked() ? b.gradient_to_add() : nullptr});
  });
  return y;
}

/// Zeroes elements with probability `rate` while training, and scales the others up.
template <FeatureMap F>
F dropout(const F& x, float rate) {
  require<ConfigError>(rate >= 0 && rate < 1, "dropout", "rate ", rate, " is outside of [0, 1)");
  if (rate == 0 || !Mode::current().training) return x;
  return map(math::Drop{Draws::next(Purpose::dropout, x.grid().size()), rate}, x);
}
template <class T>
struct SoftmaxKernel {  // one item per voxel
  const T* x;
  T* y;
  Index classes;
  SEGMED_HD void operator()(Index row) const {
    using W = Wide<T>;
    const T* z = x + row * classes;
    T* p = y + row * classes;
    W top = W(z[0]), sum = 0;
    for (Index c = 1; c < classes; ++c) top = W(z[c]) > top ? W(z[c]) : top;
    for (Index c = 0; c < classes; ++c) {
      const W e = std::exp(W(z[c]) - top);
      p[c] = T(e), sum += e;
    }
    for (Index c = 0; c < classes; ++c) p[c] = T(W(p[c]) / sum);
  }
};
template <class T>
struct SoftmaxPull {
  const T *y, *g;
  Index classes;
  Additions<T> gx;
  SEGMED_HD void operator()(Index row) const {
    using W = Wide<T>;
    W mean = 0;
    for (Index i = row * classes; i < (row + 1) * classes; ++i) mean += W(y[i]) * W(g[i]);
    for (Index i = row * classes; i < (row + 1) * classes; ++i)
      gx.add(i, W(y[i]) * (W(g[i]) - mean));
  }
};
/// Probabilities over the channels of each voxel.
template <FeatureMap F>
F softmax(const F& logits) {
  using T = typename F::value_type;
  using D = typename F::device;
  const F x = value(logits);
  const Grid grid = x.grid();
  F y(grid, x.tracked());
  D::launch(grid.rows(), SoftmaxKernel<T>{x.data(), y.mutable_data(), grid.channels});
  forget(logits, x);
  record_dense(y, {}, [x, grid, out = y.dense().value](const T* g) {
    D::launch(grid.rows(), SoftmaxPull<T>{out.read(), g, grid.channels, x.gradient_additions()});
  });
  return y;
}

}  // namespace segmed
