// SPDX-License-Identifier: Apache-2.0
// How policies are made. Each has a .cpp of its own, which makes it for both ranks; how one run of
// any of them is started is compiled once, in training.cpp and in the library.
#pragma once
#include <tuple>

#include "networks.hpp"
#include "policies.hpp"
#include <segmed/experiment/compiled.hpp>
#include <segmed/losses/composition.hpp>
#include <segmed/losses/deep_supervision.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/partial.hpp>
#include <segmed/losses/region.hpp>
#include <segmed/semi/any_policy.hpp>

namespace experiments::ON_DEVICE {

/// The losses that the command line offers, as one type: a weight of zero leaves a part out. A
/// network with one output is supervised at one resolution.
using Losses = segmed::Sum<segmed::Weighted<segmed::Dice>, segmed::Weighted<segmed::CrossEntropy>>;
using WholeLoss = segmed::DeepSupervision<Losses>;
/// The same on fully annotated cases; where classes were not annotated they join the background.
using PartialLoss = segmed::DeepSupervision<segmed::Marginal<Losses>>;

template <class F, class Loss>
using ChosenPolicy = segmed::AnyPolicy<segmed::AnyNetwork<F>, Loss>;

template <class F, class Loss>
using Maker = ChosenPolicy<F, Loss> (*)(const char* name, const segmed::AnyNetwork<F>& net,
                                        const Start& start);

/// What a policy is made by, for a starting network of either rank and for either loss.
struct Makers : PolicyMakers {
  std::tuple<Maker<Flat, WholeLoss>, Maker<Solid, WholeLoss>, Maker<Flat, PartialLoss>,
             Maker<Solid, PartialLoss>>
      all;
  constexpr explicit Makers(auto... makers) : all(makers...) {}
};

/// The policy that `Make{}(net)` or `Make{}(net, start)` returns.
template <class Make, class Net>
auto made_by(const Net& net, const Start& start) {
  if constexpr (requires { Make{}(net, start); })
    return Make{}(net, start);
  else
    return Make{}(net);
}
template <class Make>
constexpr segmed::Hooks hooks_by() {
  using Net = segmed::AnyNetwork<Flat>;
  using P = decltype(made_by<Make>(std::declval<const Net&>(), std::declval<const Start&>()));
  return segmed::hooks_of<P, Net, PartialLoss>();
}
/// A policy that replaces the term of the labels brings its loss into every composition; another
/// one takes the loss of what stands beside it.
template <class Make, class Own, class F, class Loss>
constexpr Maker<F, Loss> maker_by() {
  if constexpr (std::same_as<Loss, Own> || !hooks_by<Make>().supervised)
    return [](const char* name, const segmed::AnyNetwork<F>& net, const Start& start) {
      return ChosenPolicy<F, Loss>(name, made_by<Make>(net, start));
    };
  else
    return nullptr;
}
template <class Make, class Own>
constexpr Makers makers_by(maker_by<Make, Own, Flat, WholeLoss>(),
                           maker_by<Make, Own, Solid, WholeLoss>(),
                           maker_by<Make, Own, Flat, PartialLoss>(),
                           maker_by<Make, Own, Solid, PartialLoss>());

/// A row of the table of policies. `Make` is a lambda without captures that takes the starting
/// network, of either rank. Labels of D_1 are learnt from with `Loss`, unless the policy has a term
/// of its own for them.
template <class Loss = PartialLoss, class Make>
consteval PolicyEntry policy(const char* name, const char* sentence, Make) {
  return {name, sentence, hooks_by<Make>(), std::same_as<Loss, WholeLoss>, &makers_by<Make, Loss>};
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
  EXPERIMENTS_TEMPLATE class SemiStep<AnyNetwork<F>, experiments::ON_DEVICE::PartialLoss>;   \
  EXPERIMENTS_TEMPLATE class AnyPolicy<AnyNetwork<F>, experiments::ON_DEVICE::WholeLoss>;    \
  EXPERIMENTS_TEMPLATE class AnyPolicy<AnyNetwork<F>, experiments::ON_DEVICE::PartialLoss>
OF_RANK(experiments::ON_DEVICE::Flat);
OF_RANK(experiments::ON_DEVICE::Solid);
#undef OF_RANK
#undef EXPERIMENTS_TEMPLATE

}  // namespace segmed
