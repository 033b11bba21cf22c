// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <utility>

#include <segmed/autograd/scope.hpp>
#include <segmed/core/error.hpp>

namespace segmed {

/// Called when the gradient of a parameter is complete.
using OnReady = std::function<void(const ParamUse&)>;

/// Closures in the order of recording, consumed from the end; an entry that was pulled is gone,
/// with all it kept.
class Tape {
 public:
  static Tape*& current() {
    thread_local Tape own;
    thread_local Tape* tape = &own;
    return tape;
  }
  Tape() = default;
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;
  ~Tape() { clear(); }

  void record(Uses uses, std::function<void()> pull) {
    for (auto& p : uses) ++p->open_uses;
    entries_.push_back({std::move(uses), std::move(pull)});
  }
  /// `on_ready(p)` fires when the earliest recorded use of p has been pulled.
  void pull_all(const OnReady& on_ready) {
    const ClearAtEnd whatever_happens{*this};
    for (const auto& entry : entries_)
      for (const auto& p : entry.uses)
        require<Error>(!p->group.expired(), "backward", p->name,
                       " takes part in the loss but belongs to no Group; list it in its module's "
                       "`members`");
    while (!entries_.empty()) {
      const Entry entry = std::move(entries_.back());
      entries_.pop_back();
      for (auto& p : entry.uses) --p->open_uses;  // first: a pull may throw
      entry.pull();
      for (auto& p : entry.uses)
        if (p->open_uses == 0 && on_ready) on_ready(*p);
    }
  }
  void clear() {
    for (; !entries_.empty(); entries_.pop_back())
      for (auto& p : entries_.back().uses) --p->open_uses;
  }
  std::size_t size() const { return entries_.size(); }

 private:
  struct ClearAtEnd {
    Tape& tape;
    ~ClearAtEnd() { tape.clear(); }
  };
  struct Entry {
    Uses uses;
    std::function<void()> pull;
  };
  std::vector<Entry> entries_;
};

/// Puts a closure on the tape, or, where a block will be recomputed, only notes its parameters.
inline void record(Uses uses, std::function<void()> pull) {
  if (Uses* noted = Mode::current().noted)
    noted->insert(noted->end(), uses.begin(), uses.end());
  else
    Tape::current()->record(std::move(uses), std::move(pull));
}

}  // namespace segmed
