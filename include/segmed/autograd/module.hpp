// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <utility>

#include <segmed/autograd/param.hpp>

namespace segmed {

struct ProbeVisit {
  void operator()(const auto&, const auto&) const {}
};

/// Whatever lists its parts in `static void members(auto& self, auto&& visit)`, which calls
/// visit("name", self.part) for each. Training, saving, counting and averaging follow from it.
template <class M>
concept Module = requires(M& net, ProbeVisit visit) {
  std::remove_cvref_t<M>::members(net, visit);
};

/// A module that is saved and averaged but never trained; wherever it is called, its weights are
/// constants.
template <class M>
struct Frozen {
  static constexpr bool frozen = true;
  M module;

  Frozen(M m) : module(std::move(m)) {}
  auto operator()(const auto&... x) const { return constant(module)(x...); }
  static void members(auto& self, auto&& visit) { visit("module", self.module); }
};

/// Trained parameters, or those inside of a Frozen.
enum class Role { trained, frozen };

template <class P>
concept IsParam = requires(P& p) {
  p.state();
};
template <class P>
concept IsBuffer = requires(P& p) {
  p.running();
};
/// A module that was erased: it visits what it holds itself.
template <class M>
concept VisitsItself = requires(M& m) {
  m.visit_all(Role{}, std::string{}, ProbeVisit{});
};

/// Calls f(path, leaf, role) for every Param and Buffer, in the order of the lists.
template <class M, class Visit>
void each_leaf(M& net, Visit&& f, const std::string& path = "", Role here = Role::trained) {
  using Plain = std::remove_const_t<M>;
  if constexpr (requires { Plain::frozen; }) here = Role::frozen;
  const auto below = [&](const std::string& name) {
    return path.empty() ? name : path + "." + name;
  };
  if constexpr (IsParam<M>) {
    if (!net.empty()) f(path, net, here);  // a bias that a layer does without
  } else if constexpr (IsBuffer<M>) {
    f(path, net, here);
  } else if constexpr (VisitsItself<M>) {
    net.visit_all(here, path, f);
  } else if constexpr (Module<M>) {
    Plain::members(net,
                   [&](const std::string& name, auto& m) { each_leaf(m, f, below(name), here); });
  } else if constexpr (requires { net.begin(); }) {
    std::size_t i = 0;
    for (auto& m : net) each_leaf(m, f, below(std::to_string(i++)), here);
  }
}
template <class M, class Visit>
void each_param(M& net, Role role, Visit&& f, const std::string& path = "") {
  each_leaf(
      net,
      [&](const std::string& name, auto& leaf, Role here) {
        if constexpr (IsParam<decltype(leaf)>)
          if (here == role) f(name, leaf);
      },
      path);
}
template <class M, class Visit>
void each_buffer(M& net, Visit&& f, const std::string& path = "") {
  each_leaf(
      net,
      [&](const std::string& name, auto& leaf, Role) {
        if constexpr (IsBuffer<decltype(leaf)>) f(name, leaf);
      },
      path);
}

/// Gives every parameter its starting value from (seed, its path).
template <Module M>
void initialize(M& net, std::uint64_t seed) {
  each_leaf(net, [&](const std::string& path, auto& leaf, Role) {
    if constexpr (IsParam<decltype(leaf)>) leaf.initialize(seed, path);
  });
}
/// How many numbers a module trains.
template <Module M>
Index parameter_count(const M& net) {
  Index total = 0;
  each_param(net, Role::trained, [&](const std::string&, const auto& p) { total += p.size(); });
  return total;
}

}  // namespace segmed
