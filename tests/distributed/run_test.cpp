// SPDX-License-Identifier: Apache-2.0
// Ranks that share a batch compute what one process computes with all of it. Every rank does both,
// and compares.
#include "policy_trial.hpp"
#include "world.hpp"
#include <segmed/losses/partial.hpp>
#include <segmed/nn/layer.hpp>
#include <segmed/semi/mean_teacher.hpp>
#include <segmed/semi/partial_completion.hpp>

using namespace trial;

namespace {

struct BatchNormParts : UNetParts<F> {
  using Encoder = ConvBlock<F, BatchNorm<F>, LeakyRelu>;
  using Decoder = Encoder;
};

double farthest(const std::vector<float>& a, const std::vector<float>& b) {
  double most = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    most = std::max(most, double(std::abs(a[i] - b[i])));
  return most;
}

/// Trains a fresh network; `make(net)` gives the policy. Weights of the network, then of the
/// policy.
template <class N, class Make, class L>
std::vector<float> weights_after(const RunOptions& options, const N& start, Make make,
                                 const L& loss, float rate = 0.02f) {
  N net = start;
  auto policy = make(net);
  // Momentum, and no division by small moments, which would make much of rounding.
  run(options, small_cohort(), net, loss, policy, Sgd{.rate = rate, .momentum = 0.9f});
  auto all = weights_of(net);
  if constexpr (Module<decltype(policy)>) {
    const auto more = weights_of(policy);
    all.insert(all.end(), more.begin(), more.end());
  }
  return all;
}
RunOptions steps_of(Index steps, Index per_rank = 1) {
  auto options = few_steps(steps);
  options.batch = per_rank * world().size();
  return options;
}
template <class N, class Make, class L>
void check_equals_one_process(const N& start, Make make, const L& loss, Index per_rank = 1,
                              float rate = 0.02f) {
  for (const Index steps : {1, 40}) {
    auto options = steps_of(steps, per_rank);
    const auto alone = weights_after(options, start, make, loss, rate);
    options.ranks = Ranks(world());
    const auto together = weights_after(options, start, make, loss, rate);
    INFO(steps, " steps: ", farthest(together, alone));
    CHECK(farthest(together, alone) < (steps == 1 ? 1e-6 : 1e-3));
    CHECK(farthest(weights_of(start), alone) > 1e-3);  // it learned
  }
}

const auto labels_alone = [](const auto&) { return Supervised{}; };
const auto teacher = [](const auto& net) {
  return MeanTeacher<std::remove_cvref_t<decltype(net)>>{.teacher = {net}, .weight = 2, .noise = 0};
};

}  // namespace

TEST_SUITE("distributed/run") {
  TEST_CASE("the labels alone, cases by themselves and batch as one") {
    check_equals_one_process(small_net(), labels_alone, Loss{});
    check_equals_one_process(small_net(), labels_alone, Sum{Dice::nnunet(true), CrossEntropy{}}, 2);
  }
  TEST_CASE("a policy whose term is a mean") {
    check_equals_one_process(small_net(), teacher, Loss{});
    check_equals_one_process(small_net(), teacher, Loss{}, 2);
  }
  TEST_CASE("random ops draw for their own cases") {
    check_equals_one_process(
        small_net(), [](const Net& net) { return MeanTeacher<Net>{.teacher = {net}, .weight = 2}; },
        Loss{});
  }
  TEST_CASE("labels that know some classes in some cases") {
    check_equals_one_process(
        small_net(),
        [](const Net& net) {
          return PartialCompletion<Net>{.teacher = {net}, .weight = 1, .after = 0.3f};
        },
        Sum{Marginal{Dice{}}, Weighted{0.5f, Exclusion{}}});
  }
  TEST_CASE("batch normalisation over the batch of all ranks") {
    using N = UNet<BatchNormParts>;
    // At the rate of the other cases, rounding grows a thousandfold in 40 steps.
    const N net({.classes = 3, .widths = {4, 8}});
    check_equals_one_process(net, labels_alone, Loss{}, 1, 0.001f);
    check_equals_one_process(net, labels_alone, Loss{}, 2, 0.001f);
  }
  TEST_CASE("the same ranks give the same bits again") {
    auto options = steps_of(5);
    options.ranks = Ranks(world());
    const auto once = weights_after(options, small_net(), teacher, Loss{});
    CHECK(weights_after(options, small_net(), teacher, Loss{}) == once);
    const auto all = options.ranks.gathered(once);
    for (std::size_t i = 0; i < all.size(); ++i) REQUIRE(all[i] == once[i % once.size()]);
  }
  TEST_CASE("another number of ranks goes on from a checkpoint") {
    const Ranks ranks(world());
    const auto where = [&] {
      return std::filesystem::temp_directory_path() / ("segmed_ranks_" + std::to_string(getpid()));
    };
    const std::string folder = ranks.texts(where())[0];  // that of rank 0
    const auto whole = weights_after(steps_of(6), small_net(), teacher, Loss{});
    auto options = steps_of(6);
    options.out = folder, options.resume = true;
    for (const bool together_first : {true, false}) {
      if (ranks.first()) std::filesystem::remove_all(folder);
      ranks.any(false);
      std::atomic<bool> stop = false;
      const auto stopping = [&](const Net& net) {
        return StopAfterThird<MeanTeacher<Net>>{teacher(net), &stop};
      };
      auto half = options;
      half.stop = &stop;
      if (together_first) half.ranks = ranks;
      if (together_first || ranks.first()) weights_after(half, small_net(), stopping, Loss{});
      ranks.any(false);
      auto rest = options;
      if (!together_first) rest.ranks = ranks;
      if (together_first && !ranks.first()) continue;
      const auto resumed = weights_after(rest, small_net(9), teacher, Loss{});
      CHECK(farthest(resumed, whole) < 1e-5);
    }
    ranks.any(false);
    if (ranks.first()) std::filesystem::remove_all(folder);
  }
  TEST_CASE("what cannot be shared, and ranks that are not alike, are told") {
    if (world().size() == 1) return;
    auto options = steps_of(2);
    options.ranks = Ranks(world());
    options.batch = world().size() + 1;
    CHECK_THROWS_WITH_AS(weights_after(options, small_net(), labels_alone, Loss{}),
                         doctest::Contains("patches cannot be shared by"), ConfigError);
    options.batch = world().size();
    CHECK_THROWS_WITH_AS(
        weights_after(options, small_net(std::uint64_t(1 + world().rank())), labels_alone, Loss{}),
        doctest::Contains("at the start, rank 1 holds other weights than rank 0"), Error);
  }
  TEST_CASE("cases that fail on some rank are known to all") {
    auto cohort = small_cohort();
    auto options = steps_of(2);
    options.ranks = Ranks(world());
    options.full = std::vector<LoaderCase>{{0}, {1}, {77}};
    options.batch = 3 * world().size();
    Net net = small_net();
    const auto report = run(options, cohort, net, Loss{}, Supervised{}, Sgd{});
    CHECK(report.faults.size() == 1);
  }
}
