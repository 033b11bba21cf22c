// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "recipe.hpp"
#include <segmed/experiment/training_data.hpp>
#include <segmed/semi/options.hpp>

namespace experiments {

/// What learns before its first step: the network of a recipe, and a policy set to something.
struct Start {
  const Recipe& recipe;
  std::uint64_t seed = 1;
  std::string policy = {};             // as it was asked for
  segmed::PolicyOptions options = {};  // of the policy; the others have their defaults
  std::string weights = {};            // a checkpoint with the network's; else they are drawn
};
/// One training run: on what, from where, how, and where it goes.
struct TrainJob {
  segmed::TrainingData data;
  Start start;
  segmed::RunOptions options;
};
/// What the program can do with a policy, for networks of one rank.
struct PolicyUnit {
  segmed::RunReport (*train)(const TrainJob&);
  void (*make)(const Start&);  // throws what is wrong with its options
};

/// A policy that the command line knows by name. Each is defined in a policy_<name>.cpp of its own.
struct PolicyEntry {
  const char* name;                         // snake_case
  const char* sentence;                     // what it does
  PolicyUnit flat, solid;                   // for 2-D and 3-D networks
  bool baseline = false;                    // trains on D_0 alone
  void (*adapt)(Recipe&) = [](Recipe&) {};  // what of the recipe it cannot do without
};

/// The policies, in the order in which they are listed.
const std::vector<const PolicyEntry*>& policies();

/// Policies are asked for as "name" or "name:option=value:option=value". Throws ConfigError,
/// listing the names, for one that is not in the table.
const PolicyEntry& policy_named(const std::string& asked);

/// A recipe with what the policy cannot do without. Throws ConfigError for options that the policy
/// does not have or that cannot be so.
Recipe recipe_for(const std::string& policy, Recipe recipe);

/// Runs a job with that policy.
segmed::RunReport train(const std::string& policy, TrainJob job);

}  // namespace experiments
