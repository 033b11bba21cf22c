// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>

#include <segmed/core/random.hpp>

namespace segmed {

/// What changes from step to step. Kernels read it through a pointer, so that a captured graph
/// replays with new values.
struct Ticks {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  float progress = 0;  // of the budget, 0 to 1
  float ramp = 0;      // 0 to 1 over the first 40 % of the budget
  float rate = 0;      // what the optimizer multiplies gradients with
};

/// exp(-5 (1 - t)^2), the usual warm-up of consistency terms.
///
///   source   Laine & Aila, Temporal ensembling, 2017, arXiv:1610.02242, section 2; the full
///            weight is reached at 40 % of the budget, as in MC-Net's script; those of SSL4MIS,
///            DTC, URPC and MagicNet reach it at the end of the training
SEGMED_HD inline float sigmoid_ramp(float progress, float length = 0.4f) {
  const float rest = progress < length ? 1 - progress / length : 0;
  return std::exp(-5 * rest * rest);
}

/// A weight that a kernel looks up when it runs: `now.clock.ramp(0.1f) * loss`.
struct Ramp {
  const Ticks* ticks;
  float weight;
  SEGMED_HD float operator()() const { return weight * ticks->ramp; }
};

/// Where the random ops of this thread stand. The n-th op of a step draws from stream n: a teacher
/// and a student, or two views of one case, never share bits, and a replay that puts `stream` back
/// repeats them.
struct Draws {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  std::uint32_t stream = 0;
  std::uint32_t rank = 0;  // of those that train together

  static Draws& current() {
    thread_local Draws draws;
    return draws;
  }
  /// `items`: how many numbers this rank draws for its cases. Those of other ranks are others, and
  /// all together they are what one process draws for the whole batch. 0: the same on all ranks.
  static Philox next(Purpose purpose, Index items = 0) {
    Draws& now = current();
    return {now.seed, purpose, now.stream++, now.step, Index(now.rank) * items};
  }
};

}  // namespace segmed
