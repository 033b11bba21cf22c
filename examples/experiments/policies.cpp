// SPDX-License-Identifier: Apache-2.0
#include "policies.hpp"

namespace experiments {

using namespace segmed;

const PolicyEntry& policy_named(const std::string& name) {
  std::string names;
  for (const PolicyEntry* entry : policies()) {
    if (entry->name == name) return *entry;
    names += std::string(names.empty() ? "" : ", ") + entry->name;
  }
  fail<ConfigError>("policy", "there is none named ", name, "; give one of ", names);
}

Recipe recipe_for(const std::string& policy, Recipe recipe) {
  policy_named(policy).adapt(recipe);
  return recipe;
}

RunReport train(const std::string& policy, TrainJob job) {
  const PolicyEntry& entry = policy_named(policy);
  job.options.rounds = entry.rounds;
  return (job.recipe.flat() ? entry.flat : entry.solid)(job);
}

}  // namespace experiments
