// SPDX-License-Identifier: Apache-2.0
#include "policies.hpp"

namespace experiments {

using namespace segmed;

// A new policy stands in these two lists and in a policy_<name>.cpp.
extern const PolicyEntry supervised, partial_labels, mean_teacher, partial_completion;

const std::vector<const PolicyEntry*>& policies() {
  static const std::vector<const PolicyEntry*> table = {&supervised, &partial_labels, &mean_teacher,
                                                        &partial_completion};
  return table;
}

const PolicyEntry& policy_named(const std::string& name) {
  std::string names;
  for (const PolicyEntry* entry : policies()) {
    if (entry->name == name) return *entry;
    names += std::string(names.empty() ? "" : ", ") + entry->name;
  }
  fail<ConfigError>("policy", "there is none named ", name, "; give one of ", names);
}

RunReport train(const std::string& policy, TrainJob job) {
  const PolicyEntry& entry = policy_named(policy);
  job.options.rounds = entry.rounds;
  return (job.recipe.flat() ? entry.flat : entry.solid)(job);
}

}  // namespace experiments
