// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "recipe.hpp"
#include <segmed/experiment/training_data.hpp>

namespace experiments {

/// One training run: on what, how, and where it goes.
struct TrainJob {
  segmed::TrainingData data;
  const Recipe& recipe;
  segmed::RunOptions options;
  std::string start = {};  // a checkpoint whose network's weights it starts from; else drawn ones
};
using Train = segmed::RunReport (*)(const TrainJob&);

/// A policy that the command line knows by name. Each is defined in a policy_<name>.cpp of its own.
struct PolicyEntry {
  const char* name;          // snake_case
  const char* sentence;      // what it does
  Train flat, solid;         // for 2-D and 3-D networks
  bool baseline = false;     // trains on D_0 alone
  segmed::Index rounds = 1;  // how often it may relabel D_1
};

/// The policies, in the order in which they are listed.
const std::vector<const PolicyEntry*>& policies();

/// Throws ConfigError, listing the names, for one that is not in the table.
const PolicyEntry& policy_named(const std::string& name);

/// Runs a job with the policy of that name.
segmed::RunReport train(const std::string& policy, TrainJob job);

}  // namespace experiments
