// SPDX-License-Identifier: Apache-2.0
// Which hooks a policy has, and which policies can work together.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include <segmed/core/error.hpp>

namespace segmed {

/// The hooks of a policy, by name: what of it takes part in a run.
struct Hooks {
  bool supervised = false, after_step = false, start_round = false, rounds = false,
       predictor = false, needs = false, members = false, options = false, save = false;

  std::vector<std::string> names() const {
    std::vector<std::string> all = {"loss"};
    const std::pair<bool, const char*> list[] = {
        {supervised, "supervised"}, {after_step, "after_step"}, {start_round, "start_round"},
        {rounds, "rounds"},         {predictor, "predictor"},   {needs, "needs"},
        {members, "members"},       {options, "options"},       {save, "save"}};
    for (const auto& [has, name] : list)
      if (has) all.push_back(name);
    return all;
  }
  /// Those that one of two policies has.
  friend constexpr Hooks operator|(const Hooks& a, const Hooks& b) {
    return {
        a.supervised || b.supervised, a.after_step || b.after_step, a.start_round || b.start_round,
        a.rounds || b.rounds,         a.predictor || b.predictor,   a.needs || b.needs,
        a.members || b.members,       a.options || b.options,       a.save || b.save};
  }
};

/// One of several policies.
struct NamedHooks {
  std::string name;
  Hooks hooks;
};
/// Throws ConfigError, with both names, for two policies that cannot work together: both replace
/// the term of the labels, or both name the network to predict with, or they have one name.
inline void check_together(const std::vector<NamedHooks>& policies) {
  for (std::size_t i = 0; i < policies.size(); ++i)
    for (std::size_t k = 0; k < i; ++k) {
      const NamedHooks &a = policies[k], &b = policies[i];
      require<ConfigError>(a.name != b.name, "policy", a.name, " is there twice; give it once");
      require<ConfigError>(
          !a.hooks.supervised || !b.hooks.supervised, "policy", a.name, " and ", b.name,
          " both replace the term of the labels; give one of them, and beside it only policies "
          "that leave that term as it is");
      require<ConfigError>(
          !a.hooks.predictor || !b.hooks.predictor, "policy", a.name, " and ", b.name,
          " both name the network to predict with; give one of them, and beside it only policies "
          "that leave this to the student or its average");
    }
}

}  // namespace segmed
