// SPDX-License-Identifier: Apache-2.0
// What policies make of D_1's partial labels, against plain loops in double.
#include "../losses/reference.hpp"
#include "policy_trial.hpp"
#include <segmed/losses/deep_supervision.hpp>
#include <segmed/nn/dynamic_head.hpp>
#include <segmed/semi/exclusion_training.hpp>
#include <segmed/semi/leaf_dice_training.hpp>
#include <segmed/semi/marginal_training.hpp>
#include <segmed/semi/masked_sigmoid.hpp>
#include <segmed/semi/partial_completion.hpp>
#include <segmed/semi/target_adaptive.hpp>

using namespace segmed;
using Scans = check::Batch;
using Solid = check::Solid;

namespace {

/// A network whose logits are its image.
template <class F>
struct Shown {
  using Features = F;
  F operator()(const F& image) const { return image; }
  static void members(auto&, auto&&) {}
};
using Loss = Sum<Dice, CrossEntropy>;

const Scans full = Scans::random({2, 2, 3, 5, 4}, {}, 7);
const Scans partial = check::partial_batch();

/// The term that a policy trains the labels with, and the slopes in D_1's logits.
struct Term {
  double value = 0;
  std::vector<double> full_slopes, partial_slopes;
};
template <class Policy, class L = Loss>
Term term_of(Policy policy, const Scans& d1 = partial, const L& loss = {}) {
  Tape::current()->clear();
  Shown<Solid> net;
  const Clock<Cpu> clock;
  const Samples<Solid> known{Solid::leaf(full.grid, full.logits()), full.labels()};
  const Samples<Solid> other{Solid::leaf(d1.grid, d1.logits()), d1.labels()};
  SemiStep<Shown<Solid>, L> now(net, loss, known, other, clock);
  const auto term = supervised_by(policy, now);
  backward(term);
  CHECK_FALSE(bool(policy.loss(now)));
  Term result{term.host(), known.image.gradient().host(), {}};
  if (!other.image.gradient().empty()) result.partial_slopes = other.image.gradient().host();
  return result;
}

double entropy(const Scans& b) {
  double total = 0, voxels = 0;
  for (Index n = 0; n < b.grid.cases; ++n)
    for (Index v = 0; v < b.grid.voxels(); ++v)
      if (!b.set(n).none() && b.label(n, v) != ignored)
        total -= std::log(b.joined(n, v, b.label(n, v))), ++voxels;
  return total / voxels;
}
/// The mean over annotated classes of one minus twice the overlap of q with the labels or organs.
template <class Wanted, class Probability, class Target>
double mean_dice(const Scans& b, Wanted wanted, Probability q, Target g, double above) {
  double total = 0, regions = 0;
  for (Index n = 0; n < b.grid.cases; ++n)
    for (Index c = 1; c < b.grid.channels; ++c) {
      if (b.set(n).none() || !wanted(n, c)) continue;
      double overlap = 0, sizes = 0;
      for (Index v = 0; v < b.grid.voxels(); ++v)
        if (b.label(n, v) != ignored)
          overlap += q(n, v, c) * g(n, v, c), sizes += q(n, v, c) + g(n, v, c);
      total += (2 * overlap + above) / (sizes + double(1e-5f)), ++regions;
    }
  return total / regions;
}
double dice(const Scans& b) {
  return 1 - mean_dice(
                 b, [&](Index n, Index c) { return b.set(n).has(c); },
                 [&](Index n, Index v, Index c) { return b.p(n, v, c); },
                 [&](Index n, Index v, Index c) { return b.label(n, v) == c ? 1.0 : 0.0; },
                 double(1e-5f));
}
double exclusion(const Scans& b) {
  return mean_dice(
      b, [&](Index n, Index c) { return !b.set(n).has(c); },
      [&](Index n, Index v, Index c) { return b.p(n, v, c); },
      [&](Index n, Index v, Index) { return b.label(n, v) != 0 ? 1.0 : 0.0; }, 0);
}
double sigmoid_terms(const Scans& b, double weight, Index first) {
  const auto s = [&](Index n, Index v, Index c) { return 1 / (1 + std::exp(-b.logit(n, v, c))); };
  double total = 0, voxels = 0;
  for (Index n = 0; n < b.grid.cases; ++n)
    for (Index c = first; c < b.grid.channels; ++c)
      for (Index v = 0; v < b.grid.voxels(); ++v) {
        if (b.set(n).none() || b.label(n, v) == ignored) continue;
        if (c == 0 ? !b.complete(n) : !b.set(n).has(c)) continue;
        total -= std::log(b.label(n, v) == c ? s(n, v, c) : 1 - s(n, v, c)), ++voxels;
      }
  const double overlap = mean_dice(
      b, [&](Index n, Index c) { return b.set(n).has(c); }, s,
      [&](Index n, Index v, Index c) { return b.label(n, v) == c ? 1.0 : 0.0; }, double(1e-5f));
  return 1 - overlap + weight * total / voxels;
}
doctest::Approx near(double value) { return doctest::Approx(value).epsilon(1e-10); }
double user(const Scans& b) { return dice(b) + entropy(b); }

bool any(const std::vector<double>& slopes, std::size_t first, std::size_t last) {
  for (std::size_t i = first; i < last; ++i)
    if (slopes[i] != 0) return true;
  return false;
}
/// Both D_0 and the annotated cases of D_1 teach; the last case, without annotated classes, does
/// not.
template <class Policy>
void check_slopes(const Policy& policy) {
  const Term term = term_of(policy);
  const std::size_t quarter = partial.z.size() / 4;
  CHECK(any(term.full_slopes, 0, term.full_slopes.size()));
  for (std::size_t n = 0; n < 4; ++n)
    CHECK(any(term.partial_slopes, n * quarter, (n + 1) * quarter) == (n < 3));
  for (const double slope : term.partial_slopes) CHECK(std::isfinite(slope));
}

/// A short training on partly annotated scans.
template <class Policy, class Net>
void check_trains(Policy policy, Net net) {
  const auto before = trial::weights_of(net);
  const auto cohort = trial::small_cohort(4, 4);
  auto options = trial::few_steps(2);
  options.full = std::vector<LoaderCase>{{0}, {1}};
  options.partial =
      std::vector<LoaderCase>{{2, AnnotatedSet{}.with(1)}, {3, AnnotatedSet{}.with(2)}};
  const auto report = run(options, cohort, net, Loss{}, policy, AdamW{.rate = 3e-3f});
  CHECK(report.skipped == 0);
  CHECK(trial::weights_of(net) != before);
}

}  // namespace

