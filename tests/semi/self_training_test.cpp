// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "policy_trial.hpp"
#include <segmed/losses/partial.hpp>
#include <segmed/semi/self_training.hpp>

using namespace trial;

namespace {

/// One case of D_1 has its first organ annotated, another one nothing, without any labels.
MemoryCohort mixed_cohort() {
  MemoryCohort cohort = small_cohort();
  const Example drawn = cohort.examples[0];
  cohort.add({"partly", "partly", drawn.image, drawn.labels, AnnotatedSet{}.with(1)});
  cohort.add({"bare", "bare", drawn.image, {}, {}});
  return cohort;
}

/// What SelfTraining relabels D_1 with, by the formula: one window as large as the scan.
struct Spy : SelfTraining {
  const Net* net;
  const MemoryCohort* cohort;
  Index compared = 0, different = 0, doubtful = 0, drawn = 0;

  template <class Round>
  void start_round(Round& round) {
    CHECK(round.classes == 3);
    for (auto& one : round.cases) compare(one);
    SelfTraining::start_round(round);
  }
  void compare(auto& one) {
    const auto found = std::find_if(cohort->examples.begin(), cohort->examples.end(),
                                    [&](const Example& example) { return example.id == one.id; });
    const ReadyCase ready = make_ready(*found, {});
    const Extent3 e = ready.example.image.extent;
    const F image({1, e[2], e[1], e[0], 1}, Storage<float, Cpu>(ready.example.image.voxels));
    const auto logits = evaluating([&] { return value((*net)(image)).dense().value.host(); });
    const auto labels = one.labels(), completed = one.complete(confidence);
    REQUIRE(labels.size() * 3 == logits.size());
    REQUIRE(completed.size() == labels.size());
    for (std::size_t v = 0; v < labels.size(); ++v, ++compared) {
      double total = 0, best = -1;
      std::uint8_t expected = 0;
      for (std::uint8_t c = 0; c < 3; ++c) {
        if (c > 0 && one.annotated.has(c)) continue;
        const double odds = std::exp(double(logits[v * 3 + c]));
        total += odds;
        if (odds > best) best = odds, expected = c;
      }
      const bool near = std::abs(best / total - double(confidence)) < 1e-5;
      if (best / total < double(confidence)) expected = ignored, ++doubtful;
      if (labels[v] != 0) expected = labels[v], ++drawn;
      different += completed[v] != expected && !near;
    }
  }
};

}  // namespace

TEST_SUITE("semi/self_training") {
  TEST_CASE("later rounds learn from what was drawn and from what the network is sure of") {
    const auto cohort = mixed_cohort();
    Net net = small_net();
    Spy policy{{.rounds = 2, .confidence = 0.6f}, &net, &cohort};
    auto options = few_steps(4);
    options.patch = {24, 24, 24}, options.batch = 1;
    const auto report = run(options, cohort, net, Loss{}, policy, AdamW{.rate = 3e-3f});
    CHECK(policy.relabelled == 1);
    CHECK(policy.compared == 2 * 3 * 24 * 24 * 24);
    CHECK(policy.different == 0);
    CHECK(policy.doubtful > 0);
    CHECK(policy.drawn > 0);
    REQUIRE(report.curve.size() == 4);
    CHECK(report.curve[1].total == report.curve[1].labelled);
    CHECK(report.curve[2].total > report.curve[2].labelled);
  }
  TEST_CASE("one round is supervised training, and so is the first of several") {
    Net selftrained = small_net(), supervised = small_net();
    SelfTraining policy{.rounds = 1};
    trained_with(policy, selftrained);
    Supervised labels;
    trained_with(labels, supervised);
    CHECK(weights_of(selftrained) == weights_of(supervised));
  }
  TEST_CASE("partial labels have their usual term until there are others, and count once") {
    const auto cohort = mixed_cohort();
    const auto trained = [&](Index rounds, float weight) {
      Net net = small_net();
      auto options = few_steps(4);
      SelfTraining policy{.rounds = rounds, .weight = weight};
      run(options, cohort, net, Marginal{Loss{}}, policy, AdamW{.rate = 3e-3f});
      return weights_of(net);
    };
    CHECK(trained(1, 1) == trained(1, 0.5f));
    CHECK(trained(2, 1) != trained(2, 0.5f));
  }
  TEST_CASE("relabelled cases survive a restart bit for bit") {
    check_resumes([](const Net&) {  // stopped just before the second round
      return SelfTraining{.rounds = 2, .confidence = 0.4f};
    });
    check_resumes([](const Net&) {  // stopped within the second of three rounds
      return SelfTraining{.rounds = 3, .confidence = 0.4f};
    });
  }
  TEST_CASE("two dimensions") {
    using F2 = Features<2, float, Cpu>;
    UNet<UNetParts<F2>> net({.classes = 3, .widths = {4, 8}, .encoder_convs = 1, .seed = 1});
    auto options = few_steps(2);
    options.patch = {16, 16, 1};
    SelfTraining policy{.rounds = 2, .confidence = 0.4f};
    const auto report = run(options, small_cohort(), net, Loss{}, policy, AdamW{.rate = 3e-3f});
    CHECK(report.skipped == 0);
    CHECK(std::isfinite(report.curve.back().total));
    CHECK(policy.relabelled == 1);
  }
}
