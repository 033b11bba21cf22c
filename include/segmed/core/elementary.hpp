// SPDX-License-Identifier: Apache-2.0
// exp, log and cosine without a call or a branch, so that loops over voxels become vector
// instructions.
// Choices are made by integers and products: a compiler that may not drop floating-point traps
// keeps every branch in which floats are computed.
#pragma once
#include <cmath>
#include <cstring>

#include <segmed/core/config.hpp>

namespace segmed::math {

SEGMED_HD inline std::uint32_t bits_of(float x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
SEGMED_HD inline float float_of(std::uint32_t bits) {
  float x = 0;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

/// exp(x) to 2e-7 of itself for x up to 88. Below -87 it stays at exp(-87), so it is never zero.
///
///   source   x = n ln 2 + r; 2^n by its bits, e^r by a polynomial fitted to |r| <= ln 2 / 2
SEGMED_HD inline float fast_exp(float x) {
  // The bits of negative numbers grow with their size.
  const std::uint32_t bits = bits_of(x), lowest = bits_of(-87.0f);
  x = float_of(bits < lowest ? bits : lowest);
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const float rounded = x * 1.44269504089f + 12582912.0f;
  const float n = rounded - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440055e-4f;
  float p = 0.00138145965f;
  p = p * r + 0.00836871577f;
  p = p * r + 0.041668388f;
  p = p * r + 0.16666520639f;
  p = p * r + 0.49999993448f;
  return float_of(bits_of(p * (r * r) + r + 1.0f) + (bits_of(rounded) << 23));
}
SEGMED_HD inline double fast_exp(double x) { return std::exp(x); }

/// log(x) of a positive normal number, to 2e-7 of itself or 1e-7; exact for x = 1.
///
///   source   x = 2^n (1 + f); log(1 + f) by a polynomial fitted to sqrt(1/2) <= 1 + f <= sqrt(2)
SEGMED_HD inline float fast_log(float x) {
  const std::uint32_t above = bits_of(x) - 0x3F3504F3u;  // sqrt(1/2)
  const float n = float(std::int32_t(above) >> 23);
  const float f = float_of((above & 0x007FFFFFu) + 0x3F3504F3u) - 1.0f;
  float p = 0.08700225723f;
  p = p * f - 0.14267457257f;
  p = p * f + 0.14914820815f;
  p = p * f - 0.16577588414f;
  p = p * f + 0.19963059617f;
  p = p * f - 0.25001336975f;
  p = p * f + 0.33333910828f;
  const float square = f * f;
  return n * 0.693359375f + (f - 0.5f * square + (p * (f * square) - n * 2.12194440055e-4f));
}
SEGMED_HD inline double fast_log(double x) { return std::log(x); }

/// cos(2 pi x), to 3e-7, of an x between -2^22 and 2^22: the cosine of so many turns.
///
///   source   whole turns left out; cos(2 pi x) = sin(2 pi (1/4 - |x|)), by a polynomial fitted to
///            |x| <= 1/2
SEGMED_HD inline float cos_of_turns(float x) {
  const float rest = x - ((x + 12582912.0f) - 12582912.0f);  // as in fast_exp
  const float turns = 0.25f - std::fabs(rest), square = turns * turns;
  float p = 39.5367056441f;
  p = p * square - 76.5497822406f;
  p = p * square + 81.6010040711f;
  p = p * square - 41.3416550314f;
  p = p * square + 6.2831851601f;
  return p * turns;
}

/// log(1 + e^x), the cost of a wrong logit x; linear for large x.
template <class W>
SEGMED_HD W softplus(W x) {
  const W size = std::fabs(x);
  return W(0.5) * (x + size) + fast_log(W(1) + fast_exp(-size));
}
/// 1 / (1 + e^-x).
template <class W>
SEGMED_HD W logistic(W x) {
  const W e = fast_exp(-std::fabs(x));
  const W positive = W(0.5) + std::copysign(W(0.5), x);
  return (positive + (W(1) - positive) * e) / (W(1) + e);
}

/// 1 or 0, by bits: a choice between numbers would become a branch in which they are computed.
template <class W>
SEGMED_HD W number_of(bool yes) {
  if constexpr (sizeof(W) == 4)
    return float_of(-std::uint32_t(yes) & 0x3F800000u);
  else
    return W(int(yes));
}

}  // namespace segmed::math
