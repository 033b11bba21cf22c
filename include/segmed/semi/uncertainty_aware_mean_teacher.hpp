// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/weighted.hpp>
#include <segmed/semi/mean_teacher.hpp>

namespace segmed {

template <class T>
struct CertainKernel {  // one item per voxel
  const T* total;       // of the probabilities of some passes
  Index classes, passes;
  const Ticks* ticks;
  T* out;
  SEGMED_HD void operator()(Index row) const {
    using W = Wide<T>;
    W entropy = 0;
    for (Index i = row * classes; i < (row + 1) * classes; ++i) {
      const W p = W(total[i]) / W(passes);
      if (p > W(0)) entropy -= p * std::log(p);
    }
    const W most = W(0.75f + 0.25f * sigmoid_ramp(ticks->progress, 1)) * std::log(W(classes));
    out[row] = T(W(int(entropy < most)));
  }
};
/// 1 where the entropy of the mean probabilities lies below a bound that grows from 3/4 to all of
/// the largest entropy that so many classes can have; 0 elsewhere.
///
///   shapes   total (N, spatial..., C), the sum of `passes` probabilities; result one channel
template <FeatureMap F>
F certain(const F& total, Index passes, const Ticks* ticks) {
  using T = typename F::value_type;
  const F sum = detach(total);
  const Grid grid = sum.grid();
  F y(grid.with_channels(1), false);
  F::device::launch(grid.rows(),
                    CertainKernel<T>{sum.data(), grid.channels, passes, ticks, y.mutable_data()});
  return y;
}

/// MeanTeacher where the teacher is sure: it answers several noisy copies of the image, and where
/// the mean of its answers is undecided, the student is left alone. Uses D_1's partial labels by
/// the usual term of the labels alone.
///
///   source   Yu et al., 2019, arXiv:1907.07034. The first of the noisy answers is the
///            one that the student shall give (SSL4MIS makes one more pass for it); the bound is a
///            fraction of ln C instead of ln 2, and the mean goes over all C classes
template <Network Net>
struct UncertaintyAwareMeanTeacher {
  Frozen<Net> teacher;
  Index passes = 8;     // of the teacher, each under noise of its own
  float keep = 0.99f;   // of the teacher, per step
  float weight = 0.1f;  // of the consistency term after its warm-up
  float noise = 0.1f;   // deviation, in the units of the normalised image; at most twice of it

  template <class Now>
  typename Now::Value loss(Now& now) {
    require<ConfigError>(passes > 0, "UncertaintyAwareMeanTeacher", passes,
                         " passes; give 1 or more");
    if (now.partial.empty()) return {};
    const auto answer = [&] {
      return no_grad(
          [&] { return softmax(teacher(add_noise(now.partial.image, noise, 2 * noise))); });
    };
    const auto target = answer();
    auto total = target;
    for (Index pass = 1; pass < passes; ++pass) total = total + answer();
    const auto mask = certain(total, passes, now.clock.ticks());
    return now.clock.ramp(weight) *
           weighted_mean_square(softmax(now.logits_partial()), target, mask);
  }
  void after_step(auto& now) { follow(teacher, keep, now); }
  const Net& predictor(const Net&) const { return teacher.module; }
  static void options(auto& self, auto&& visit) {
    visit("passes", self.passes, at_least(1));
    visit("keep", self.keep, between(0, 1));
    visit("weight", self.weight, at_least(0));
    visit("noise", self.noise, at_least(0));
  }
  static void members(auto& self, auto&& visit) { visit("teacher", self.teacher); }
};

}  // namespace segmed
