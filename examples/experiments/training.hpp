// SPDX-License-Identifier: Apache-2.0
// How one run of any policy is started. A policy and a rank are compiled in a .cpp of their own, so
// that nothing takes long to compile; everything above sees the table in policies.hpp.
#pragma once
#include "networks.hpp"
#include "policies.hpp"
#include <segmed/segmed.hpp>

namespace experiments {

/// The losses that the command line offers, as one type: a weight of zero leaves a part out.
using ChosenLoss =
    segmed::Sum<segmed::Weighted<segmed::Dice>, segmed::Weighted<segmed::CrossEntropy>>;

inline ChosenLoss loss_of(const std::string& name) {
  const float dice = name == "cross_entropy" ? 0.0f : 1.0f;
  // Beside Dice, cross-entropy counts half: most voxels are background, which it learns first.
  const float entropy = name == "dice" ? 0.0f : name == "dice_ce" ? 0.5f : 1.0f;
  return {{dice, segmed::Dice{}}, {entropy, segmed::CrossEntropy{}}};
}

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

/// Trains a network of rank F::dim with the policy that `make(net)` returns.
template <class F, class Make>
segmed::RunReport train_with(const TrainJob& job, Make make) {
  using Net = segmed::AnyNetwork<F>;
  Net net = network_of<F>(job.recipe, job.options.seed);
  const ChosenOptimizer optimizer{job.recipe.rate, job.recipe.optimizer == "sgd"};
  // A network with one output is supervised at one resolution: one loss type serves both.
  return segmed::run(job.options, job.cohort, net,
                     segmed::DeepSupervision{loss_of(job.recipe.loss)}, make(net), optimizer);
}

}  // namespace experiments
