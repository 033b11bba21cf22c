// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/perturb.hpp>
#include <segmed/nn/any_decoder.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// Three further decoders read what the student's encoder sees of D_1, each spoilt in a way of its
/// own, and shall predict what the student's decoder does. That one learns from labels alone: its
/// prediction is given. Uses D_1's partial labels: in the usual term of the labels.
///
///   source   Ouali et al., CCT, 2020, arXiv:2003.09005: F-Noise, channel dropout and F-Drop of its
///            seven kinds, as in SSL4MIS, which spoils every level of the encoder as here (the
///            paper its last); SSL4MIS also lets the target learn and trains the further decoders
///            with labels, the paper and this do neither; noise and factors are drawn per case
template <CodedNetwork Net>
struct CrossConsistency {
  using F = typename Net::Features;
  AnyDecoder<F> noisy, dropped, unattended;  // thrown away after the training
  float weight = 0.1f;                       // of the term after its warm-up
  float noise = 0.3f;                        // of an activation, at most
  float dropout = 0.3f;                      // of whole channels
  float low = 0.7f, high = 0.9f;  // of the highest attention, from which on voxels are dropped

  explicit CrossConsistency(const Net& student, std::uint64_t seed = 2)
      : noisy(student.branch({.seed = seed})),
        dropped(student.branch({.seed = seed + 1})),
        unattended(student.branch({.seed = seed + 2})) {}

  template <class Now>
  typename Now::Value loss(Now& now) {
    if (now.partial.empty()) return {};
    const F target = softmax(detach(now.logits_partial()));
    const auto& levels = now.levels_partial();
    typename Now::Value sum;
    const auto agree = [&](const AnyDecoder<F>& decoder, auto spoil) {
      std::vector<F> spoilt;
      for (const F& level : levels) spoilt.push_back(spoil(level));
      sum = sum + mean_square(softmax(decoder(spoilt)), target);
    };
    agree(noisy, [&](const F& x) { return feature_noise(x, noise); });
    agree(dropped, [&](const F& x) { return channel_dropout(x, dropout); });
    agree(unattended, [&](const F& x) { return attention_dropout(x, low, high); });
    return now.clock.ramp(weight / 3) * sum;
  }
  static void options(auto& self, auto&& visit) {
    visit("weight", self.weight, at_least(0));
    visit("noise", self.noise, at_least(0));
    visit("dropout", self.dropout, half_open(0, 1));
    visit("low", self.low, between(0, self.high));
    visit("high", self.high, between(self.low, 1));
  }
  static void members(auto& self, auto&& visit) {
    visit("noisy", self.noisy);
    visit("dropped", self.dropped);
    visit("unattended", self.unattended);
  }
};

}  // namespace segmed
