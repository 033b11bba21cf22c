// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <segmed/autograd/param.hpp>

namespace segmed {

struct ProbeVisit {
  void operator()(std::string_view, const auto&) const {}
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

/// Something that keeps more than parameters and buffers (a round's number, a threshold) and saves
/// it itself: `void save(Archive&, const std::string& prefix) const` and
/// `void load(const Archive&, const std::string& prefix)`, which name tensors and texts
/// prefix + ".something".
template <class M>
concept SavesItself = requires(const M& from, M& to, Archive& into, const Archive& out,
                               const std::string& prefix) {
  from.save(into, prefix);
  to.load(out, prefix);
};

/// All that a module keeps, in the order of its lists. Everything that is done to modules as a
/// whole (training, saving, counting, averaging) reads this list, so that a network is walked by
/// one function however many purposes there are. It points into the module and is as writable as
/// that.
class Inventory {
 public:
  struct LeafAt {
    std::string path;
    Role role;
    Leaf* leaf;
  };
  /// A part that saves itself.
  struct OwnState {
    std::string path;
    void* part;
    void (*save)(const void*, Archive&, const std::string&);
    void (*load)(void*, const Archive&, const std::string&);
  };
  std::string prefix;  // which all paths begin with
  std::vector<LeafAt> leaves;
  std::vector<OwnState> states;

  template <class M>
  explicit Inventory(const M& net, const std::string& prefix_of_all = {})
      : prefix(prefix_of_all), path_(prefix_of_all) {
    list(const_cast<M&>(net));
  }

  template <class M>
  void list(M& net) {
    const Role before = role_;
    if constexpr (requires { M::frozen; }) role_ = Role::frozen;
    if constexpr (SavesItself<M>)
      states.push_back({path_, &net, save<M>, load<M>});
    else
      static_assert(
          !requires { &M::save; } && !requires { &M::load; },
          "a part with `save` or `load` needs both, as SavesItself asks for them; see "
          "segmed/autograd/module.hpp");
    if constexpr (std::is_base_of_v<Leaf, M>)
      add(net);
    else if constexpr (requires { net.list(*this); })  // erased: it lists what it holds
      net.list(*this);
    else if constexpr (Module<M>)
      M::members(net, [&](std::string_view name, auto& part) { below(name, part); });
    else if constexpr (requires { net.begin(); }) {
      std::size_t i = 0;
      for (auto& part : net) below(std::to_string(i++), part);
    }
    role_ = before;
  }

 private:
  template <class M>
  void below(std::string_view name, M& part) {
    const std::size_t here = enter(name);
    list(part);
    path_.resize(here);
  }
  std::size_t enter(std::string_view name) {
    const std::size_t here = path_.size();
    if (here > 0) path_ += '.';
    path_ += name;
    return here;
  }
  void add(Leaf& leaf) {
    if (leaf.size() > 0) leaves.push_back({path_, role_, &leaf});  // else a layer does without
  }
  template <class M>
  static void save(const void* part, Archive& into, const std::string& path) {
    static_cast<const M*>(part)->save(into, path);
  }
  template <class M>
  static void load(void* part, const Archive& from, const std::string& path) {
    static_cast<M*>(part)->load(from, path);
  }

  std::string path_;
  Role role_ = Role::trained;
};

/// Gives every parameter its starting value from (seed, its path).
template <Module M>
void initialize(M& net, std::uint64_t seed) {
  for (const auto& [path, role, leaf] : Inventory(net).leaves) leaf->initialize(seed, path);
}
/// How many numbers a module trains.
template <Module M>
Index parameter_count(const M& net) {
  Index total = 0;
  for (const auto& [path, role, leaf] : Inventory(net).leaves)
    if (leaf->trainable() && role == Role::trained) total += leaf->size();
  return total;
}

}  // namespace segmed
