// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/backend/communicator.hpp>
#include <segmed/core/clock.hpp>
#include <segmed/tensor/storage.hpp>

namespace segmed {

/// The step's scalars, one block on the device for a whole run.
template <Device D>
class Clock {
 public:
  explicit Clock(std::uint64_t seed = 0) : ticks_(1) { set({.seed = seed}); }
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;

  /// Moves to a step; the random ops of this thread follow.
  void set(const Ticks& now) {
    host_ = now;
    D::copy(ticks_.write(), &host_, sizeof host_);
    Draws::current() = {now.seed, now.step, 0, std::uint32_t(Ranks::current().rank())};
  }
  const Ticks* ticks() const { return ticks_.read(); }
  /// A weight that follows the warm-up of consistency terms.
  Ramp ramp(float weight) const { return {ticks(), weight}; }
  /// For decisions on the host: a branch on it is fixed when a graph is captured.
  const Ticks& host() const { return host_; }

 private:
  Ticks host_;
  Storage<Ticks, D> ticks_;
};

}  // namespace segmed
