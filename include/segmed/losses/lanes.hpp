// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/losses/exponential.hpp>

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

}  // namespace math
}  // namespace segmed
