// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <limits>
#include <optional>

#include <segmed/autograd/gradient_sum.hpp>
#include <segmed/autograd/group.hpp>
#include <segmed/semi/policy.hpp>
#include <segmed/semi/replay.hpp>
#include <segmed/train/checkpoint.hpp>
#include <segmed/train/optimizer.hpp>

namespace segmed {

/// What one step did.
struct StepResult {
  double labelled = 0;    // the term of the labels
  double total = 0;       // with what the policy added
  double norm = 0;        // of the gradient before clipping
  bool skipped = false;   // the gradient was not finite, and no weight moved
  bool replayed = false;  // its kernels were queued as one; see semi/replay.hpp
};

/// What learns, whatever its network, loss, policy and optimizer are: what a run needs of a
/// Trainer.
template <FeatureMap F>
class Learner {
 public:
  using W = typename F::Wide;
  using D = typename F::device;

  virtual ~Learner() = default;
  virtual Hooks hooks() const = 0;
  virtual Needs needs() const = 0;
  /// Whether what D_1 annotates is learnt as labels.
  virtual bool takes_partial_labels() const = 0;
  /// One step on patches of D_0 and, unless it is empty, of D_1. `progress` is the fraction of the
  /// budget that is used, `factor` what the schedule makes of the rate.
  virtual StepResult step(const Samples<F>& full, const Samples<F>& partial, double progress,
                          float factor) = 0;
  virtual void start_round(Round<F>& round) = 0;
  virtual Index rounds() const = 0;
  /// Logits of the network to predict with.
  virtual F predict(const F& image) const = 0;
  /// Why steps are not replayed, where that was asked for; empty: they are.
  virtual std::string replay_refusal() const = 0;
  /// Steps done.
  Index step() const { return step_; }
  /// A number that tells other weights, of the policy's networks too, or another step.
  std::uint64_t fingerprint() {
    std::uint64_t hash = hash_of(std::to_string(step_));
    for (const Inventory& part : learning())
      for (const auto& at : part.leaves)
        if (at.leaf->trainable()) hash = 31 * hash + hash_of(at.leaf->stored().bytes);
    return hash;
  }

  /// Keeps everything that later steps depend on, and the network to predict with as "network".
  void save(Checkpoint& point) {
    point.save(predicting());
    for (const Inventory& part : learning()) point.save(part);
    point.save_optimizer("optimizer", trained());
    point.texts["run.skipped_in_a_row"] = std::to_string(skipped_);
  }
  /// Goes on where `save` was called; throws DataError when the checkpoint is of another model.
  void load(const Checkpoint& point) {
    for (const Inventory& part : learning()) point.load(part);
    point.load_optimizer("optimizer", trained());
    step_ = point.state.step;
    skipped_ = point.texts.count("run.skipped_in_a_row")  // older ones do not say
                   ? point.number<int>("run.skipped_in_a_row")
                   : 0;
  }

 protected:
  virtual Inventory predicting() = 0;
  virtual std::vector<Inventory> learning() = 0;
  virtual Group<W, D>& trained() = 0;

  Index step_ = 0;
  int skipped_ = 0;  // the last so many steps
};

/// A network, a loss, a policy and an optimizer that learn together, one step after the other. It
/// knows nothing of data, files or clocks on the wall.
template <Network Net, class Loss, class Policy, class Optimizer>
class Trainer final : public Learner<typename Net::Features> {
  static_assert(checked_policy<Policy, Net, Loss>());
  static_assert(OptimizerFor<Optimizer, typename Net::Features>,
                "run: the optimizer needs `rate` and `step(group, clock)`; see "
                "train/optimizer.hpp");

 public:
  using F = typename Net::Features;
  using W = typename F::Wide;
  using D = typename F::device;
  Hooks hooks() const override { return facts_.hooks; }
  Needs needs() const override { return facts_.needs; }
  bool takes_partial_labels() const override {
    return Criterion<Loss>::partial_labels || facts_.partial_labels;
  }

  /// `average`: how much of the averaged weights a step keeps; 0 keeps no average, nor does a
  /// policy that names the network to predict with. `max_norm`: the longest gradient; 0 clips
  /// nothing. `ranks`: who trains with it, each on its share of a batch. `replay`: capture a step
  /// and replay it, where device and policy can.
  Trainer(Net& net, const Loss& loss, Policy& policy, const Optimizer& optimizer,
          std::uint64_t seed, float average, double max_norm, const Ranks& ranks = {},
          bool replay = false)
      : net_(net),
        loss_(loss),
        policy_(policy),
        facts_(facts_of<Net, Loss>(policy)),
        optimizer_(optimizer),
        average_keep_{average},
        max_norm_(max_norm > 0 ? max_norm : std::numeric_limits<double>::infinity()),
        seed_(seed),
        ranks_(ranks),
        clock_(seed),
        trained_(Role::trained, net, policy),
        frozen_(Role::frozen, policy),
        gradients_(trained_, ranks) {
    if constexpr (can_replay)
      if (replay && facts_.replays && ranks.alone()) replay_.emplace();
    if (replay)
      refusal_ = !HasGraphs<D> ? "the device cannot"
                 : !facts_.replays
                     ? "the policy does not say that its terms are computed by kernels alone"
                 : ranks.alone() ? ""
                                 : "several ranks train together";
    if (!facts_.hooks.predictor && average > 0) {
      average_.emplace(Net(net));
      averaged_.emplace(Role::frozen, *average_);
    }
  }

