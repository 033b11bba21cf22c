// SPDX-License-Identifier: Apache-2.0
// A network's step on two devices.
#pragma once
#include "../losses/parity.hpp"
#include <segmed/nn/unet.hpp>
#include <segmed/train/optimizer.hpp>

namespace check {

/// Logits, loss, gradients and new weights of one step of a small U-Net.
template <class F>
Parts training_step() {
  using Net = UNet<UNetParts<F>>;
  using D = typename F::device;
  Tape::current()->clear();
  typename Net::Options options;
  options.classes = 4, options.widths = {4, 6, 8};
  Net net(options);
  GroupOf<F> group(Role::trained, net);
  const Grid grid = F::dim == 3 ? Grid{2, 4, 7, 10, 1} : Grid{2, 1, 11, 14, 1};
  const Batch batch = Batch::random(grid.with_channels(4));
  const F image(
      grid, Storage<typename F::value_type, D>(numbers<typename F::value_type>(grid.size(), 5)));
  const Criterion criterion{Sum{Dice{}, CrossEntropy{}}};
  const F logits = net(image);
  const auto loss =
      criterion(logits, labels_of<D>(grid.with_channels(4), batch.y, batch.annotated));
  backward(loss);
  Parts parts = {doubles(value(logits).dense().value), {double(loss.host())}, doubles(group.grads)};
  Clock<D> clock;
  clock.set({.rate = 0.01f});
  update(Sgd{}, group, clock);
  parts.push_back(doubles(group.values));
  return parts;
}

}  // namespace check
