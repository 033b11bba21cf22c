// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <vector>

#include <segmed/autograd/perturb.hpp>
#include <segmed/nn/layer.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// Tells from image and probabilities whether the case is one with labels: a logit per case, above
/// zero for yes. Four convolutions that halve the extents, their mean, one linear layer.
///
///   shapes   probabilities (N, spatial..., classes), image (N, spatial..., channels); result
///            (N, 1..., 1)
///   source   FC3DDiscriminator of SSL4MIS; its two first convolutions, of probabilities and of
///            the image, are one over both; extents below 16 are padded with zeros
template <FeatureMap F>
struct Critic {
  using Features = F;
  std::vector<Conv<F>> stages;
  Conv<F> judge;
  float dropout = 0.5f;  // of whole channels, after all stages but the last

  /// `channels_in`: classes and channels of the image together.
  explicit Critic(Index channels_in, Index width = 16, std::uint64_t seed = 1)
      : judge(8 * width, 1, {.kernel = 1}) {
    for (const Index factor : {1, 2, 4, 8})
      stages.emplace_back(factor == 1 ? channels_in : factor / 2 * width, factor * width,
                          ConvOptions{.kernel = 4, .stride = 2});
    initialize(*this, seed);
  }
  F operator()(const F& probabilities, const F& image) const {
    F x = large_enough(concat(probabilities, image));
    for (std::size_t s = 0; s < stages.size(); ++s) {
      x = stages[s](x, LeakyRelu{0.2f});
      if (s + 1 < stages.size()) x = channel_dropout(x, dropout);
    }
    return spatial_mean(judge(x));  // the mean of a linear layer is that layer of the mean
  }
  static void members(auto& self, auto&& visit) {
    visit("stages", self.stages);
    visit("judge", self.judge);
  }

 private:
  static F large_enough(const F& x) {
    const Grid g = x.grid();
    const Index extents[3] = {g.depth, g.height, g.width};
    std::array<Index, F::dim> low{}, high{};
    bool small = false;
    for (std::size_t a = 0; a < F::dim; ++a) {
      high[a] = std::max<Index>(0, 16 - extents[a + 3 - F::dim]);
      small |= high[a] > 0;
    }
    return small ? pad(x, low, high) : x;
  }
};

/// Minus the log-likelihood of yes (target 1) or no (target 0) under a logit.
struct JudgementCost {
  double target;
  template <class W>
  SEGMED_HD W operator()(W z, W) const {
    return (z > W(0) ? z : W(0)) - W(target) * z + std::log1p(std::exp(z > W(0) ? -z : z));
  }
  template <class W>
  SEGMED_HD W first_slope(W z, W) const {
    return W(1) / (W(1) + std::exp(-z)) - W(target);
  }
  template <class W>
  SEGMED_HD W second_slope(W, W) const {
    return 0;
  }
};

/// A critic learns to tell predictions on D_0 from those on D_1, and the student to make it take
/// the latter for the former.
///
///   source   Zhang et al., Deep adversarial networks, MICCAI 2017, as in SSL4MIS. The two classes
///            of its critic are one logit; targets go by the case, for any sizes of batches; it
///            begins at a width of 16 instead of 64. Instead of an Adam of its own, of a rate of
///            1e-4 beside the student's 1e-2, the critic learns in the same backward and takes
///            `pace` of the step of the run's optimizer: at the student's rate its logits reach
///            hundreds within ten steps, and the student predicts nothing but background. So much
///            of its loss counts as well: the gradient of all is clipped as one, and a larger one
///            of the critic would leave the student none
///
/// Uses D_1's partial labels: by the usual term of what is annotated.
template <Network Net>
struct Adversarial {
  using F = typename Net::Features;
  Critic<F> critic;
  float weight = 0.1f;                  // of fooling the critic, after its warm-up
  float pace = 0.01f;                   // of the critic, beside the student's
  Frozen<Critic<F>> before = {critic};  // the critic as the step began

  /// With a critic for that many classes and channels of the image.
  static Adversarial of(Index classes, Index channels_in = 1, Index width = 16) {
    return {Critic<F>(classes + channels_in, width)};
  }
  template <class Now>
  typename Now::Value loss(Now& now) {
    if (now.partial.empty()) return {};
    const F known = softmax(detach(now.logits_full()));
    const F guess = softmax(now.logits_partial());
    const auto fool = verdict(constant(critic)(guess, now.partial.image), 1);
    const auto yes = verdict(critic(known, now.full.image), 1);
    const auto no = verdict(critic(detach(guess), now.partial.image), 0);
    const auto cases = [](const auto& samples) { return float(samples.image.grid().cases); };
    const float share = cases(now.full) / (cases(now.full) + cases(now.partial));
    return now.clock.ramp(weight) * fool + pace * (share * yes + (1 - share) * no);
  }
  /// Takes back what of the critic's step is more than its pace.
  void after_step(auto&) {
    ema(before, critic, 1 - double(pace));
    critic = before.module;
  }
  static void options(auto& self, auto&& visit) {
    visit("weight", self.weight, at_least(0));
    visit("pace", self.pace, between(0, 1));
  }
  static void members(auto& self, auto&& visit) {
    visit("critic", self.critic);
    visit("before", self.before);
  }

 private:
  static Scalar<F> verdict(const F& logits, double target) {
    return mean_of<JudgementCost, F>({target}, logits, nullptr);
  }
};

}  // namespace segmed
