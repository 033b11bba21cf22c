// SPDX-License-Identifier: Apache-2.0
// Ranks that share a batch compute what one process computes with all of it. Every rank does both,
// and compares.
#include <numeric>

#include "policy_trial.hpp"
#include "world.hpp"
#include <segmed/losses/partial.hpp>
#include <segmed/nn/layer.hpp>
#include <segmed/semi/mean_teacher.hpp>
#include <segmed/semi/partial_completion.hpp>
#include <segmed/semi/regularized_dropout.hpp>
#include <segmed/semi/self_training.hpp>
#include <segmed/semi/uncertainty_aware_mean_teacher.hpp>

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

/// Self-training that notes how many cases it was shown, and what labels of D_1 it learnt from.
struct Noting : SelfTraining {
  struct Notes {
    Index cases = 0;
    std::vector<std::uint8_t> labels;
  };
  Notes* notes;

  template <class Round>
  void start_round(Round& round) {
    notes->cases += Index(round.cases.size());
    SelfTraining::start_round(round);
  }
  template <class Now>
  typename Now::Value loss(Now& now) {
    const auto labels = now.partial.labels.classes.host();
    notes->labels.insert(notes->labels.end(), labels.begin(), labels.end());
    return SelfTraining::loss(now);
  }
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
  TEST_CASE("a policy that compares predictions, and one that weighs voxels") {
    check_equals_one_process(
        small_net(), [](const Net&) { return RegularizedDropout{}; }, Loss{});
    check_equals_one_process(
        small_net(),
        [](const Net& net) {
          return UncertaintyAwareMeanTeacher<Net>{.teacher = {net}, .passes = 2, .weight = 2};
        },
        Loss{});
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
  TEST_CASE("a round's cases are dealt out, and all ranks learn from what each made of its own") {
    const Ranks ranks(world());
    auto cohort = small_cohort(6);
    const Example drawn = cohort.examples[0];
    cohort.add({"partly", "partly", drawn.image, drawn.labels, AnnotatedSet{}.with(1)});
    const auto trained = [&](const Ranks& with) {
      auto options = steps_of(9);
      options.ranks = with;
      Net net = small_net();
      Noting::Notes notes;
      // A rate of zero: the same weights for any number of ranks, so the same bits in each label.
      run(options, cohort, net, Loss{}, Noting{{.confidence = 0.37f}, &notes}, Sgd{.rate = 0});
      return notes;
    };
    const auto alone = trained({}), together = trained(ranks);
    const auto shown = ranks.gathered(std::vector<Index>{together.cases});
    CHECK(alone.cases == 3 * 4);
    CHECK(std::accumulate(shown.begin(), shown.end(), Index(0)) == alone.cases);
    CHECK(*std::max_element(shown.begin(), shown.end()) ==
          3 * ((4 + ranks.size() - 1) / ranks.size()));
    // Each step has a patch of every rank; alone they lie side by side.
    const std::size_t patch = 16 * 16 * 16, n = std::size_t(ranks.size()),
                      r = std::size_t(ranks.rank());
    REQUIRE(alone.labels.size() == 9 * n * patch);
    REQUIRE(together.labels.size() == 9 * patch);
    for (std::size_t step = 0; step < 9; ++step)
      CHECK(std::equal(together.labels.begin() + std::ptrdiff_t(step * patch),
                       together.labels.begin() + std::ptrdiff_t((step + 1) * patch),
                       alone.labels.begin() + std::ptrdiff_t((step * n + r) * patch)));
    const auto later = alone.labels.begin() + std::ptrdiff_t(3 * n * patch);
    for (const int label : {0, 1, 2, 255}) CHECK(std::count(later, alone.labels.end(), label) > 0);
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
