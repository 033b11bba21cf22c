// SPDX-License-Identifier: Apache-2.0
// A policy is a plain struct that adds one term to the loss of a step. What else it may have:
//
//   Value supervised(now)        replaces the term of the labels
//   Value loss(now, labelled)    the same where a second network learns the labels; see loss_by
//   void after_step(now)         the weights have just moved
//   void start_round(round)      before each round: `round` predicts and relabels the cases of D_1
//   Index rounds                 of equal length, in a run; one without it
//   const auto& predictor(net)   the network to predict with; the student or its average otherwise
//   static constexpr Needs needs what the loader shall prepare
//   static constexpr bool partial_labels = true   its own term of the labels learns what D_1
//                                annotates, whatever the loss
//   members(self, visit)         what it owns: trained with the student, or inside of a Frozen
//   options(self, visit)         its numbers that a user may choose by name, and their ranges; see
//                                semi/options.hpp
//   save / load                  plain state that a checkpoint shall keep; see SavesItself in
//                                autograd/module.hpp
//   static constexpr bool replays = true   its terms are computed by kernels alone: nothing on the
//                                host changes from step to step, so that they may be replayed
//
// Where several ranks train together, all of them must compute the same terms: a branch that looks
// at samples asks `Ranks::current().any(condition)`. Each starts a round with its share of D_1.
#pragma once
#include <functional>

#include <segmed/autograd/module.hpp>
#include <segmed/semi/hooks.hpp>
#include <segmed/semi/options.hpp>
#include <segmed/semi/step.hpp>

namespace segmed {

/// D_1 as a policy sees it before a round: whole cases, in the order of the cohort. Where ranks
/// train together each sees every size-th of them, and the labels that it gives reach all ranks
/// when the hook returns; who counts over cases adds the counts of all `ranks`, and no rank may
/// have a state of its own.
template <FeatureMap F>
struct Round {
  using D = typename F::device;
  Index number = 0;   // 0 before the first step
  Index classes = 0;  // with background
  Ranks ranks;        // who shares D_1
  struct Case {
    std::string id;
    AnnotatedSet annotated;
    /// Class numbers for every voxel, as the predicting network sees them.
    std::function<std::vector<std::uint8_t>()> predict;
    /// Labels for every voxel by the rules of `complete`: what people drew, elsewhere background or
    /// a class that nobody annotated, and 255 where the network is less sure than `confidence`.
    std::function<std::vector<std::uint8_t>(float confidence)> complete;
    /// What D_1 says of this case from now on: labels for every voxel, 255 where nobody knows.
    std::function<void(std::vector<std::uint8_t>, AnnotatedSet)> relabel;
    /// The labels that people drew; 0 everywhere in an unlabelled case.
    std::function<std::vector<std::uint8_t>()> labels;
  };
  std::vector<Case> cases;
};

/// A plain struct with `auto loss(auto& now)` that returns a Scalar of the network's Features.
template <class P, class Net, class Loss>
concept SemiPolicy = requires(P& policy, SemiStep<Net, Loss>& now) {
  { policy.loss(now) } -> std::same_as<typename SemiStep<Net, Loss>::Value>;
};

template <class P>
constexpr Needs needs_of() {
  if constexpr (requires { P::needs; })
    return P::needs;
  else
    return {};
}

/// What a policy says of itself beside its terms.
struct PolicyFacts {
  Hooks hooks;
  Needs needs;
  bool replays = false;         // its terms are computed by kernels alone
  bool partial_labels = false;  // its own term of the labels learns what D_1 annotates

