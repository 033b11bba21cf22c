// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "recipe.hpp"
#include <segmed/data/folder.hpp>
#include <segmed/experiment/run_options.hpp>

namespace experiments {

/// One training run: which cases, how, and where it goes.
struct TrainJob {
  const segmed::FolderCohort& cohort;
  const Recipe& recipe;
  segmed::RunOptions options;
};
using Train = segmed::RunReport (*)(const TrainJob&);

/// A policy that the command line knows by name.
struct PolicyEntry {
  const char* name;
  const char* sentence;
  Train flat, solid;      // for 2-D and 3-D networks
  bool baseline = false;  // trains on D_0 alone
};

const std::vector<PolicyEntry>& policies();

/// Throws ConfigError, listing the names, for one that is not in the table.
const PolicyEntry& policy_named(const std::string& name);

/// Runs a job with the policy of that name.
segmed::RunReport train(const std::string& policy, const TrainJob& job);

segmed::RunReport train_supervised_flat(const TrainJob&);
segmed::RunReport train_supervised_solid(const TrainJob&);
segmed::RunReport train_mean_teacher_flat(const TrainJob&);
segmed::RunReport train_mean_teacher_solid(const TrainJob&);
segmed::RunReport train_partial_completion_flat(const TrainJob&);
segmed::RunReport train_partial_completion_solid(const TrainJob&);

}  // namespace experiments
