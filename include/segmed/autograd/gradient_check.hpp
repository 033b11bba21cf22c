// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>

#include <segmed/autograd/pointwise.hpp>
#include <segmed/autograd/scalar.hpp>

namespace segmed {

/// A scalar that weighs every element of a map differently, so that no gradient cancels.
template <FeatureMap F>
Scalar<F> probe(const F& y, std::uint64_t seed = 7) {
  using T = typename F::value_type;
  const Philox random{seed, Purpose::noise};
  std::vector<T> weights(std::size_t(y.grid().size()));
  for (std::size_t i = 0; i < weights.size(); ++i)
    weights[i] = T(typename F::Wide(random.uniform(Index(i), 0.5f, 1.5f) *
                                    (random.bits(Index(i)).word[1] & 1 ? 1.0f : -1.0f)));
  const F w(y.grid(), Storage<T, typename F::device>(weights));
  return float(y.grid().size()) * mean(y * w);
}

/// The largest distance between the gradient that backward gives and central differences of
/// `loss(x)`, relative to the largest gradient. In double, a right pull stays below 1e-7 for linear
/// ops and 1e-5 for others.
template <FeatureMap F, class Loss>
double gradient_error(const Grid& grid, std::vector<typename F::value_type> at, Loss loss,
                      double step = 1e-6) {
  using T = typename F::value_type;
  const F x = F::leaf(grid, at);
  backward(loss(x));
  require<Error>(!x.gradient().empty(), "gradient_error", "no gradient reached x");
  const auto analytic = x.gradient().host();
  double worst = 0, scale = 1e-12;
  for (std::size_t i = 0; i < at.size(); ++i) {
    const T kept = at[i];
    const auto value_at = [&](double delta) {
      at[i] = T(typename F::Wide(double(typename F::Wide(kept)) + delta));
      return no_grad([&] { return loss(F::leaf(grid, at)); }).host();
    };
    const double numeric = (value_at(step) - value_at(-step)) / (2 * step);
    at[i] = kept;
    worst = std::max(worst, std::abs(numeric - double(typename F::Wide(analytic[i]))));
    scale = std::max(scale, std::abs(numeric));
  }
  return worst / scale;
}

/// The same for one parameter that sits in a Group.
template <class P, class Loss>
double parameter_gradient_error(P& param, Loss loss, double step = 1e-6) {
  using W = typename P::value_type;
  auto values = param.value().host();
  param.grad().assign(std::vector<W>(values.size(), W(0)));
  backward(loss());
  const auto analytic = param.grad().host();
  double worst = 0, scale = 1e-12;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const W kept = values[i];
    const auto value_at = [&](double delta) {
      values[i] = W(double(kept) + delta);
      param.value().assign(values);
      return no_grad(loss).host();
    };
    const double numeric = (value_at(step) - value_at(-step)) / (2 * step);
    values[i] = kept;
    param.value().assign(values);
    worst = std::max(worst, std::abs(numeric - double(analytic[i])));
    scale = std::max(scale, std::abs(numeric));
  }
  return worst / scale;
}

}  // namespace segmed
