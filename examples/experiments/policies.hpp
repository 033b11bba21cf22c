// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "recipe.hpp"
#include <segmed/experiment/training_data.hpp>
#include <segmed/semi/hooks.hpp>
#include <segmed/semi/options.hpp>

namespace experiments {

/// What a device makes a policy by; see training.hpp.
struct PolicyMakers {};

/// A policy that the command line knows by name. Each is defined in a policy_<name>.cpp of its own.
struct PolicyEntry {
  const char* name;                         // snake_case
  const char* sentence;                     // what it does
  segmed::Hooks hooks;                      // what it takes part in
  bool whole;                               // the loss need not take partial labels
  const PolicyMakers* makers;               // of its device
  bool baseline = false;                    // trains on D_0 alone
  void (*adapt)(Recipe&) = [](Recipe&) {};  // what of the recipe it cannot do without
};
/// One of the policies that a run was asked for.
struct AskedPolicy {
  const PolicyEntry* entry;
  std::string text;               // as it was asked for
  segmed::PolicyOptions options;  // the others have their defaults
};

/// What learns before its first step: the network of a recipe, and policies set to something.
struct Start {
  const Recipe& recipe;
  std::uint64_t seed = 1;
  std::vector<AskedPolicy> policies = {};
  std::string weights = {};  // a checkpoint with the network's; else they are drawn
};
/// One training run: on what, from where, how, and where it goes.
struct TrainJob {
  segmed::TrainingData data;
  Start start;
  segmed::RunOptions options;
};

/// The policies, in the order in which they are listed.
const std::vector<const PolicyEntry*>& policies();

/// Policies are asked for as "name" or "name:option=value:option=value", and several at once with
/// '+' between them, each with its own options.
///
///   throws   ConfigError, listing the names, for one that is not in the table; for options that
///            are none; for policies that do not compose
std::vector<AskedPolicy> policies_asked(const std::string& policy);
/// Whether it trains on D_0 alone.
bool is_baseline(const std::string& policy);
/// In a few lines which policies compose.
std::string about_composing();

/// A recipe with what the policies cannot do without. Throws ConfigError for options that a policy
/// does not have or that cannot be so.
Recipe recipe_for(const std::string& policy, Recipe recipe);

/// Runs a job with those policies.
segmed::RunReport train(const std::string& policy, TrainJob job);

}  // namespace experiments
