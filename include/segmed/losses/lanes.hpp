// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <type_traits>

#include <segmed/backend/cpu.hpp>
#include <segmed/core/elementary.hpp>

namespace segmed {

/// One number of each of n neighbouring voxels. Code that is written for a number does n of them at
/// once with it: every operation is a loop of known length, which becomes vector instructions.
template <class W, int n>
struct Lanes {
  W at[n];

  Lanes() = default;
  SEGMED_HD Lanes(W all) {
    for (int v = 0; v < n; ++v) at[v] = all;
  }
  SEGMED_HD friend Lanes operator+(const Lanes& a, const Lanes& b) {
    Lanes y;
    for (int v = 0; v < n; ++v) y.at[v] = a.at[v] + b.at[v];
    return y;
  }
  SEGMED_HD friend Lanes operator-(const Lanes& a, const Lanes& b) {
    Lanes y;
    for (int v = 0; v < n; ++v) y.at[v] = a.at[v] - b.at[v];
    return y;
  }
  SEGMED_HD friend Lanes operator*(const Lanes& a, const Lanes& b) {
    Lanes y;
    for (int v = 0; v < n; ++v) y.at[v] = a.at[v] * b.at[v];
    return y;
  }
  SEGMED_HD friend Lanes operator/(const Lanes& a, const Lanes& b) {
    Lanes y;
    for (int v = 0; v < n; ++v) y.at[v] = a.at[v] / b.at[v];
    return y;
  }
  SEGMED_HD Lanes operator-() const { return Lanes(W(0)) - *this; }
  SEGMED_HD Lanes& operator+=(const Lanes& b) { return *this = *this + b; }
  SEGMED_HD Lanes& operator*=(const Lanes& b) { return *this = *this * b; }
};

namespace math {

template <class W, int n>
SEGMED_HD Lanes<W, n> fast_exp(const Lanes<W, n>& x) {
  Lanes<W, n> y;
  for (int v = 0; v < n; ++v) y.at[v] = fast_exp(x.at[v]);
  return y;
}
template <class W, int n>
SEGMED_HD Lanes<W, n> fast_log(const Lanes<W, n>& x) {
  Lanes<W, n> y;
  for (int v = 0; v < n; ++v) y.at[v] = fast_log(x.at[v]);
  return y;
}
template <class W>
SEGMED_HD W larger(W a, W b) {
  return b > a ? b : a;
}
template <class W, int n>
SEGMED_HD Lanes<W, n> larger(const Lanes<W, n>& a, const Lanes<W, n>& b) {
  Lanes<W, n> y;
  for (int v = 0; v < n; ++v) y.at[v] = b.at[v] > a.at[v] ? b.at[v] : a.at[v];
  return y;
}
/// The sum over the voxels.
template <class W>
SEGMED_HD double total(W x) {
  return double(x);
}
template <class W, int n>
SEGMED_HD double total(const Lanes<W, n>& x) {
  double sum = 0;
  for (int v = 0; v < n; ++v) sum += double(x.at[v]);
  return sum;
}

template <class W, int n>
SEGMED_HD Lanes<W, n> logistic(const Lanes<W, n>& x) {
  Lanes<W, n> y;
  for (int v = 0; v < n; ++v) y.at[v] = logistic(x.at[v]);
  return y;
}

}  // namespace math

/// Numbers of n voxels of a map, in the type that is computed with.
template <class T, int n>
using NumbersOf = std::conditional_t<n == 1, Wide<T>, Lanes<Wide<T>, n>>;

/// One number of each of n voxels, which lie `step` apart.
template <int n, class T>
SEGMED_HD NumbersOf<T, n> read_lanes(const T* from, Index step) {
  if constexpr (n == 1) {
    return Wide<T>(*from);
  } else {
    Lanes<Wide<T>, n> y;
    for (int v = 0; v < n; ++v) y.at[v] = Wide<T>(from[v * step]);
    return y;
  }
}
template <class T>
SEGMED_HD void add_lanes(T* to, Index, Wide<T> change) {
  *to = T(Wide<T>(*to) + change);
}
template <class T, int n>
SEGMED_HD void add_lanes(T* to, Index step, const Lanes<Wide<T>, n>& change) {
  for (int v = 0; v < n; ++v) to[v * step] = T(Wide<T>(to[v * step]) + change.at[v]);
}

/// Voxels that a device looks at together.
template <Device D>
inline constexpr int lanes_of = std::same_as<D, Cpu> ? 16 : 1;

/// Calls visit(n, row) for the voxels from `row` on that are looked at together: n is `lanes`, as a
/// type, or 1 for each of the last ones.
template <int lanes, class Visit>
SEGMED_HD void each_lanes(Index rows, Index item, const Visit& visit) {
  const Index first = item * lanes;
  if (first + lanes <= rows) return visit(std::integral_constant<int, lanes>{}, first);
  if constexpr (lanes > 1)
    for (Index row = first; row < rows; ++row) visit(std::integral_constant<int, 1>{}, row);
}
/// One item of `kernel` for every `lanes_of<D>` of `rows` voxels.
template <Device D, class Kernel>
void launch_lanes(Index rows, const Kernel& kernel) {
  constexpr int lanes = lanes_of<D>;
  if constexpr (lanes > 1)
    D::launch_blocks((rows + lanes - 1) / lanes, kernel);
  else
    D::launch(rows, kernel);
}

}  // namespace segmed
