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

/// Two networks label D_1 for each other: `how` of one's logits and the other's answers, twice.
/// Answers are constants and keep what people drew; both networks receive a gradient.
template <class L, class Now, class Then>
typename Now::Value label_each_other(const L& how, Now& mine, Then& theirs) {
  const auto& first = mine.logits_partial();
  const auto& second = theirs.logits_partial();
  const auto& drawn = mine.partial.labels;
  return Now::criterion_with(how, first, complete(drawn, second)) +
         Now::criterion_with(how, second, complete(drawn, first));
}

}  // namespace segmed
