// SPDX-License-Identifier: Apache-2.0
// A policy with state that no module holds: a checkpoint keeps it, and a run goes on with it.
#include <cstdio>

#include <segmed/segmed.hpp>
using namespace segmed;
using F = Features<3, float, Cpu>;

// [user]
struct SteadySquares {  // maximum squares, in units of what the term usually is
  float weight = 0.1f;
  double usual = 0;  // the running mean of the term

  template <class Now>
  typename Now::Value loss(Now& now) {
    if (now.partial.empty()) return {};
    const auto term = mean_square(softmax(now.logits_partial()), 0.0);
    usual = usual > 0 ? 0.9 * usual + 0.1 * term.host() : term.host();
    return now.clock.ramp(float(-weight / usual)) * term;
  }
  void save(Archive& into, const std::string& prefix) const {
    into.keep(prefix + ".usual", StoredTensor::of(std::vector<double>{usual}));
  }
  void load(const Archive& from, const std::string& prefix) {
    usual = from.numbers<double>(prefix + ".usual").at(0);
  }
};
// [user]

int main() {
  const auto cohort = phantom::abdomen(
      {.cases = 4, .organs = 2, .labelled = 2, .validation = 0, .extent = {32, 32, 24}});
  UNet<UNetParts<F>> net({.classes = 3, .widths = {4, 8}});
  SteadySquares policy, again;
  run({.name = "steady", .steps = 4, .patch = {16, 16, 16}}, cohort, net,
      Sum{Dice{}, CrossEntropy{}}, policy, AdamW{});
  Checkpoint point;
  point.save("policy", policy);
  point.load("policy", again);
  std::printf("usually %.4f, after a restart %.4f\n", policy.usual, again.usual);
  return policy.usual > 0 && again.usual == policy.usual ? 0 : 1;
}
