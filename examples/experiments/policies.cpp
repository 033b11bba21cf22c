// SPDX-License-Identifier: Apache-2.0
#include "policies.hpp"

#include <charconv>

namespace experiments {

using namespace segmed;

namespace {

PolicyOptions options_asked(const std::string& asked) {
  PolicyOptions options;
  for (std::size_t at = asked.find(':'); at != std::string::npos;) {
    const std::size_t end = asked.find(':', at + 1);
    const std::string word = asked.substr(at + 1, end == std::string::npos ? end : end - at - 1);
    const std::size_t equal = word.find('=');
    double value = 0;
    const char* const last = word.data() + word.size();
    const bool read = equal != std::string::npos && equal > 0 &&
                      std::from_chars(word.data() + equal + 1, last, value).ptr == last &&
                      equal + 1 < word.size();
    require<ConfigError>(read, "policy", "\"", asked, "\": \"", word,
                         "\" is not OPTION=NUMBER, as in rdrop:weight=2:dropout=0.5");
    require<ConfigError>(options.emplace(word.substr(0, equal), value).second, "policy", "\"",
                         asked, "\" sets ", word.substr(0, equal), " twice");
    at = end;
  }
  return options;
}

const PolicyUnit& unit_of(const PolicyEntry& entry, const Recipe& recipe) {
  return recipe.flat() ? entry.flat : entry.solid;
}

}  // namespace

const PolicyEntry& policy_named(const std::string& asked) {
  const std::string name = asked.substr(0, asked.find(':'));
  std::string names;
  for (const PolicyEntry* entry : policies()) {
    if (entry->name == name) return *entry;
    names += std::string(names.empty() ? "" : ", ") + entry->name;
  }
  fail<ConfigError>("policy", "there is none named ", name, "; give one of ", names);
}

Recipe recipe_for(const std::string& policy, Recipe recipe) {
  const PolicyEntry& entry = policy_named(policy);
  entry.adapt(recipe);
  unit_of(entry, recipe).make({recipe, 1, policy, options_asked(policy)});  // complains
  return recipe;
}

RunReport train(const std::string& policy, TrainJob job) {
  const PolicyEntry& entry = policy_named(policy);
  job.start.policy = policy, job.start.options = options_asked(policy);
  return unit_of(entry, job.start.recipe).train(job);
}

}  // namespace experiments
