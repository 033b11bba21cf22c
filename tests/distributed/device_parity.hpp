// SPDX-License-Identifier: Apache-2.0
// What ranks that add gradients on device D must do: asked of a GPU, and of the host in its place.
#pragma once
#include "policy_trial.hpp"

namespace trial {

template <class D>
using DeviceNet = UNet<UNetParts<Features<3, float, D>>>;

/// Sums of the device's memory and of the host's, in place, several at a time.
template <class D, class C>
void check_sums(C& others) {
  const int n = others.size(), of_ranks = n * (n - 1) / 2;
  std::vector<float> numbers(100000), host(1000, float(others.rank()));
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = float(i % 7) + float(others.rank());
  Storage<float, D> some(numbers);
  Storage<double, D> more(std::vector<double>(3, double(others.rank())));
  for (int round = 0; round < 3; ++round) {
    some.assign(numbers);
    more.assign(std::vector<double>(3, double(others.rank())));
    others.start_device_sum(some.write(), some.size());
    others.start_device_sum(more.write(), more.size());
    if (round == 0) others.start_sum(host.data(), Index(host.size()));
    others.progress();
    others.finish_sums();
    const auto sums = some.host();
    for (std::size_t i = 0; i < sums.size(); i += 999)
      CHECK(sums[i] == float(int(i % 7) * n + of_ranks));
    CHECK(more.host() == std::vector<double>(3, of_ranks));
    CHECK(host == std::vector<float>(1000, float(of_ranks)));
  }
}

/// The weights after some steps of ranks with a patch each; without `together`, of one process with
/// all of them.
template <class D>
std::vector<float> trained_on(const Ranks& ranks, bool together, Index steps) {
  DeviceNet<D> net({.classes = 3, .widths = {4, 8}, .encoder_convs = 1, .decoder_convs = 1});
  auto options = few_steps(steps);
  options.patch = {8, 8, 8}, options.batch = ranks.size();
  if (together) options.ranks = ranks;
  run(options, small_cohort(), net, Loss{}, Supervised{}, Sgd{.rate = 0.02f, .momentum = 0.9f});
  return weights_of(net);
}
/// One step equals that of one process, and more steps have the same bits each time on all ranks.
template <class D>
void check_training(const Ranks& ranks) {
  const auto alone = trained_on<D>(ranks, false, 1), together = trained_on<D>(ranks, true, 1);
  REQUIRE(together.size() == alone.size());
  double farthest = 0;
  for (std::size_t i = 0; i < alone.size(); ++i)
    farthest = std::max(farthest, double(std::abs(together[i] - alone[i])));
  CHECK(farthest < 1e-6);
  const auto once = trained_on<D>(ranks, true, 5);
  CHECK(once != together);
  CHECK(trained_on<D>(ranks, true, 5) == once);
  const auto all = ranks.gathered(once);
  for (std::size_t i = 0; i < all.size(); ++i) REQUIRE(all[i] == once[i % once.size()]);
}

}  // namespace trial
