// SPDX-License-Identifier: Apache-2.0
// What policies with a second trained network share.
#pragma once
#include <segmed/semi/complete.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// The same network with other starting weights: a partner that makes other mistakes.
template <Network Net>
Net with_other_start(const Net& net, std::uint64_t seed) {
  Net other = net;
  initialize(other, seed);
  return other;
}

/// The step as a second network sees it: the same samples and loss, outputs of its own.
template <Network Other, class Net, class Loss>
SemiStep<Other, Loss> beside(SemiStep<Net, Loss>& now, Other& second) {
  return {second, now.loss, now.full, now.partial, now.clock};
}

/// Two networks learn the same labels, and each learns D_1 from the other's hard answers by the
/// loss `How`. The answers are constants; both networks receive a gradient. The run's own network,
/// or its average, predicts.
///
/// Uses D_1's partial labels: both networks have the run's term of what is annotated, that of the
/// policy beside this one if it has its own; answers keep what was drawn and propose annotated
/// classes nowhere else.
template <Network Net, Network Other, class How>
struct LabelEachOther {
  static_assert(std::same_as<typename Net::Features, typename Other::Features>,
                "LabelEachOther: both networks need the same Features; see "
                "semi/second_network.hpp");
  Other second;         // errs in other places than the student
  float weight = 0.1f;  // of the answers after their warm-up

  template <class Now>
  typename Now::Value loss(Now& now) {
    return loss(now, [](auto& step) { return segmed::supervised(step); });
  }
  template <class Now, class Labelled>
  typename Now::Value loss(Now& now, const Labelled& labelled) {
    auto then = beside(now, second);
    const auto term = labelled(then);
    if (now.partial.empty() || weight <= 0) return term;
    return term + now.clock.ramp(weight) * answers(now, then);
  }
  static void options(auto& self, auto&& visit) { visit("weight", self.weight, at_least(0)); }
  static void members(auto& self, auto&& visit) { visit("second", self.second); }

  /// What each learns from the other.
  template <class Now, class Then>
  static typename Now::Value answers(Now& mine, Then& theirs) {
    const auto& first = mine.logits_partial();
    const auto& second = theirs.logits_partial();
    const auto& drawn = mine.partial.labels;
    return Now::criterion_with(How{}, first, complete(drawn, second)) +
           Now::criterion_with(How{}, second, complete(drawn, first));
  }
};

}  // namespace segmed
