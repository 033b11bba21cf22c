// SPDX-License-Identifier: Apache-2.0
#include "policies.hpp"

#include <cctype>
#include <charconv>

#include "device.hpp"

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

/// The names of the policies that have something.
std::string names_of(bool (*has)(const PolicyEntry&)) {
  std::string names;
  for (const PolicyEntry* entry : policies())
    if (has(*entry)) names += std::string(names.empty() ? "" : ", ") + entry->name;
  return names;
}

const PolicyEntry& policy_named(const std::string& asked) {
  const std::string name = asked.substr(0, asked.find(':'));
  for (const PolicyEntry* entry : policies())
    if (entry->name == name) return *entry;
  fail<ConfigError>("policy", "there is none named ", name, "; give one of ",
                    names_of([](const PolicyEntry&) { return true; }));
}

/// Where the '+' stands that ends a policy, or the end of the text; no exponent's.
std::size_t end_of_policy(const std::string& text, std::size_t at) {
  const auto digit = [&](std::size_t i) {
    return i < text.size() && std::isdigit(static_cast<unsigned char>(text[i]));
  };
  while (at < text.size() && (text[at] != '+' || digit(at + 1))) ++at;
  return at;
}

}  // namespace

std::vector<AskedPolicy> policies_asked(const std::string& policy) {
  std::vector<AskedPolicy> all;
  std::vector<NamedHooks> hooks;
  for (std::size_t begin = 0; begin <= policy.size();) {
    const std::size_t end = end_of_policy(policy, begin);
    const std::string text = policy.substr(begin, end - begin);
    const PolicyEntry& entry = policy_named(text);
    all.push_back({&entry, text, options_asked(text)});
    hooks.push_back({entry.name, entry.hooks});
    begin = end + 1;
  }
  for (const AskedPolicy& one : all)
    require<ConfigError>(all.size() == 1 || !one.entry->baseline, "policy", one.entry->name,
                         " learns from D_0 alone and does not compose; leave it out of ", policy);
  check_together(hooks);
  return all;
}

bool is_baseline(const std::string& policy) {
  return policies_asked(policy).front().entry->baseline;
}

std::string about_composing() {
  return "Several at once, each with its own options: exclusion:exclusion=1+rdrop:weight=2.\n"
         "At most one of those that replace the term of the labels: " +
         names_of([](const PolicyEntry& entry) { return entry.hooks.supervised; }) +
         ".\nAt most one of those that name the network to predict with: " +
         names_of([](const PolicyEntry& entry) { return entry.hooks.predictor; }) +
         ".\nAlone: " + names_of([](const PolicyEntry& entry) { return entry.baseline; }) + ".\n";
}

Recipe recipe_for(const std::string& policy, Recipe recipe) {
  const auto asked = policies_asked(policy);
  for (const AskedPolicy& one : asked) one.entry->adapt(recipe);
  units().check({recipe, 1, asked});
  return recipe;
}

RunReport train(const std::string& policy, TrainJob job) {
  job.start.policies = policies_asked(policy);
  return units().train(job);
}

}  // namespace experiments
