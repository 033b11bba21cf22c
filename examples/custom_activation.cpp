// SPDX-License-Identifier: Apache-2.0
// An activation of one's own: a functor with a value and a slope, and a struct that maps it.
#include <cstdio>

#include <segmed/segmed.hpp>
using namespace segmed;
using F = Features<3, float, Cpu>;

// [user]
struct MishFunction {  // x * tanh(log(1 + e^x)), Misra 2019, arXiv:1908.08681
  template <class W>
  SEGMED_HD W gate(W x) const {
    return std::tanh(std::log1p(std::exp(x)));
  }
  template <class W>
  SEGMED_HD W operator()(W x, Index) const {
    return x * gate(x);
  }
  template <class W>
  SEGMED_HD W slope(W x, Index) const {
    const W t = gate(x);
    return t + x * (W(1) - t * t) / (W(1) + std::exp(-x));
  }
};
struct Mish {
  auto operator()(const auto& x) const { return map(MishFunction{}, x); }
};
struct Parts : UNetParts<F> {
  using Encoder = ConvBlock<F, InstanceNorm<F>, Mish>;
};
// [user]

int main() {
  using Double = Features<3, double, Cpu>;
  const Grid grid{1, 2, 3, 2, 2};
  std::vector<double> at;
  for (int i = 0; i < 24; ++i) at.push_back(0.3 * i - 3.5);
  const double error =
      gradient_error<Double>(grid, at, [](const Double& x) { return probe(Mish{}(x)); });
  const UNet<Parts> net({.classes = 3, .widths = {4, 8}});
  const auto logits = net(F(Shape<3>{1, {8, 8, 8}, 1}));
  std::printf("gradient error %.1e, logits with %d classes\n", error, int(logits.grid().channels));
  return error < 1e-6 && logits.grid().channels == 3 ? 0 : 1;
}
