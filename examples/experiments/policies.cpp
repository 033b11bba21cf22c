// SPDX-License-Identifier: Apache-2.0
#include "policies.hpp"

namespace experiments {

using namespace segmed;

// A new policy stands in these two lists and in a policy_<name>.cpp.
extern const PolicyEntry supervised, marginal, exclusion, target_adaptive, leaf_dice,
    masked_sigmoid, dynamic_head, partial_completion, self_training, entropy, mean_teacher, uamt,
    ict, transform, deformation, fixmatch, unimatch, cps, cross_teaching, rdrop, cct, mcnet, urpc,
    dtc, dan, bcp, cube_shuffle;

const std::vector<const PolicyEntry*>& policies() {
  static const std::vector<const PolicyEntry*> table = {&supervised,
                                                        &marginal,
                                                        &exclusion,
                                                        &target_adaptive,
                                                        &leaf_dice,
                                                        &masked_sigmoid,
                                                        &dynamic_head,
                                                        &partial_completion,
                                                        &self_training,
                                                        &entropy,
                                                        &mean_teacher,
                                                        &uamt,
                                                        &ict,
                                                        &transform,
                                                        &deformation,
                                                        &fixmatch,
                                                        &unimatch,
                                                        &cps,
                                                        &cross_teaching,
                                                        &rdrop,
                                                        &cct,
                                                        &mcnet,
                                                        &urpc,
                                                        &dtc,
                                                        &dan,
                                                        &bcp,
                                                        &cube_shuffle};
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
