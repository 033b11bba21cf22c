// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/group.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// After a step a teacher follows the student, of which it keeps an average; faster at first.
///
///   source   Tarvainen & Valpola, 2017, arXiv:1703.01780; as in SSL4MIS, keep is at most
///            1 - 1 / (step + 1), so that the average begins as the mean of all steps
template <class Net>
void follow(Frozen<Net>& teacher, float keep, auto& now) {
  const double step = double(now.clock.host().step);
  ema(teacher, now.student, std::min(double(keep), 1 - 1 / (step + 1)));
}

/// The student agrees on D_1 with a slow average of itself that sees noise. Uses D_1's partial
/// labels by the usual term of the labels alone.
///
///   source   Tarvainen & Valpola, 2017, arXiv:1703.01780; as in SSL4MIS, the average follows
///            faster at first, see `follow`, the noise is cut off at two deviations, and the
///            student sees the image as it is
template <Network Net>
struct MeanTeacher {
  Frozen<Net> teacher;
  float keep = 0.99f;   // of the teacher, per step
  float weight = 0.1f;  // of the consistency term after its warm-up
  float noise = 0.1f;   // deviation, in the units of the normalised image

  template <class Now>
  typename Now::Value loss(Now& now) {
    if (now.partial.empty()) return {};
    const auto target =
        no_grad([&] { return softmax(teacher(add_noise(now.partial.image, noise, 2 * noise))); });
    return now.clock.ramp(weight) * mean_square(softmax(now.logits_partial()), target);
  }
  void after_step(auto& now) { follow(teacher, keep, now); }
  const Net& predictor(const Net&) const { return teacher.module; }
  static void options(auto& self, auto&& visit) {
    visit("keep", self.keep, between(0, 1));
    visit("weight", self.weight, at_least(0));
    visit("noise", self.noise, at_least(0));
  }
  static void members(auto& self, auto&& visit) { visit("teacher", self.teacher); }
};

}  // namespace segmed