  /// Of two policies at once.
  friend constexpr PolicyFacts operator+(const PolicyFacts& a, const PolicyFacts& b) {
    return {a.hooks | b.hooks, a.needs | b.needs, a.replays && b.replays,
            a.partial_labels || b.partial_labels};
  }
};
template <class P, class Net, class Loss>
constexpr PolicyFacts facts_of() {
  if constexpr (requires { P::composed; }) {
    return facts_of<decltype(P::first), Net, Loss>() + facts_of<decltype(P::second), Net, Loss>();
  } else {
    using Now = SemiStep<Net, Loss>;
    PolicyFacts facts;
    Hooks& hooks = facts.hooks;
    hooks.supervised = requires(P & p, Now & now) { p.supervised(now); };
    hooks.after_step = requires(P & p, Now & now) { p.after_step(now); };
    hooks.start_round = requires(P & p, Round<typename Net::Features> & r) { p.start_round(r); };
    hooks.rounds = requires(const P& p) { p.rounds; };
    hooks.predictor = requires(const P& p, const Net& n) { p.predictor(n); };
    hooks.needs = requires { P::needs; };
    hooks.members = Module<P>;
    hooks.options = HasOptions<P>;
    hooks.save = SavesItself<P>;
    facts.needs = needs_of<P>();
    facts.replays = requires { requires P::replays; };
    facts.partial_labels = requires { requires P::partial_labels; };
    return facts;
  }
}
template <class P, class Net, class Loss>
constexpr Hooks hooks_of() {
  return facts_of<P, Net, Loss>().hooks;
}

/// A policy that says when it is asked what others say to the compiler; see AnyPolicy.
template <class P>
concept ChosenAtRunTime = requires(const P& policy) {
  { policy.facts() } -> std::same_as<PolicyFacts>;
};
template <class Net, class Loss, class P>
constexpr PolicyFacts facts_of(const P& policy) {
  if constexpr (ChosenAtRunTime<P>)
    return policy.facts();
  else
    return facts_of<P, Net, Loss>();
}

/// Every hook's name, so that a second base with the same name makes it ambiguous: the one way to
/// ask whether P has a member of that name, template or not.
struct HookNames {
  int supervised, after_step, start_round, predictor, members, options;
};
template <class P>
struct Ambiguous : P, HookNames {};

/// Whether that can be asked of P: nothing derives from a final class.
template <class P>
constexpr bool may_be_asked() {
  if constexpr (requires { P::composed; })
    return may_be_asked<decltype(P::first)>() && may_be_asked<decltype(P::second)>();
  else
    return !std::is_final_v<P>;
}

/// Whether every hook that P has by name can be called as written above: a wrong signature must not
/// pass for no hook.
template <class P, class Net, class Loss>
constexpr bool hooks_fit() {
  if constexpr (requires { P::composed; }) {
    return hooks_fit<decltype(P::first), Net, Loss>() &&
           hooks_fit<decltype(P::second), Net, Loss>();
  } else if constexpr (std::is_final_v<P>) {
    return false;
  } else {
    using A = Ambiguous<P>;
    constexpr Hooks found = hooks_of<P, Net, Loss>();
    return (requires { &A::supervised; } || found.supervised) &&
           (requires { &A::after_step; } || found.after_step) &&
           (requires { &A::start_round; } || found.start_round) &&
           (requires { &A::predictor; } || found.predictor) &&
           (requires { &A::members; } || found.members) &&
           (requires { &A::options; } || found.options);
  }
}

/// Says to the compiler what is wrong with a policy.
template <class P, class Net, class Loss>
constexpr bool checked_policy() {
  static_assert(SemiPolicy<P, Net, Loss>,
                "run: the policy needs `auto loss(auto& now)` that returns a Scalar of the "
                "network's Features; see semi/policy.hpp");
  static_assert(may_be_asked<P>(),
                "run: the policy is final, so that a hook with a wrong signature would pass for "
                "none; leave `final` out");
  static_assert(!may_be_asked<P>() || hooks_fit<P, Net, Loss>(),
                "run: one of the policy's hooks has the name but not the signature: "
                "supervised(now), after_step(now), start_round(round), predictor(net), "
                "members(self, visit), options(self, visit); see semi/policy.hpp");
  return true;
}

/// Into how many rounds a policy cuts a run. Throws ConfigError for less than one.
template <class P>
Index rounds_of(const P& policy) {
  Index rounds = 1;
  if constexpr (requires { P::composed; })
    rounds = std::max(rounds_of(policy.first), rounds_of(policy.second));
  else if constexpr (ChosenAtRunTime<P>)
    rounds = policy.round_count();
  else if constexpr (requires { policy.rounds; })
    rounds = policy.rounds;
  require<ConfigError>(rounds >= 1, "policy", "its rounds are ", rounds, "; give 1 or more");
  return rounds;
}
/// The network that a policy predicts with.
template <class P, class Net>
const auto& predictor(const P& policy, const Net& student) {
  if constexpr (requires { policy.predictor(student); })
    return policy.predictor(student);
  else
    return student;
}

/// Whether somebody annotated a class in one of the samples, those of other ranks included.
template <FeatureMap F>
bool any_annotated(const Samples<F>& samples) {
  bool some = false;
  for (const AnnotatedSet& set : samples.labels.annotated) some |= !set.none();
  return Ranks::current().any(some);
}
/// The usual term of the labels: D_0, and D_1 as far as it is annotated if the loss can tell.
template <class Net, class Loss>
auto supervised(SemiStep<Net, Loss>& now) {
  auto term = now.labelled_full();
  if constexpr (Criterion<Loss>::partial_labels)
    if (any_annotated(now.partial)) term = term + now.labelled_partial();
  return term;
}
/// The term that a policy trains the labels with: its own, or the usual one.
template <class P, class Net, class Loss>
auto supervised_by(P& policy, SemiStep<Net, Loss>& now) {
  if constexpr (requires { policy.supervised(now); })
    return policy.supervised(now);
  else
    return supervised(now);
}

/// What a policy adds to the loss of a step. A policy that trains a second network may take
/// `loss(now, labelled)`: labelled(step) is the term that the run trains the labels with, be it
/// another policy's, for a step of any network.
template <class P, class Now, class Labelled>
auto loss_by(P& policy, Now& now, const Labelled& labelled) {
  if constexpr (requires { policy.loss(now, labelled); })
    return policy.loss(now, labelled);
  else
    return policy.loss(now);
}
/// The same where the policy is alone.
template <class P, class Now>
auto loss_by(P& policy, Now& now) {
  return loss_by(policy, now, [&](auto& step) { return supervised_by(policy, step); });
}

/// Labels and nothing else: what every policy is compared with. Uses D_1's partial labels: by the
/// usual term of the labels, so only if the loss takes them.
struct Supervised {
  static constexpr bool replays = true;

