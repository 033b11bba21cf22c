// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/group.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// The student agrees on D_1 with a slow average of itself that sees noise.
///
///   source   Tarvainen & Valpola, 2017, arXiv:1703.01780; as in SSL4MIS, the average follows
///            faster at first, keep = min(keep, 1 - 1 / (step + 1)), the noise is cut off at two
///            deviations, and the student sees the image as it is
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
  void after_step(auto& now) {
    ema(teacher, now.student, average_keep(keep, now.clock.host().step));
  }
  const Net& predictor(const Net&) const { return teacher.module; }
  static void options(auto& self, auto&& visit) {
    visit("keep", self.keep, between(0, 1));
    visit("weight", self.weight, at_least(0));
    visit("noise", self.noise, at_least(0));
  }
  static void members(auto& self, auto&& visit) { visit("teacher", self.teacher); }

  static double average_keep(float keep, std::uint32_t step) {
    return std::min(double(keep), 1 - 1 / (double(step) + 1));
  }
};

}  // namespace segmed
