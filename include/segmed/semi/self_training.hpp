// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/core/archive.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// Rounds of pseudo labels: the first round learns from what people drew; before each later one the
/// network fills in D_1, where it is sure, and learns from that as from labels.
///
///   source   Lee, Pseudo-label, ICML workshop 2013; in rounds over whole scans as Xie et al.,
///            Noisy student, 2020, arXiv:1911.04252, but the same network goes on learning instead
///            of a new one from the start, and doubtful voxels are ignored
///
/// Uses D_1's partial labels: drawn voxels keep their labels, and annotated classes are proposed
/// nowhere else; in the first round they have the usual term.
struct SelfTraining {
  static constexpr bool partial_labels = true;
  Index rounds = 3;         // of equal length; with one there are no labels but those of people
  float weight = 1;         // of D_1's labels from the second round on; no warm-up
  float confidence = 0.9f;  // of the network, below which a voxel stays without a label
  Index relabelled = 0;     // rounds that gave labels

  template <class F>
  void start_round(Round<F>& round) {
    if (round.number == 0) return;
    for (auto& one : round.cases)
      one.relabel(one.complete(confidence), AnnotatedSet::all(round.classes));
    ++relabelled;
  }
  template <class Now>
  typename Now::Value supervised(Now& now) {
    return relabelled > 0 ? now.labelled_full() : segmed::supervised(now);
  }
  template <class Now>
  typename Now::Value loss(Now& now) {
    if (now.partial.empty() || relabelled == 0 || weight <= 0) return {};
    return weight * now.labelled_partial();
  }
  void save(Archive& into, const std::string& prefix) const {
    into.texts[prefix + ".relabelled"] = std::to_string(relabelled);
  }
  void load(const Archive& from, const std::string& prefix) {
    relabelled = from.number<Index>(prefix + ".relabelled");
  }
  static void options(auto& self, auto&& visit) {
    visit("rounds", self.rounds, at_least(1));
    visit("weight", self.weight, at_least(0));
    visit("confidence", self.confidence, between(0, 1));
  }
};

}  // namespace segmed
