// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/semi/class_confidence.hpp>
#include <segmed/semi/complete.hpp>
#include <segmed/semi/mean_teacher.hpp>
#include <segmed/semi/partly_labelled.hpp>
#include <segmed/semi/regularized_dropout.hpp>

namespace segmed {

/// Partly annotated scans, used in full: where classes were annotated, the marginal loss (the
/// user's own if it takes partial labels) and the exclusion of the others; where they were not, the
/// confident answers of a slow average of the student, never on voxels that people drew. Uses D_1's
/// partial labels: in both. The defaults were chosen on generated abdomens. With `agree.weight`,
/// two answers with other features dropped agree as well, of networks that can drop them: worth a
/// try on an inner split, since it helps on some data and harms on other.
///
/// A loss is a mean over the organs that are annotated, so that scans of one organ each would count
/// this one as much as D_0 counts all of its own. `balanced`, D_1's marginal loss weighs as much as
/// is annotated: an organ counts in D_1 as in D_0.
///
/// Completion begins at `after`, with what the warm-up of all runs has reached by then: by default
/// all of `weight` at once, for the warm-up ends at 40 % of the budget (see sigmoid_ramp). Before
/// that the teacher follows, but is not asked. The warm-up of `agree` begins with the run.
///
///   source   marginal and exclusion loss: Shi et al., 2021, arXiv:2007.03868, with probabilities
///            merged instead of logits; completion: Tarvainen & Valpola, 2017, arXiv:1703.01780,
///            and Sohn et al., FixMatch, 2020, arXiv:2001.07685, doubtful voxels ignored;
///            `adaptive`: see ClassConfidence; `agree`: see RegularizedDropout
template <Network Net>
struct PartialCompletion {
  static constexpr bool partial_labels = true;
  Frozen<Net> teacher;
  float keep = 0.99f;       // of the teacher and of the mean confidences, per step
  float weight = 1;         // of the completed labels, where the run is warm; 0: no completion
  float exclusion = 0.1f;   // of the exclusion of D_1's labels
  float after = 0.5f;       // the fraction of the budget from which the teacher is asked
  float confidence = 0.7f;  // of the teacher, below which a voxel stays without a label
  bool marginal = true;     // the marginal loss of D_1's labels; false: their exclusion alone
  bool balanced = true;     // an organ counts in D_1's labels as in those of D_0
  bool adaptive = true;     // less confidence of classes of which the teacher is less sure
  RegularizedDropout agree{.weight = 0};  // of two answers with other features dropped
  ClassConfidence<typename Net::Features::device> sureness{Index(ignored)};

  template <class Now>
  typename Now::Value supervised(Now& now) {
    if (!marginal) return labelled_with(Weighted{exclusion, Exclusion{}}, now);
    return labelled_marginally(now, exclusion, balanced ? annotated_part(now) : 1);
  }
  template <class Now>
  typename Now::Value loss(Now& now) {
    const auto term = completed(now);
    if constexpr (CodedNetwork<Net>) return term + agree.loss(now);
    require<ConfigError>(agree.weight <= 0, "PartialCompletion", "agree.weight is ", agree.weight,
                         ", and this network cannot drop its features; give 0");
    return term;
  }
  template <class Now>
  typename Now::Value completed(Now& now) {
    if (now.partial.empty() || weight <= 0 || now.clock.host().progress < after) return {};
    const auto answer = evaluating([&] { return teacher(now.partial.image); });
    const auto& drawn = now.partial.labels;
    if (adaptive) sureness.follow(drawn, answer, keep);
    const auto labels = adaptive ? complete(drawn, answer, sureness.least(confidence))
                                 : complete(drawn, answer, confidence);
    return now.clock.ramp(weight) * now.criterion(now.logits_partial(), labels);
  }
  void after_step(auto& now) { follow(teacher, keep, now); }
  static void options(auto& self, auto&& visit) {
    visit("keep", self.keep, between(0, 1));
    visit("weight", self.weight, at_least(0));
    visit("exclusion", self.exclusion, at_least(0));
    visit("after", self.after, between(0, 1));
    visit("confidence", self.confidence, between(0, 1));
    visit("marginal", self.marginal);
    visit("balanced", self.balanced);
    visit("adaptive", self.adaptive);
    visit("agree", self.agree);
  }
  static void members(auto& self, auto&& visit) {
    visit("teacher", self.teacher);
    visit("sureness", self.sureness);
  }
};

}  // namespace segmed
