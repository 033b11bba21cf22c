// SPDX-License-Identifier: Apache-2.0
// The same losses on two devices: what tests of a device ask.
#pragma once
#include "../autograd/parity.hpp"
#include "reference.hpp"
#include <segmed/losses/composition.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/partial.hpp>
#include <segmed/losses/region.hpp>

namespace check {

/// A loss that knows no number but double.
struct DoubleDice {
  static constexpr int sums = Dice::sums;
  Dice dice;
  SEGMED_HD void add(double* s, const ClassVoxel<double>& x) const { dice.add(s, x); }
  SEGMED_HD double slope(const double* ds, const ClassVoxel<double>& x) const {
    return dice.slope(ds, x);
  }
  SEGMED_HD double finish(const ClassSums& all) const { return dice.finish(all); }
};

/// A loss, its gradient, and the gradient where it comes on top of another one.
template <class F, class L>
Parts run_loss(const Batch& batch, const L& loss) {
  Tape::current()->clear();
  const auto labels = labels_of<typename F::device>(batch.grid, batch.y, batch.annotated);
  const Criterion<L> criterion{loss};
  std::vector<typename F::value_type> logits;
  for (const double z : batch.z) logits.push_back(typename F::value_type(typename F::Wide(z)));
  const F x = F::leaf(batch.grid, logits), again = F::leaf(batch.grid, logits);
  const auto y = criterion(x, labels);
  backward(y);
  backward(0.5f * criterion(again, labels) + criterion(again, labels));
  return {{double(y.host())}, doubles(x.gradient()), doubles(again.gradient())};
}

/// Losses of many kinds on device D and on the processor.
template <std::size_t Dim, class T, class D>
void check_losses(double tolerance,
                  const std::vector<Index>& numbers_of_classes = {2, 3, 11, 32, 200, 255}) {
  using Here = Features<Dim, T, D>;
  using There = Features<Dim, T, Cpu>;
  const auto compare = [&](const std::string& name, const Batch& batch, const auto& loss) {
    CAPTURE(name);
    CAPTURE(batch.grid);
    const Parts expected = run_loss<There>(batch, loss);
    CHECK(apart(twice<D>([&] { return run_loss<Here>(batch, loss); }), expected) < tolerance);
  };
  const auto grid = [](Index cases, Index classes) {
    return Dim == 3 ? Grid{cases, 3, 7, 9, classes} : Grid{cases, 1, 9, 17, classes};
  };
  const auto dice_ce = Sum{Dice{}, Weighted{0.5f, CrossEntropy{}}};
  for (const Index classes : numbers_of_classes)
    compare("Dice and cross-entropy", Batch::random(grid(2, classes)), dice_ce);
  for (const Index classes : {4, 70}) {
    const AnnotatedSet all = AnnotatedSet::all(classes);
    const Batch batch =
        Batch::random(grid(4, classes), {all.without(2), all, all.without(1).without(3), {}}, 3);
    compare("marginal and exclusion", batch,
            Sum{Marginal{Sum{Dice{}, CrossEntropy{}}}, Weighted{2.f, Exclusion{}}});
    compare("marginal", batch, Marginal{Tversky{.alpha = 0.3f}});
    compare("by class", batch, Sum{Independent{Dice{}}, BinaryCrossEntropy{}});
  }
  compare("focal", Batch::random(grid(1, 5)), Sum{Focal{}, Entropy{}});
  compare("in double", Batch::random(grid(2, 11)), DoubleDice{});
}

}  // namespace check
