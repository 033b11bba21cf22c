// SPDX-License-Identifier: Apache-2.0
#include <segmed/segmed.hpp>
using namespace segmed;
using F = Features<3, float, Cpu>;

struct Parts : UNetParts<F> {
  using Encoder = Residual<ConvBlock<F, InstanceNorm<F>, LeakyRelu>>;
};
using Net = UNet<Parts>;

struct MeanTeacher {  // a policy of one's own: a plain struct
  Frozen<Net> teacher;
  float keep = 0.99f, weight = 0.1f;

  auto loss(auto& now) {  // the term that it adds
    const auto seen = add_noise(now.partial.image, 0.1f);
    const auto target = no_grad([&] { return softmax(teacher(seen)); });
    return now.clock.ramp(weight) * mean_square(softmax(now.logits_partial()), target);
  }
  void after_step(auto& now) { ema(teacher, now.student, keep); }
  const Net& predictor(const Net&) const { return teacher.module; }
  static void members(auto& self, auto&& visit) { visit("teacher", self.teacher); }
};

int main() {
  const auto cohort = phantom::abdomen({.cases = 24, .organs = 4, .labelled = 8});
  const auto loss = Sum{Dice{}, Weighted{0.5f, CrossEntropy{}}};
  Net net{{.channels_in = 1, .classes = 5, .widths = {16, 32, 64}}};
  run({.name = "hello", .steps = 200}, cohort, net, loss, MeanTeacher{.teacher = {net}},
      AdamW{.rate = 3e-3f});
}
