// SPDX-License-Identifier: Apache-2.0
// A block of one's own: a struct that a U-Net builds from channels and options.
#include <cstdio>

#include <segmed/segmed.hpp>
using namespace segmed;
using F = Features<3, float, Cpu>;

// [user]
struct Bottleneck {  // 1x1 to a quarter of the channels, 3x3, 1x1 back: He et al. 2016
  using Features = F;
  ConvNorm<F, InstanceNorm<F>> narrow, look, widen;
  Conv<F> shortcut;

  Bottleneck(Index in, Index out, const BlockOptions<3>& o)
      : narrow(in, quarter(out), ConvGeometry<3>::cubic(1)),
        look(quarter(out), quarter(out), ConvGeometry<3>::cubic(3, o.stride[0])),
        widen(quarter(out), out, ConvGeometry<3>::cubic(1)),
        shortcut(in, out, {.kernel = 1, .stride = o.stride[0]}) {}
  F operator()(const F& x) const {
    const Relu act;
    return act(widen(act(look(act(narrow(x))))) + shortcut(x));
  }
  static void members(auto& self, auto&& visit) {
    visit("narrow", self.narrow);
    visit("look", self.look);
    visit("widen", self.widen);
    visit("shortcut", self.shortcut);
  }
  static Index quarter(Index channels) { return std::max<Index>(4, channels / 4); }
};
struct Parts : UNetParts<F> {
  using Encoder = Bottleneck;
};
// [user]

int main() {
  const UNet<Parts> net({.classes = 3, .widths = {8, 16, 32}});
  const auto logits = net(F(Shape<3>{1, {16, 12, 10}, 1}));
  std::printf("%d parameters, %d classes at %dx%dx%d\n", int(parameter_count(net)),
              int(logits.grid().channels), int(logits.grid().depth), int(logits.grid().height),
              int(logits.grid().width));
  return logits.grid() == Grid{1, 16, 12, 10, 3} ? 0 : 1;
}
