// SPDX-License-Identifier: Apache-2.0
#include "policies.hpp"

namespace experiments {

using namespace segmed;

const std::vector<PolicyEntry>& policies() {
  static const std::vector<PolicyEntry> table = {
      {"supervised", "labels of D_0 and nothing else: M_0", train_supervised_flat,
       train_supervised_solid, true},
      {"mean_teacher", "agree with a slow average of oneself on D_1", train_mean_teacher_flat,
       train_mean_teacher_solid},
      {"partial_completion",
       "marginal and exclusion loss where D_1 is annotated, confident completions where not",
       train_partial_completion_flat, train_partial_completion_solid},
  };
  return table;
}

const PolicyEntry& policy_named(const std::string& name) {
  std::string names;
  for (const PolicyEntry& entry : policies()) {
    if (entry.name == name) return entry;
    names += std::string(names.empty() ? "" : ", ") + entry.name;
  }
  fail<ConfigError>("policy", "there is none named ", name, "; give one of ", names);
}

RunReport train(const std::string& policy, const TrainJob& job) {
  const PolicyEntry& entry = policy_named(policy);
  return (job.recipe.flat() ? entry.flat : entry.solid)(job);
}

}  // namespace experiments
