// SPDX-License-Identifier: Apache-2.0
// A network, a cohort and a run that are small enough to try a policy in a second.
#pragma once
#include <filesystem>
#include <unistd.h>

#include <doctest/doctest.h>

#include "small_cohort.hpp"
#include <segmed/backend/backend.hpp>
#include <segmed/experiment/run.hpp>
#include <segmed/losses/composition.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/region.hpp>
#include <segmed/nn/unet.hpp>
#include <segmed/semi/policy.hpp>

namespace trial {

using namespace segmed;

using F = Features<3, float, Cpu>;
using Net = UNet<UNetParts<F>>;
using Loss = Sum<Dice, CrossEntropy>;

inline Net small_net(std::uint64_t seed = 1) {
  return Net(
      {.classes = 3, .widths = {4, 8}, .encoder_convs = 1, .decoder_convs = 1, .seed = seed});
}
/// One with a level more, supervised at several resolutions.
inline Net deep_net() {
  return Net({.classes = 3,
              .widths = {4, 6, 8},
              .encoder_convs = 1,
              .decoder_convs = 1,
              .deep_supervision = true});
}
inline RunOptions few_steps(Index steps = 4) {
  RunOptions options;
  options.steps = steps, options.patch = {16, 16, 16}, options.quiet = true;
  return options;
}
template <class M>
std::vector<float> weights_of(const M& module) {
  std::vector<float> all;
  for (const auto& at : Inventory(module).leaves) {
    const auto values = at.leaf->stored().template as<float>();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

template <class Policy>
RunReport trained_with(Policy& policy, Net& net, Index steps = 4) {
  auto options = few_steps(steps);
  return run(options, small_cohort(), net, Loss{}, policy, AdamW{.rate = 3e-3f});
}

/// A policy that asks the run to stop after its third step, as Ctrl-C does.
template <class P>
struct StopAfterThird : P {
  std::atomic<bool>* flag;
  void after_step(auto& now) {
    if constexpr (requires(P & p) { p.after_step(now); }) P::after_step(now);
    if (now.clock.host().step == 2) *flag = true;
  }
};

/// Trains for six steps, and again with a stop after the third; `make(net)` gives the policy and
/// `net_of(seed)` the network. Network and policy must end with the same bits.
template <class Make>
void check_resumes(Make make, Net (*net_of)(std::uint64_t) = small_net) {
  using P = decltype(make(std::declval<const Net&>()));
  const auto cohort = small_cohort();
  const std::string folder =
      std::filesystem::temp_directory_path() / ("segmed_trial_" + std::to_string(getpid()));
  std::filesystem::remove_all(folder);
  // The budget shapes progress, so that the first half runs under the same budget.
  auto options = few_steps(6);
  const auto train = [&](const RunOptions& how, Net& net, auto& policy) {
    return run(how, cohort, net, Loss{}, policy, AdamW{.rate = 3e-3f});
  };
  Net whole = net_of(1), half = net_of(1), resumed = net_of(9);
  P all = make(whole);
  CHECK(train(options, whole, all).steps == 6);

  options.out = folder, options.resume = true;
  std::atomic<bool> stop = false;
  StopAfterThird<P> stopped{make(half), &stop};
  auto until = options;
  until.stop = &stop;
  CHECK(train(until, half, stopped).interrupted);

  P again = make(resumed);
  const auto report = train(options, resumed, again);
  CHECK(report.steps == 6);
  CHECK_FALSE(report.interrupted);
  CHECK(weights_of(resumed) == weights_of(whole));
  CHECK(weights_of(again) == weights_of(all));
  std::filesystem::remove_all(folder);
}

}  // namespace trial
