// SPDX-License-Identifier: Apache-2.0
#define EXPERIMENTS_TEMPLATE template
#include "training.hpp"

#include <segmed/experiment/run.hpp>
#include <segmed/train/checkpoint.hpp>

namespace experiments::ON_DEVICE {

using namespace segmed;

namespace {

Losses losses_named(const std::string& name) {
  const float dice = name == "cross_entropy" ? 0.0f : 1.0f;
  // Beside Dice, cross-entropy counts half: most voxels are background, which it learns first.
  const float entropy = name == "dice" ? 0.0f : name == "dice_ce" ? 0.5f : 1.0f;
  return {{dice, Dice{}}, {entropy, CrossEntropy{}}};
}

/// The optimizers that the command line offers, as one type.
struct ChosenOptimizer {
  float rate = 1e-3f;
  bool sgd = false;

  template <class W, class D>
  void step(Group<W, D>& group, const Clock<D>& clock) const {
    if (sgd)
      Sgd{.rate = rate}.step(group, clock);
    else
      AdamW{.rate = rate}.step(group, clock);
  }
};

/// The network that a run starts with.
template <class F>
AnyNetwork<F> starting_network(const Start& start) {
  AnyNetwork<F> net = network_of<F>(start.recipe, start.seed);
  if (!start.weights.empty()) Checkpoint::read(start.weights).load("network", net);
  return net;
}
/// The policies of a run as one, set as they were asked for.
template <class F, class Loss>
ChosenPolicy<F, Loss> starting_policy(const AnyNetwork<F>& net, const Start& start) {
  std::vector<ChosenPolicy<F, Loss>> all;
  for (const AskedPolicy& asked : start.policies) {
    const auto& makers = static_cast<const Makers&>(*asked.entry->makers);
    all.push_back(std::get<Maker<F, Loss>>(makers.all)(asked.entry->name, net, start));
    set_options(all.back(), asked.options, asked.text);
    rounds_of(all.back());  // complains of none
  }
  return ChosenPolicy<F, Loss>::together(std::move(all));
}

/// Calls `call` for the rank of a start's networks and the loss that its policies take: one that
/// reads partial labels by itself takes the loss of whole annotations, and all beside it.
template <class Call>
auto with_types(const Start& start, Call call) {
  bool whole = false;
  for (const AskedPolicy& asked : start.policies) whole |= asked.entry->whole;
  const bool flat = start.recipe.flat();
  if (whole)
    return flat ? call.template of<Flat, WholeLoss>() : call.template of<Solid, WholeLoss>();
  return flat ? call.template of<Flat, PartialLoss>() : call.template of<Solid, PartialLoss>();
}

struct Training {
  const TrainJob& job;
  template <class F, class Loss>
  RunReport of() const {
    AnyNetwork<F> net = starting_network<F>(job.start);
    auto policy = starting_policy<F, Loss>(net, job.start);
    const Recipe& recipe = job.start.recipe;
    const ChosenOptimizer optimizer{recipe.rate, recipe.optimizer == "sgd"};
    return run(job.options, job.data, net, Loss{{losses_named(recipe.loss)}}, policy, optimizer);
  }
};
struct Checking {
  const Start& start;
  template <class F, class Loss>
  void of() const {
    starting_policy<F, Loss>(starting_network<F>(start), start);
  }
};

}  // namespace

RunReport train(const TrainJob& job) { return with_types(job.start, Training{job}); }
void check_start(const Start& start) { with_types(start, Checking{start}); }

}  // namespace experiments::ON_DEVICE
