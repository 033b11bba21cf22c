// SPDX-License-Identifier: Apache-2.0
// A policy that is chosen at run time does what the policy itself does, and several at once what
// each of them does.
#include "one_step.hpp"
#include <segmed/losses/partial.hpp>
#include <segmed/semi/any_policy.hpp>
#include <segmed/semi/copy_paste.hpp>
#include <segmed/semi/cross_pseudo_supervision.hpp>
#include <segmed/semi/entropy_minimization.hpp>
#include <segmed/semi/exclusion_training.hpp>
#include <segmed/semi/fix_match.hpp>
#include <segmed/semi/marginal_training.hpp>
#include <segmed/semi/mean_teacher.hpp>
#include <segmed/semi/mutual_consistency.hpp>
#include <segmed/semi/partial_completion.hpp>
#include <segmed/semi/regularized_dropout.hpp>
#include <segmed/semi/self_training.hpp>

using namespace trial;

namespace {

using Any = AnyPolicy<Net, Loss>;

/// A cohort whose D_1 has one organ annotated in one case, and nothing in the other.
MemoryCohort partly_annotated() {
  MemoryCohort cohort = small_cohort();
  const Example drawn = cohort.examples[0];
  cohort.add({"partly", "partly", drawn.image, drawn.labels, AnnotatedSet{}.with(1)});
  return cohort;
}
struct Trained {
  std::vector<float> net, policy;
  std::vector<double> losses;
  std::vector<std::string> hooks;
  bool operator==(const Trained&) const = default;
};
/// After some steps with what make(net) returns.
template <class Make>
Trained trained(Make make, Index steps = 5) {
  Net net = small_net();
  auto policy = make(std::as_const(net));
  auto options = few_steps(steps);
  options.average = 0.9f;
  const RunReport report =
      run(options, partly_annotated(), net, Loss{}, policy, AdamW{.rate = 3e-3f});
  Trained end{weights_of(net), weights_of(policy), {}, report.hooks};
  for (const auto& point : report.curve) end.losses.push_back(point.total);
  return end;
}
/// The policy itself beside the same one chosen at run time.
template <class Make>
void check_same(const std::string& name, Make make) {
  CAPTURE(name);
  const Trained itself = trained(make);
  const Trained chosen = trained([&](const Net& net) { return Any(name, make(net)); });
  CHECK(itself.losses.size() > 0);
  CHECK(chosen == itself);
}
template <class... P>
Any together(P... policies) {
  std::vector<Any> all;
  int number = 0;
  (all.push_back(Any("p" + std::to_string(number++), std::move(policies))), ...);
  return Any::together(std::move(all));
}
std::vector<std::string> paths_of(const auto& policy) {
  const Inventory all(policy, "policy");
  std::vector<std::string> paths;
  for (const auto& at : all.leaves) paths.push_back(at.path);
  for (const auto& at : all.states) paths.push_back(at.path);
  return paths;
}
/// What two policies say when they are put together.
std::string refusal(Any one, Any other) {
  std::vector<Any> both;
  both.push_back(std::move(one)), both.push_back(std::move(other));
  try {
    Any::together(std::move(both));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_SUITE("semi/any_policy") {
  TEST_CASE("a policy chosen at run time trains with the bits of the policy itself") {
    check_same("supervised", [](const Net&) { return Supervised{}; });
    check_same("marginal", [](const Net&) { return MarginalTraining{}; });
    check_same("rdrop", [](const Net&) { return RegularizedDropout{}; });
    check_same("fixmatch", [](const Net&) { return FixMatch{}; });
    check_same("mean_teacher", [](const Net& net) { return MeanTeacher<Net>{{net}}; });
    check_same("mcnet", [](const Net& net) { return MutualConsistency<Net>(net); });
    check_same("bcp", [](const Net& net) { return CopyPaste<Net>{{net}}; });
    check_same("self_training", [](const Net&) { return SelfTraining{}; });
    check_same("cps", [](const Net& net) {
      return CrossPseudoSupervision<Net>{with_other_start(net, 2)};
    });
    check_same("partial_completion",
               [](const Net& net) { return PartialCompletion<Net>{.teacher = {net}, .after = 0}; });
  }
  TEST_CASE("two of them train with the bits of Both") {
    const auto check = [](auto first, auto second) {
      const Trained both = trained([&](const Net& net) { return Both{first(net), second(net)}; });
      const Trained any =
          trained([&](const Net& net) { return together(first(net), second(net)); });
      CHECK(any == both);
      return both;
    };
    const auto marginal = [](const Net&) { return MarginalTraining{}; };
    const auto rdrop = [](const Net&) { return RegularizedDropout{}; };
    const auto teacher = [](const Net& net) { return MeanTeacher<Net>{{net}}; };
    const auto cps = [](const Net& net) {
      return CrossPseudoSupervision<Net>{with_other_start(net, 2)};
    };
    const auto rounds = [](const Net&) { return SelfTraining{}; };
    const auto strong = [](const Net&) { return FixMatch{}; };
    const Trained one = check(marginal, rdrop);
    CHECK(one.net != trained(marginal).net);
    CHECK(one.net != trained(rdrop).net);
    check(teacher, marginal);
    check(cps, marginal);  // whose term both networks learn
    check(strong, rounds);
  }
  TEST_CASE("loss and gradient are the sums of those of the parts") {
    OneStep step;
    Net net = small_net();
    Group<float, Cpu> group(Role::trained, net);
    struct Seen {
      double value;
      std::vector<float> gradient;
    };
    const auto of = [&](auto term) {
      auto now = step.now(net);
      group.clear_grads();
      const auto loss = term(now);
      backward(loss);
      return Seen{loss.host(), group.grads.host()};
    };
    Any policy = together(ExclusionTraining{1.5f}, RegularizedDropout{}, EntropyMinimization{});
    const Seen all =
        of([&](auto& now) { return supervised_by(policy, now) + loss_by(policy, now); });
    std::vector<Seen> parts;
    parts.push_back(of([](auto& now) { return labelled_marginally(now, 1.5f); }));
    parts.push_back(of([](auto& now) { return RegularizedDropout{}.loss(now); }));
    parts.push_back(of([](auto& now) { return EntropyMinimization{}.loss(now); }));
    double value = 0;
    std::vector<float> gradient(all.gradient.size());
    for (const Seen& part : parts) {
      CHECK(part.value > 0);
      CHECK(size_of(part.gradient) > 0);
      value += part.value;
      for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] += part.gradient[i];
    }
    CHECK(all.value == doctest::Approx(value).epsilon(1e-6));
    CHECK(distance(all.gradient, gradient) < 1e-4);
  }
  TEST_CASE("their order changes no term, be it asked for a second network in between") {
    OneStep<F, Marginal<Loss>> step;
    Net net = small_net();
    const MutualConsistency<Net> mcnet(net);
    const CrossPseudoSupervision<Net> cps{with_other_start(net, 2)};
    const auto total = [&](auto first, auto second) {
      using Partly = AnyPolicy<Net, Marginal<Loss>>;
      std::vector<Partly> all;
      all.emplace_back("first", first), all.emplace_back("second", second);
      Partly policy = Partly::together(std::move(all));
      double sum = 0;
      for (int i = 0; i < 2; ++i) {  // the second time with what the first one left
        auto now = step.now(net);
        sum = (supervised_by(policy, now) + loss_by(policy, now)).host();
      }
      Tape::current()->clear();
      return sum;
    };
    CHECK(total(cps, mcnet) == doctest::Approx(total(mcnet, cps)).epsilon(1e-6));
  }
  TEST_CASE("a composition resumes bit for bit") {
    check_resumes([](const Net& net) {
      return together(SelfTraining{.rounds = 2}, MeanTeacher<Net>{{net}}, RegularizedDropout{});
    });
    check_resumes([](const Net& net) {
      return together(CrossPseudoSupervision<Net>{with_other_start(net, 2)},
                      PartialCompletion<Net>{.teacher = {net}, .after = 0});
    });
  }
  TEST_CASE("one policy is saved under its own paths, several under their names") {
    const Net net = small_net();
    const MeanTeacher<Net> teacher{{net}};
    CHECK(paths_of(Any("mean_teacher", teacher)) == paths_of(teacher));
    CHECK(paths_of(Any("self_training", SelfTraining{})) == std::vector<std::string>{"policy"});
    std::vector<Any> two;
    two.push_back(Any("mean_teacher", teacher));
    two.push_back(Any("self_training", SelfTraining{}));
    const auto paths = paths_of(Any::together(std::move(two)));
    CHECK(paths.front().rfind("policy.mean_teacher.teacher.module.", 0) == 0);
    CHECK(paths.back() == "policy.self_training");
    CHECK(paths.size() == paths_of(teacher).size() + 1);
  }
  TEST_CASE("a run of the policy itself goes on with it chosen at run time") {
    const std::string folder =
        std::filesystem::temp_directory_path() / ("segmed_any_" + std::to_string(getpid()));
    std::filesystem::remove_all(folder);
    auto options = few_steps(6);
    const auto train = [&](Net& net, auto policy) {
      const auto report =
          run(options, partly_annotated(), net, Loss{}, policy, AdamW{.rate = 3e-3f});
      return std::pair{report.interrupted, weights_of(policy)};
    };
    Net whole = small_net(), half = small_net(), resumed = small_net(9);
    const auto all = train(whole, PartialCompletion<Net>{.teacher = {whole}});
    options.out = folder, options.resume = true;
    std::atomic<bool> stop = false;
    options.stop = &stop;
    using Stopped = StopAfterThird<PartialCompletion<Net>>;
    CHECK(train(half, Stopped{PartialCompletion<Net>{.teacher = {half}}, &stop}).first);
    stop = false;
    const auto rest = train(resumed, Any("x", PartialCompletion<Net>{.teacher = {resumed}}));
    CHECK_FALSE(rest.first);
    CHECK(weights_of(resumed) == weights_of(whole));
    CHECK(rest.second == all.second);
    std::filesystem::remove_all(folder);
  }
  TEST_CASE("two that cannot work together are refused with both names") {
    const Net net = small_net();
    const Any marginal("marginal", MarginalTraining{}), mcnet("mcnet", MutualConsistency<Net>(net)),
        teacher("mean_teacher", MeanTeacher<Net>{{net}}), other("slow", MeanTeacher<Net>{{net}}),
        rdrop("rdrop", RegularizedDropout{});
    CHECK(refusal(marginal, mcnet) ==
          "segmed: policy: marginal and mcnet both replace the term of the labels; give one of "
          "them, and beside it only policies that leave that term as it is");
    CHECK(refusal(teacher, other) ==
          "segmed: policy: mean_teacher and slow both name the network to predict with; give one "
          "of them, and beside it only policies that leave this to the student or its average");
    CHECK(refusal(rdrop, rdrop) == "segmed: policy: rdrop is there twice; give it once");
    CHECK(refusal(marginal, rdrop).empty());
    CHECK(refusal(mcnet, teacher).empty());
    CHECK_THROWS_WITH_AS(Any::together({}), "segmed: policy: there is none; give one or more",
                         ConfigError);
    // Also where one of the two is a composition itself.
    std::vector<Any> two;
    two.push_back(marginal), two.push_back(rdrop);
    CHECK(refusal(Any::together(std::move(two)), mcnet).find("marginal and mcnet") !=
          std::string::npos);
  }
  TEST_CASE("options have their names, several policies' after those of the policies") {
    Any one("rdrop", RegularizedDropout{});
    CHECK(options_of(one) == options_of(RegularizedDropout{}));
    set_options(one, {{"dropout", 0.5}});
    CHECK(options_of(one).at("dropout") == 0.5);
    std::vector<Any> two;
    two.push_back(Any("exclusion", ExclusionTraining{})), two.push_back(one);
    Any both = Any::together(std::move(two));
    const PolicyOptions known = {
        {"exclusion.exclusion", 2}, {"rdrop.weight", 4}, {"rdrop.dropout", 0.5}};
    CHECK(options_of(both) == known);
    set_options(both, {{"exclusion.exclusion", 1}, {"rdrop.weight", 3}});
    CHECK(options_of(std::as_const(both)).at("rdrop.weight") == 3);
    CHECK_THROWS_WITH_AS(
        set_options(both, {{"weight", 1}}),
        "segmed: policy: there is no option weight; give one of exclusion.exclusion, "
        "rdrop.dropout, rdrop.weight",
        ConfigError);
    // Nothing is set where one number is out of its range.
    CHECK_THROWS_AS(set_options(both, {{"exclusion.exclusion", 7}, {"rdrop.dropout", 1}}),
                    ConfigError);
    CHECK(options_of(both).at("exclusion.exclusion") == 1);
    // A number that is set counts.
    OneStep step;
    Net net = small_net();
    auto now = step.now(net);
    const double of_one = supervised_by(both, now).host();
    set_options(both, {{"exclusion.exclusion", 9}});
    auto again = step.now(net);
    CHECK(supervised_by(both, again).host() > of_one);
    Tape::current()->clear();
  }
  TEST_CASE("what a policy says to the compiler is asked when it runs") {
    const Net net = small_net();
    const auto facts = [](const Any& policy) { return policy.facts(); };
    const Any alone = together(Supervised{}), rounds = together(SelfTraining{.rounds = 5}),
              many = together(FixMatch{}, MeanTeacher<Net>{{net}}, SelfTraining{.rounds = 5});
    CHECK(facts(alone).hooks.names() == std::vector<std::string>{"loss"});
    CHECK(facts(many).hooks.names() ==
          std::vector<std::string>{"loss", "supervised", "after_step", "start_round", "rounds",
                                   "predictor", "needs", "members", "options", "save"});
    CHECK(facts(many).needs.strong_view);
    CHECK_FALSE(facts(rounds).needs.strong_view);
    CHECK(rounds_of(many) == 5);
    CHECK(rounds_of(alone) == 1);
    CHECK(facts(alone).replays);
    CHECK(facts(together(Supervised{}, MarginalTraining{})).replays);
    CHECK_FALSE(facts(together(MarginalTraining{}, RegularizedDropout{})).replays);
    CHECK(facts(together(RegularizedDropout{}, MarginalTraining{})).partial_labels);
    CHECK_FALSE(facts(together(MutualConsistency<Net>(net))).partial_labels);
    CHECK(&predictor(alone, net) == &net);
    CHECK(&predictor(many, net) != &net);
    Net student = small_net();
    Any needy = together(FixMatch{}, RegularizedDropout{});
    const AdamW optimizer{};
    const Loss loss{};
    Trainer<Net, Loss, Any, AdamW> trainer(student, loss, needy, optimizer, 1, 0, 0);
    OneStep step;
    step.partial.strong = {};
    CHECK_THROWS_WITH_AS(trainer.step(step.full, step.partial, 0, 1),
                         doctest::Contains("needs a strong view of D_1"), DataError);
  }
  TEST_CASE("a copy is another policy of the same kind") {
    Net net = small_net();
    Any first("cps", CrossPseudoSupervision<Net>{with_other_start(net, 2)}), second = first;
    const auto before = weights_of(second);
    CHECK(before == weights_of(first));
    trained_with(first, net);
    CHECK(weights_of(second) == before);
    CHECK(weights_of(first) != before);
    set_options(second, {{"weight", 0}});
    CHECK(options_of(first).at("weight") > 0);
  }
  TEST_CASE("it stands on an erased network of two axes, whose second network is one too") {
    using N = AnyNetwork<F2>;
    const auto make = [](const N& net) {
      std::vector<AnyPolicy<N, Loss>> two;
      two.emplace_back("cps", CrossPseudoSupervision<N>{with_other_start(net, 2)});
      two.emplace_back("marginal", MarginalTraining{});
      return AnyPolicy<N, Loss>::together(std::move(two));
    };
    N net(small_net_2d());
    auto policy = make(net);
    PolicyStep step(net, policy, unlabelled<F2>(2));
    CHECK(std::isfinite(step.whole()));
  }
}
