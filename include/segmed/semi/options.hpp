// SPDX-License-Identifier: Apache-2.0
// What of a policy its user may choose by name, from a command line or a file:
//
//   options(self, visit)   visit("weight", self.weight) for every number and every yes or no
#pragma once
#include <cmath>
#include <concepts>
#include <map>
#include <string>
#include <type_traits>

#include <segmed/core/error.hpp>

namespace segmed {

/// Values by name; yes is 1 and no is 0.
using PolicyOptions = std::map<std::string, double>;

template <class P>
concept HasOptions = requires(P& policy) {
  P::options(policy, [](const char*, auto&) {});
};

/// Calls f(name, value) for all that can be chosen; of a policy within a policy as "first.weight".
template <class P, class F>
void each_option(P& policy, F&& f, const std::string& prefix = "") {
  using Plain = std::remove_const_t<P>;
  if constexpr (HasOptions<Plain>)
    Plain::options(policy, [&](const char* name, auto& value) {
      if constexpr (std::is_arithmetic_v<
                        std::remove_const_t<std::remove_reference_t<decltype(value)>>>)
        f(prefix + name, value);
      else
        each_option(value, f, prefix + name + ".");
    });
}

/// What a policy is set to.
template <class P>
PolicyOptions options_of(const P& policy) {
  PolicyOptions all;
  each_option(policy,
              [&](const std::string& name, const auto& value) { all[name] = double(value); });
  return all;
}

/// Sets options by name. Throws ConfigError for a name that the policy does not have and for a
/// value that the option cannot take; nothing is set then. `policy_name` is for the message.
template <class P>
void set_options(P& policy, const PolicyOptions& chosen,
                 const std::string& policy_name = "policy") {
  const char* const who = policy_name.c_str();
  const PolicyOptions known = options_of(policy);
  std::string names;
  for (const auto& [name, value] : known) names += (names.empty() ? "" : ", ") + name;
  for (const auto& [name, value] : chosen) {
    require<ConfigError>(known.count(name) > 0, who, "there is no option ", name,
                         names.empty() ? "" : "; give one of ", names);
    require<ConfigError>(std::isfinite(value), who, "option ", name, " is not a number");
  }
  each_option(policy, [&](const std::string& name, const auto& option) {
    using T = std::remove_cvref_t<decltype(option)>;
    const auto at = chosen.find(name);
    if (at == chosen.end()) return;
    const double value = at->second;
    if constexpr (std::same_as<T, bool>)
      require<ConfigError>(value == 0 || value == 1, who, "option ", name, " is ", value,
                           "; give 0 for no or 1 for yes");
    else if constexpr (std::integral<T>)
      require<ConfigError>(value == std::floor(value) && std::abs(value) < 1e9, who, "option ",
                           name, " is ", value, "; give a whole number");
  });
  each_option(policy, [&](const std::string& name, auto& option) {
    if (const auto at = chosen.find(name); at != chosen.end())
      option = std::remove_cvref_t<decltype(option)>(at->second);
  });
}

}  // namespace segmed