TEST_SUITE("semi/partly_labelled") {
  TEST_CASE("marginal training is the marginal loss of D_1 and nothing else") {
    CHECK(term_of(MarginalTraining{}).value == near(user(full) + user(partial)));
    check_slopes(MarginalTraining{});
  }
  TEST_CASE("exclusion training adds the exclusion loss with its weight") {
    const double marginal = user(full) + user(partial);
    CHECK(term_of(ExclusionTraining{}).value == near(marginal + 2 * exclusion(partial)));
    CHECK(term_of(ExclusionTraining{0.1f}).value ==
          near(marginal + double(0.1f) * exclusion(partial)));
    check_slopes(ExclusionTraining{});
    check_trains(ExclusionTraining{}, trial::small_net());
  }
  TEST_CASE("a loss of the user's that takes partial labels stays as it is") {
    const Marginal own{CrossEntropy{}};
    CHECK(term_of(MarginalTraining{}, partial, own).value ==
          near(entropy(full) + entropy(partial)));
    CHECK(term_of(ExclusionTraining{}, partial, own).value ==
          near(entropy(full) + entropy(partial) + 2 * exclusion(partial)));
    CHECK(term_of(MarginalTraining{}, partial, DeepSupervision{own}).value ==
          near(entropy(full) + entropy(partial)));
  }
  TEST_CASE("target-adaptive training asks the likelihood of D_1's labels only") {
    CHECK(term_of(TargetAdaptive{}).value == near(user(full) + entropy(partial)));
    check_slopes(TargetAdaptive{});
  }
  TEST_CASE("leaf Dice training adds leaf Dice and the marginal cross-entropy of D_1") {
    const double leaf = partial.value(LeafDice{});
    CHECK(term_of(LeafDiceTraining{}).value == near(user(full) + leaf + entropy(partial)));
    CHECK(term_of(LeafDiceTraining{0.5f}).value ==
          near(user(full) + leaf + 0.5 * entropy(partial)));
    check_slopes(LeafDiceTraining{});
  }
  TEST_CASE("the masked sigmoid sees annotated classes, and background in complete cases") {
    CHECK(term_of(MaskedSigmoid{}).value ==
          near(sigmoid_terms(full, 1, 0) + sigmoid_terms(partial, 1, 0)));
    CHECK(term_of(MaskedSigmoid{0.5f, false}).value ==
          near(sigmoid_terms(full, 0.5, 1) + sigmoid_terms(partial, 0.5, 1)));
    check_slopes(MaskedSigmoid{});
    check_trains(MaskedSigmoid{1, false},
                 DynamicUNet<UNetParts<trial::F>>({.classes = 3, .widths = {4, 8}}));
    const Term term = term_of(MaskedSigmoid{}), without = term_of(MaskedSigmoid{1, false});
    const auto background = [](const Term& t, bool d0) {
      bool any = false;
      for (std::size_t i = 0; i < t.partial_slopes.size() / 4; i += 4)  // case 0 lacks class 2
        any |= t.partial_slopes[i] != 0 || t.partial_slopes[i + 2] != 0;
      for (std::size_t i = 0; d0 && i < t.full_slopes.size(); i += 4) any |= t.full_slopes[i] != 0;
      return any;
    };
    CHECK(background(term, true));
    CHECK_FALSE(background(term, false));  // unknown in a partly annotated case
    CHECK_FALSE(background(without, true));
  }
  TEST_CASE("a network of sigmoids is right by its largest logit") {
    // Descent on the logits themselves: D_0 complete, D_1 without class 2.
    Scans known = Scans::random({1, 2, 2, 3, 3}, {}, 5);
    Scans other = Scans::random({1, 2, 2, 3, 3}, {AnnotatedSet{}.with(1)}, 6);
    const auto loss = Sum{Independent{Dice{}}, BinaryCrossEntropy{}};
    for (int step = 0; step < 300; ++step)
      for (Scans* b : {&known, &other}) {
        const auto slopes = b->gradient(loss);
        for (std::size_t i = 0; i < slopes.size(); ++i) b->z[i] -= 5 * slopes[i];
      }
    for (Index v = 0; v < known.grid.voxels(); ++v) {
      if (known.label(0, v) == ignored) continue;
      for (Index c = 0; c < 3; ++c)
        CHECK(known.logit(0, v, known.label(0, v)) >= known.logit(0, v, c));
    }
    for (Index v = 0; v < other.grid.voxels(); ++v)
      if (other.label(0, v) != ignored)
        CHECK((other.logit(0, v, 1) > 0) == (other.label(0, v) == 1));
  }
  TEST_CASE("without annotated classes in D_1 the term is that of D_0") {
    Scans nothing = partial;
    nothing.annotated.assign(4, {});
    CHECK(term_of(MarginalTraining{}, nothing).value == near(user(full)));
    CHECK(term_of(ExclusionTraining{}, nothing).value == near(user(full)));
    CHECK(term_of(TargetAdaptive{}, nothing).value == near(user(full)));
    CHECK(term_of(LeafDiceTraining{}, nothing).value == near(user(full)));
    CHECK(term_of(MaskedSigmoid{}, nothing).value == near(sigmoid_terms(full, 1, 0)));
    CHECK(term_of(MarginalTraining{}, nothing).partial_slopes.empty());
  }
  TEST_CASE("in two dimensions, and without D_1") {
    using Flat = check::Flat;
    Shown<Flat> net;
    const Clock<Cpu> clock;
    const Scans b = Scans::random({2, 1, 3, 4, 3}, {}, 2);
    const Samples<Flat> known{Flat::leaf(b.grid, b.logits<Flat>()), b.labels()}, none;
    SemiStep<Shown<Flat>, Loss> now(net, Loss{}, known, none, clock);
    ExclusionTraining policy;
    CHECK(supervised_by(policy, now).host() == near(user(b)));
    MaskedSigmoid masked;
    CHECK(supervised_by(masked, now).host() == near(sigmoid_terms(b, 1, 0)));
    Tape::current()->clear();
  }
}
