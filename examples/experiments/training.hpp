// SPDX-License-Identifier: Apache-2.0
// How one run of any policy is started. Each policy has a .cpp of its own for both ranks; what is
// the same for all of them is compiled once, in training.cpp and in the library.
#pragma once
#include "networks.hpp"
#include "policies.hpp"
#include <segmed/experiment/run.hpp>
#include <segmed/losses/composition.hpp>
#include <segmed/losses/deep_supervision.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/partial.hpp>
#include <segmed/losses/region.hpp>

namespace experiments::ON_DEVICE {

/// The losses that the command line offers, as one type: a weight of zero leaves a part out. A
/// network with one output is supervised at one resolution.
using Losses = segmed::Sum<segmed::Weighted<segmed::Dice>, segmed::Weighted<segmed::CrossEntropy>>;
using WholeLoss = segmed::DeepSupervision<Losses>;
/// The same on fully annotated cases; where classes were not annotated they join the background.
using PartialLoss = segmed::DeepSupervision<segmed::Marginal<Losses>>;

Losses losses_named(const std::string& name);

/// The optimizers that the command line offers, as one type.
struct ChosenOptimizer {
  float rate = 1e-3f;
  bool sgd = false;

  template <class W, class D>
  void step(segmed::Group<W, D>& group, const segmed::Clock<D>& clock) const {
    if (sgd)
      segmed::Sgd{.rate = rate}.step(group, clock);
    else
      segmed::AdamW{.rate = rate}.step(group, clock);
  }
};

/// The network that a run starts with.
template <class F>
segmed::AnyNetwork<F> starting_network(const Start& start);
extern template segmed::AnyNetwork<Flat> starting_network<Flat>(const Start&);
extern template segmed::AnyNetwork<Solid> starting_network<Solid>(const Start&);

/// The policy that `Make{}(net)` or `Make{}(net, start)` returns, set as it was asked for.
template <class Make>
auto starting_policy(const auto& net, const Start& start) {
  auto policy = [&] {
    if constexpr (requires { Make{}(net, start); })
      return Make{}(net, start);
    else
      return Make{}(net);
  }();
  segmed::set_options(policy, start.options, start.policy);
  segmed::rounds_of(policy);  // complains of none
  return policy;
}

/// Trains a network of rank F::dim with a policy.
template <class F, class Loss, class Make>
segmed::RunReport train_with(const TrainJob& job) {
  segmed::AnyNetwork<F> net = starting_network<F>(job.start);
  auto policy = starting_policy<Make>(net, job.start);
  const Recipe& recipe = job.start.recipe;
  const ChosenOptimizer optimizer{recipe.rate, recipe.optimizer == "sgd"};
  return segmed::run(job.options, job.data, net, Loss{{losses_named(recipe.loss)}}, policy,
                     optimizer);
}
template <class F, class Loss, class Make>
constexpr PolicyUnit policy_unit{train_with<F, Loss, Make>, [](const Start& start) {
                                   starting_policy<Make>(starting_network<F>(start), start);
                                 }};

/// A row of the table of policies. `Make` is a lambda without captures that takes the starting
/// network, of either rank. Labels of D_1 are learnt from with `Loss`, unless the policy has a term
/// of its own for them.
template <class Loss = PartialLoss, class Make>
consteval PolicyEntry policy(const char* name, const char* sentence, Make) {
  return {name, sentence, policy_unit<Flat, Loss, Make>, policy_unit<Solid, Loss, Make>};
}
/// A row with what of the recipe it cannot do without.
consteval PolicyEntry with(PolicyEntry entry, void (*adapt)(Recipe&)) {
  entry.adapt = adapt;
  return entry;
}
/// A row that trains on D_0 alone.
template <class Make>
consteval PolicyEntry baseline(const char* name, const char* sentence, Make make) {
  PolicyEntry entry = policy<WholeLoss>(name, sentence, make);
  entry.baseline = true;
  return entry;
}

/// The network's type, in a lambda that takes it as `const auto&`.
template <class Net>
using Of = std::remove_cvref_t<Net>;

}  // namespace experiments::ON_DEVICE

// Compiled in training.cpp, which says what EXPERIMENTS_TEMPLATE is.
#if !defined(EXPERIMENTS_TEMPLATE)
#define EXPERIMENTS_TEMPLATE extern template
#endif
namespace segmed {

#define OF_RANK(F)                                                                           \
  EXPERIMENTS_TEMPLATE class AnyNetwork<F>;                                                  \
  EXPERIMENTS_TEMPLATE Scalar<F> voxel_loss(const experiments::ON_DEVICE::Losses&, const F&, \
                                            const Labels<experiments::ON_DEVICE::Device>&);  \
  EXPERIMENTS_TEMPLATE Scalar<F> voxel_loss(const Marginal<experiments::ON_DEVICE::Losses>&, \
                                            const F&,                                        \
                                            const Labels<experiments::ON_DEVICE::Device>&);  \
  EXPERIMENTS_TEMPLATE class SemiStep<AnyNetwork<F>, experiments::ON_DEVICE::WholeLoss>;     \
  EXPERIMENTS_TEMPLATE class SemiStep<AnyNetwork<F>, experiments::ON_DEVICE::PartialLoss>
OF_RANK(experiments::ON_DEVICE::Flat);
OF_RANK(experiments::ON_DEVICE::Solid);
#undef OF_RANK
#undef EXPERIMENTS_TEMPLATE

}  // namespace segmed