  StepResult step(const Samples<F>& full, const Samples<F>& partial, double progress,
                  float factor) override {
    require<DataError>(!facts_.needs.strong_view || partial.empty() || !partial.strong.empty(),
                       "run",
                       "the policy needs a strong view of D_1, and these samples have none; make "
                       "them with SampleOptions::strong_view");
    const RanksScope together(ranks_);
    clock_.set({seed_, std::uint32_t(step_), float(progress), sigmoid_ramp(float(progress)),
                optimizer_.rate * factor});
    SemiStep<Net, Loss> now(net_, loss_, full, partial, clock_);
    Tape::current()->clear();  // what a step that threw may have left
    StepResult result;
    const auto [labelled, total] = terms_of(now, result.replayed);
    gradients_.finish();
    result.norm = update(optimizer_, trained_, clock_, max_norm_);
    result.skipped = !std::isfinite(result.norm);
    result.labelled = labelled.host(), result.total = total.host();
    skipped_ = result.skipped ? skipped_ + 1 : 0;
    require<Error>(skipped_ < 20, "run",
                   "20 steps in a row had no finite gradient, the last at step ", step_,
                   " with a loss of ", result.total, "; lower the rate");
    if (!result.skipped) {
      if constexpr (has.after_step) policy_.after_step(now);
      if (average_) average_keep_.follow(*average_, net_, step_);
    }
    ++step_;
    return result;
  }

  /// The network to predict with: the policy's choice, else the average, else the student.
  const Net& predictor() const {
    if constexpr (has.predictor)
      if (facts_.hooks.predictor) return policy_.predictor(net_);
    return average_ ? average_->module : net_;
  }
  std::string replay_refusal() const override {
    if constexpr (can_replay)
      if (replay_) return replay_->refusal();
    return refusal_;
  }
  F predict(const F& image) const override { return predictor()(image); }
  void start_round(Round<F>& round) override {
    if constexpr (has.start_round) policy_.start_round(round);
  }
  Index rounds() const override { return rounds_of(policy_); }

 private:
  // What can be called; `facts_` says what a policy that was chosen at run time does then.
  static constexpr Hooks has = hooks_of<Policy, Net, Loss>();
  using Learner<F>::step_;
  using Learner<F>::skipped_;
  static constexpr bool can_replay =
      HasGraphs<D> && (ChosenAtRunTime<Policy> || facts_of<Policy, Net, Loss>().replays);
  struct Terms {
    typename SemiStep<Net, Loss>::Value labelled, total;
  };

  /// Forward and backward.
  Terms computed(SemiStep<Net, Loss>& now) {
    trained_.clear_grads();
    Terms terms;
    terms.labelled = supervised_by(policy_, now);
    terms.total = terms.labelled + loss_by(policy_, now);
    backward(terms.total, gradients_.begin());
    return terms;
  }
  Terms terms_of(SemiStep<Net, Loss>& now, bool& replayed) {
    if constexpr (can_replay)
      if (replay_)
        return replay_->step(
            now.full, now.partial,
            [&](const Samples<F>& full, const Samples<F>& partial) {
              SemiStep<Net, Loss> captured(net_, loss_, full, partial, clock_);
              return computed(captured);
            },
            [&] { trained_.values.write(); }, replayed);
    return computed(now);
  }

  Inventory predicting() override { return Inventory(predictor(), "network"); }
  std::vector<Inventory> learning() override {
    std::vector<Inventory> parts{Inventory(net_, "student"), Inventory(policy_, "policy")};
    if (average_) parts.emplace_back(*average_, "average");
    return parts;
  }
  Group<W, D>& trained() override { return trained_; }

  Net& net_;
  const Loss& loss_;
  Policy& policy_;
  const PolicyFacts facts_;
  const Optimizer& optimizer_;
  WeightAverage average_keep_;
  double max_norm_;
  std::uint64_t seed_;
  Ranks ranks_;
  Clock<D> clock_;
  Group<W, D> trained_, frozen_;
  GradientSum<W, D> gradients_;
  std::optional<Frozen<Net>> average_;
  std::optional<Group<W, D>> averaged_;
  std::conditional_t<can_replay, std::optional<StepReplay<F, Terms>>, char> replay_ = {};
  const char* refusal_ = "";  // what is known before the first step
};

}  // namespace segmed
