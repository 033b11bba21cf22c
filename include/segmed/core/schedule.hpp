// SPDX-License-Identifier: Apache-2.0
// How the rate falls: plain structs from the fraction of the budget (steps or minutes) to a factor.
#pragma once
#include <cmath>
#include <concepts>

namespace segmed {

/// Maps progress, 0 to 1, to a factor of the rate.
template <class S>
concept Schedule = requires(const S& schedule, float progress) {
  { schedule(progress) } -> std::convertible_to<float>;
};

struct ConstantRate {
  float operator()(float) const { return 1; }
};

/// (1 - t)^power, nnU-Net's and SSL4MIS's way with power 0.9.
struct Poly {
  float power = 0.9f;
  // A rounded progress may lie beyond 1, where the power of a negative number would be none.
  float operator()(float progress) const { return std::pow(std::fmax(0.0f, 1 - progress), power); }
};

/// Half a cosine from 1 to `floor`.
///
///   source   Loshchilov & Hutter, SGDR, 2017, arXiv:1608.03983, eq. 5, without restarts
struct Cosine {
  float floor = 0;
  float operator()(float progress) const {
    return floor + (1 - floor) * 0.5f * (1 + std::cos(3.14159265f * progress));
  }
};

/// A straight line from 0 to 1 over the first `fraction`, then `after` over the rest.
template <Schedule S>
struct WarmUp {
  float fraction = 0.05f;
  S after = {};
  float operator()(float progress) const {
    if (progress < fraction) return (progress + 1e-3f) / (fraction + 1e-3f);
    return after((progress - fraction) / (1 - fraction));
  }
};

}  // namespace segmed
