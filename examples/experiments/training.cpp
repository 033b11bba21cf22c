// SPDX-License-Identifier: Apache-2.0
#define EXPERIMENTS_TEMPLATE template
#include "training.hpp"

#include <segmed/train/checkpoint.hpp>

namespace experiments::ON_DEVICE {

using namespace segmed;

Losses losses_named(const std::string& name) {
  const float dice = name == "cross_entropy" ? 0.0f : 1.0f;
  // Beside Dice, cross-entropy counts half: most voxels are background, which it learns first.
  const float entropy = name == "dice" ? 0.0f : name == "dice_ce" ? 0.5f : 1.0f;
  return {{dice, Dice{}}, {entropy, CrossEntropy{}}};
}

template <class F>
AnyNetwork<F> starting_network(const Start& start) {
  AnyNetwork<F> net = network_of<F>(start.recipe, start.seed);
  if (!start.weights.empty()) Checkpoint::read(start.weights).load("network", net);
  return net;
}
template AnyNetwork<Flat> starting_network<Flat>(const Start&);
template AnyNetwork<Solid> starting_network<Solid>(const Start&);

}  // namespace experiments::ON_DEVICE
