// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/losses/consistency.hpp>
#include <segmed/nn/any_decoder.hpp>
#include <segmed/semi/partly_labelled.hpp>

namespace segmed {

/// The student's decoder and two further ones, which raise the resolution in other ways, each learn
/// from the labels, and from what the others say when they are made to decide. Uses D_1's partial
/// labels: in the term of the labels, for every decoder.
///
///   source   Wu et al., MC-Net+, 2022, arXiv:2109.09960, on all images, as there. The labels weigh
///            the mean of the user's loss over the decoders, there half the sum of Dice losses; a
///            sharpened prediction is given, where the authors' script lets it learn too
template <CodedNetwork Net>
struct MutualConsistency {
  using F = typename Net::Features;
  AnyDecoder<F> linear, nearest;  // thrown away after the training
  float weight = 1;               // of the term after its warm-up
  float temperature = 0.1f;       // the lower, the more a prediction is made to decide

  explicit MutualConsistency(const Net& student, std::uint64_t seed = 2)
      : linear(student.branch({.seed = seed, .raise = Raise::linear})),
        nearest(student.branch({.seed = seed + 1, .raise = Raise::nearest})) {}

  template <class Now>
  typename Now::Value supervised(Now& now) {
    full_ = {now.logits_full(), linear(now.levels_full()), nearest(now.levels_full())};
    auto term = now.labelled_full() + further(now, full_, now.full.labels);
    partial_.clear(), of_ = &now.student;
    if constexpr (user_takes_partial_labels<Now>())
      if (any_annotated(now.partial)) {
        look_at_partial(now);
        term = term + now.labelled_partial() + further(now, partial_, now.partial.labels);
      }
    return (1 / 3.0f) * term;
  }
  template <class Now>
  typename Now::Value loss(Now& now) {
    const SharpenedDistance apart{temperature};
    if (of_ != &now.student) full_.clear(), partial_.clear();  // labels of a second network
    if (full_.empty())
      full_ = {now.logits_full(), linear(now.levels_full()), nearest(now.levels_full())};
    auto term = agreement(apart, full_);
    if (!now.partial.empty()) {
      if (partial_.empty()) look_at_partial(now);
      const float cases = float(partial_[0].grid().cases);
      const float share = cases / (cases + float(full_[0].grid().cases));
      term = (1 - share) * term + share * agreement(apart, partial_);
    }
    full_.clear(), partial_.clear();
    return now.clock.ramp(weight) * term;
  }
  static void options(auto& self, auto&& visit) {
    visit("weight", self.weight, at_least(0));
    visit("temperature", self.temperature, above(0));
  }
  static void members(auto& self, auto&& visit) {
    visit("linear", self.linear);
    visit("nearest", self.nearest);
  }

 private:
  void look_at_partial(auto& now) {
    const auto& levels = now.levels_partial();
    partial_ = {now.logits_partial(), linear(levels), nearest(levels)};
  }
  static auto further(auto& now, const std::vector<F>& all, const auto& labels) {
    return now.criterion(all[1], labels) + now.criterion(all[2], labels);
  }
  // What all decoders said of a network's features in this step, between its two terms.
  std::vector<F> full_, partial_;
  const void* of_ = nullptr;
};

}  // namespace segmed
