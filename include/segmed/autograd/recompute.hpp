// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>

#include <segmed/autograd/features.hpp>
#include <segmed/core/clock.hpp>

namespace segmed {

/// This thread's tape, switches and random draws, exchanged for the time of one nested backward.
class NestedTape {
 public:
  NestedTape(const Mode& mode, Draws draws)
      : outer_(std::exchange(Tape::current(), &inner_)),
        mode_(std::exchange(Mode::current(), mode)),
        draws_(std::exchange(Draws::current(), draws)) {}
  ~NestedTape() {
    Tape::current() = outer_;
    Mode::current() = mode_;
    Draws::current() = draws_;
  }
  NestedTape(const NestedTape&) = delete;
  NestedTape& operator=(const NestedTape&) = delete;
  void pull_all() { inner_.pull_all({}); }

 private:
  Tape inner_;
  Tape* outer_;
  Mode mode_;
  Draws draws_;
};

/// Hands the gradients that reached `from` over to the same map, computed again. Values of `from`
/// that nobody else holds have been read for the last time, and go.
template <FeatureMap F>
void hand_over(const F& from, const F& to) {
  for (std::size_t i = 0; i < from.sources().size(); ++i) {
    const auto &old = from.sources()[i], &now = to.sources()[i];
    if (old.grad == now.grad) continue;  // the block passed its input through
    now.grad->sum = std::exchange(old.grad->sum, {});
    if (old.raw != now.raw) {
      if (old.raw->grad != old.grad) now.raw->grad->sum = std::exchange(old.raw->grad->sum, {});
      now.raw->moments_grad = std::exchange(old.raw->moments_grad, {});
      now.raw->deferred = std::exchange(old.raw->deferred, {});
      if (old.raw.use_count() == 1) old.raw->value = {};
    }
    if (old.affine && old.affine != now.affine) {
      now.affine->scale_grad = old.affine->scale_grad;
      now.affine->shift_grad = old.affine->shift_grad;
    }
    if (old.slopes && old.slopes != now.slopes) now.slopes->grad = old.slopes->grad;
  }
}

/// Keeps x and block(x) only, and runs the block once more when its gradient is due: time for
/// memory. The second run draws the same random numbers and leaves running statistics alone.
/// A copy of the block is kept that shares its parameters; what the block refers to must last until
/// backward.
///
///   source   Chen et al., Training deep nets with sublinear memory cost, 2016, arXiv:1604.06174
template <class Block, FeatureMap F>
F recompute(const Block& block, const F& x) {
  if (!Mode::current().record) return block(x);
  Uses uses;
  const Draws before = Draws::current();
  Mode mode = Mode::current();  // whether weights were constants, above all
  mode.noted = nullptr, mode.again = true;
  const F y = [&] {
    const Scope scope([&](Mode& m) { m.noted = &uses; });
    return block(x);
  }();
  if (!y.tracked()) return y;
  std::sort(uses.begin(), uses.end());
  uses.erase(std::unique(uses.begin(), uses.end()), uses.end());
  record(std::move(uses), [block = alias(block), x, y, mode, before] {
    NestedTape nested(mode, before);
    hand_over(y, (*block)(x));
    nested.pull_all();
  });
  return y;
}

}  // namespace segmed
