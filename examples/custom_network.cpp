// SPDX-License-Identifier: Apache-2.0
// A network of one's own: a copyable struct with `Features`, a call and a list of its members.
#include <cstdio>

#include <segmed/segmed.hpp>
using namespace segmed;
using F = Features<3, float, Cpu>;

// [user]
struct DilatedNet {  // full resolution throughout; the field of view grows by dilation
  using Features = F;
  ConvNorm<F, InstanceNorm<F>> near, middle, far;
  Conv<F> head;

  DilatedNet(Index channels, Index width, Index classes)
      : near(channels, width, ConvGeometry<3>::cubic(3)),
        middle(width, width, ConvGeometry<3>::cubic(3, 1, -1, 2)),
        far(width, width, ConvGeometry<3>::cubic(3, 1, -1, 4)),
        head(width, classes, {.kernel = 1}) {
    initialize(*this, 1);
  }
  F operator()(const F& image) const {
    const LeakyRelu act;
    return head(act(far(act(middle(act(near(image)))))));
  }
  static void members(auto& self, auto&& visit) {
    visit("near", self.near);
    visit("middle", self.middle);
    visit("far", self.far);
    visit("head", self.head);
  }
};
static_assert(Network<DilatedNet>);
// [user]

int main() {
  const auto cohort = phantom::abdomen(
      {.cases = 3, .organs = 2, .labelled = 3, .validation = 0, .extent = {32, 32, 24}});
  DilatedNet net(1, 8, 3);
  const auto report = run({.name = "dilated", .steps = 4, .patch = {16, 16, 16}}, cohort, net,
                          Sum{Dice{}, CrossEntropy{}}, Supervised{}, Sgd{});
  std::printf("%d parameters, loss %.3f after %d steps\n", int(parameter_count(net)),
              report.curve.back().total, int(report.steps));
  return report.steps == 4 ? 0 : 1;
}
