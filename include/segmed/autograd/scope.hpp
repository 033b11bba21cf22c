// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>
#include <vector>

#include <segmed/core/config.hpp>

namespace segmed {

/// What the tape knows of a parameter.
struct ParamUse {
  std::string name = "a parameter";
  std::weak_ptr<void> group;  // expired or empty: nobody trains it
  Index open_uses = 0;        // recorded and not yet pulled
};
using Uses = std::vector<std::shared_ptr<ParamUse>>;

/// The switches of this thread, all of them.
struct Mode {
  bool record = true;     // false: nothing is put on the tape
  bool weights = true;    // false: parameters are constants, gradients still flow to inputs
  bool fuse = true;       // false: every op materialises at once, for checking
  bool training = true;   // false: no dropout, running statistics instead of the batch's
  bool alias = false;     // true: copies of modules share their parameters; see alias()
  bool again = false;     // true: a block runs once more for its gradient; see recompute()
  Uses* noted = nullptr;  // set: only note which parameters are used, keep nothing

  static Mode& current() {
    thread_local Mode mode;
    return mode;
  }
};

/// Changes some switches and puts all of them back at its end.
class Scope {
 public:
  template <class Change>
  explicit Scope(Change change) : before_(Mode::current()) {
    change(Mode::current());
  }
  ~Scope() { Mode::current() = before_; }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  Mode before_;
};

/// Runs `body` without recording: what it returns is a constant.
template <class Body>
auto no_grad(Body&& body) {
  const Scope scope([](Mode& m) { m.record = false; });
  return body();
}
/// Runs `body` as in use, not in training: no recording, no dropout, running statistics.
template <class Body>
auto evaluating(Body&& body) {
  const Scope scope([](Mode& m) { m.record = m.training = false; });
  return body();
}
/// Runs `body` with every op written down at once; gives the same bits, slower.
template <class Body>
auto materialized(Body&& body) {
  const Scope scope([](Mode& m) { m.fuse = false; });
  return body();
}
/// A second handle on a module that shares its parameters: what a closure keeps, so that the module
/// itself may move.
template <class M>
auto alias(const M& module) {
  const Scope scope([](Mode& m) { m.alias = true; });
  return std::make_shared<const M>(module);
}
/// A module whose weights are constants for one call: `constant(critic)(x)`. Gradients reach x.
template <class M>
auto constant(const M& module) {
  return [&module](const auto&... x) {
    const Scope scope([](Mode& m) { m.weights = false; });
    return module(x...);
  };
}

}  // namespace segmed
