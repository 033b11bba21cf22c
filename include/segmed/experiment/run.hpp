// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/experiment/compiled.hpp>
#include <segmed/experiment/session.hpp>

namespace segmed {

/// Trains `net`: D_0 with the loss, D_1 as the policy wants. Ranks that train together share each
/// batch, and compute what one process computes with the whole batch.
///
///   throws   ConfigError for options, DataError when no case can be loaded, Error when the loss
///            stays without a finite gradient
template <Network Net, class Loss, class Policy, class Optimizer>
RunReport run(const RunOptions& options, TrainingData data, Net& net, const Loss& loss,
              Policy&& policy, const Optimizer& optimizer) {
  using F = typename Net::Features;
  using P = std::remove_cvref_t<Policy>;
  require<ConfigError>((options.steps > 0) != (options.minutes > 0), "run",
                       "give a budget in steps or in minutes, not both (steps ", options.steps,
                       ", minutes ", options.minutes, ")");
  require<ConfigError>(F::dim == 3 || options.patch[2] == 1, "run",
                       "a 2-D network takes patches of one slice; give patch {", options.patch[0],
                       ", ", options.patch[1], ", 1}");
  Trainer<Net, Loss, P, Optimizer> trainer(net, loss, policy, optimizer, options.seed,
                                           options.average, options.max_norm, options.ranks,
                                           options.replay);
  return RunSession<F>(options, std::move(data), trainer).run();
}
/// Likewise, on the cases of a cohort.
template <Cohort C, Network Net, class Loss, class Policy, class Optimizer>
RunReport run(const RunOptions& options, const C& cohort, Net& net, const Loss& loss,
              Policy&& policy, const Optimizer& optimizer) {
  return run(options, TrainingData(cohort, options), net, loss, policy, optimizer);
}

}  // namespace segmed
