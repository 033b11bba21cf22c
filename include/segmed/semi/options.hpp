// SPDX-License-Identifier: Apache-2.0
// What of a policy its user may choose by name, from a command line or a file:
//
//   options(self, visit)   visit("weight", self.weight, at_least(0)) for every number, with its
//                          range if it has one; visit("mirrors", self.mirrors) for every yes or no
#pragma once
#include <cmath>
#include <concepts>
#include <limits>
#include <map>
#include <ostream>
#include <string>
#include <type_traits>

#include <segmed/core/error.hpp>

namespace segmed {

/// Values by name; yes is 1 and no is 0.
using PolicyOptions = std::map<std::string, double>;

/// The values that a number may have.
struct OptionRange {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool above = false, below = false;  // `least`, `most` themselves are outside

  bool holds(double x) const {
    return (above ? x > least : x >= least) && (below ? x < most : x <= most);
  }
  friend std::ostream& operator<<(std::ostream& out, const OptionRange& range) {
    if (std::isinf(range.least)) return out << range.most << " or less";
    out << (range.above ? "more than " : "") << range.least;
    if (std::isinf(range.most)) return out << (range.above ? "" : " or more");
    return out << (range.above ? ", up to " : " to ") << (range.below ? "less than " : "")
               << range.most;
  }
};
constexpr OptionRange at_least(double least) { return {.least = least}; }
constexpr OptionRange above(double least) { return {.least = least, .above = true}; }
constexpr OptionRange between(double least, double most) { return {least, most}; }
/// With `least`, without `most`.
constexpr OptionRange half_open(double least, double most) { return {least, most, false, true}; }

struct ProbeOption {  // a lambda in a requirement would be none for nvcc
  void operator()(const char*, auto&, const OptionRange& = {}) const {}
};
template <class P>
concept HasOptions = requires(P& policy) {
  P::options(policy, ProbeOption{});
};

/// Calls f(name, value, range) for all that can be chosen; of a policy within a policy as
/// "first.weight".
template <class P, class F>
void each_option(P& policy, F&& f, const std::string& prefix = "") {
  using Plain = std::remove_const_t<P>;
  if constexpr (HasOptions<Plain>)
    Plain::options(policy, [&](const char* name, auto& value, const OptionRange& range = {}) {
      if constexpr (std::is_arithmetic_v<
                        std::remove_const_t<std::remove_reference_t<decltype(value)>>>)
        f(prefix + name, value, range);
      else
        each_option(value, f, prefix + name + ".");
    });
}

/// What a policy is set to.
template <class P>
PolicyOptions options_of(const P& policy) {
  PolicyOptions all;
  each_option(policy, [&](const std::string& name, const auto& value, const OptionRange&) {
    all[name] = double(value);
  });
  return all;
}

/// Sets options by name. Throws ConfigError for a name that the policy does not have and for a
/// value that the option cannot take or that is outside of its range; nothing is set then.
/// `policy_name` is for the message.
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
  const auto check = [&](bool ok, const std::string& name, double value, const auto& what) {
    require<ConfigError>(ok, who, "option ", name, " is ", value, "; give ", what);
  };
  each_option(policy, [&](const std::string& name, const auto& option, const OptionRange&) {
    using T = std::remove_cvref_t<decltype(option)>;
    const auto at = chosen.find(name);
    if (at == chosen.end()) return;
    const double value = at->second;
    if constexpr (std::same_as<T, bool>)
      check(value == 0 || value == 1, name, value, "0 for no or 1 for yes");
    else if constexpr (std::integral<T>)
      check(value == std::floor(value) && std::abs(value) < 1e9, name, value, "a whole number");
    else
      check(std::abs(value) <= double(std::numeric_limits<T>::max()), name, value,
            "a smaller number");
  });
  const auto set = [&](const PolicyOptions& values) {
    each_option(policy, [&](const std::string& name, auto& option, const OptionRange&) {
      if (const auto at = values.find(name); at != values.end())
        option = std::remove_cvref_t<decltype(option)>(at->second);
    });
  };
  // Ranges are those of the policy as it would be: one option's may depend on another.
  set(chosen);
  try {
    each_option(policy, [&](const std::string& name, const auto& option, const OptionRange& range) {
      if (chosen.count(name) > 0 && !std::same_as<std::remove_cvref_t<decltype(option)>, bool>)
        check(range.holds(double(option)), name, chosen.at(name), range);
    });
  } catch (...) {
    set(known);
    throw;
  }
}

}  // namespace segmed