  template <class Now>
  typename Now::Value loss(Now&) {
    return {};
  }
};

/// Two policies at once. At most one of them may replace the term of the labels.
template <class A, class B>
struct Both {
  static_assert(!ChosenAtRunTime<A> && !ChosenAtRunTime<B>,
                "Both: policies that are chosen at run time compose by AnyPolicy::together; see "
                "semi/any_policy.hpp");
  static constexpr bool composed = true;
  static constexpr Needs needs = needs_of<A>() | needs_of<B>();
  A first;
  B second;

  auto loss(auto& now) { return loss_by(*this, now); }
  auto loss(auto& now, const auto& labelled) {
    return loss_by(first, now, labelled) + loss_by(second, now, labelled);
  }
  auto supervised(auto& now) requires requires { first.supervised(now); } || requires {
    second.supervised(now);
  }
  {
    constexpr bool one = requires { first.supervised(now); };
    constexpr bool two = requires { second.supervised(now); };
    static_assert(
        !(one && two),
        "Both: the two policies both replace the term of the labels; see semi/policy.hpp");
    if constexpr (one)
      return first.supervised(now);
    else
      return second.supervised(now);
  }
  void after_step(auto& now) requires requires { first.after_step(now); } || requires {
    second.after_step(now);
  }
  {
    each([&](auto& p) {
      if constexpr (requires { p.after_step(now); }) p.after_step(now);
    });
  }
  void start_round(auto& round) requires requires { first.start_round(round); } || requires {
    second.start_round(round);
  }
  {
    each([&](auto& p) {
      if constexpr (requires { p.start_round(round); }) p.start_round(round);
    });
  }
  /// The first that has one decides.
  const auto& predictor(const auto& student) const requires requires {
    first.predictor(student);
  } || requires {
    second.predictor(student);
  }
  {
    if constexpr (requires { first.predictor(student); })
      return first.predictor(student);
    else
      return second.predictor(student);
  }
  static void options(auto& self, auto&& visit) { members(self, visit); }
  static void members(auto& self, auto&& visit) {
    visit("first", self.first);
    visit("second", self.second);
  }

 private:
  void each(auto&& f) {
    f(first);
    f(second);
  }
};
template <class A, class B>
Both(A, B) -> Both<A, B>;

}  // namespace segmed
