// SPDX-License-Identifier: Apache-2.0
// The policy concept carries every kind of policy: a second network, a critic, a second head, weak
// and strong views, rounds of pseudo labels, and two policies at once.
#include <set>

#include "one_step.hpp"
#include <segmed/losses/partial.hpp>
#include <segmed/semi/any_policy.hpp>
#include <segmed/semi/exclusion_training.hpp>
#include <segmed/semi/marginal_training.hpp>
#include <segmed/semi/mean_teacher.hpp>
#include <segmed/semi/mutual_consistency.hpp>
#include <segmed/semi/partial_completion.hpp>
#include <segmed/semi/regularized_dropout.hpp>
#include <segmed/semi/self_training.hpp>

using namespace trial;

namespace {

/// Two networks label for each other: Chen et al. 2021, arXiv:2106.01226, made short.
struct TwoNetworks {
  Net second;
  float weight = 0.5f;
  template <class Now>
  typename Now::Value loss(Now& now) {
    const auto& mine = now.logits_partial();
    const auto theirs = second(now.partial.image);
    return now.criterion(second(now.full.image), now.full.labels) +
           weight * (now.criterion(mine, complete(now.partial.labels, theirs)) +
                     now.criterion(theirs, complete(now.partial.labels, mine)));
  }
  static void members(auto& self, auto&& visit) { visit("second", self.second); }
};

/// A critic tells predictions on D_0 from those on D_1, and the student fools it.
struct Critic {
  using Features = F;
  Conv<F> look{3 + 1, 4, ConvOptions{.stride = 2}}, judge{4, 1, ConvOptions{.stride = 2}};
  F operator()(const F& prediction, const F& image) const {
    return judge(leaky_relu(look(concat(prediction, image)), 0.2));
  }
  static void members(auto& self, auto&& visit) {
    visit("look", self.look);
    visit("judge", self.judge);
  }
};
struct Adversarial {
  Critic critic = {};
  auto loss(auto& now) {
    const F known = softmax(now.logits_full()), guess = softmax(now.logits_partial());
    const auto fool = mean_square(constant(critic)(guess, now.partial.image), 1.0);
    const auto judge = mean_square(critic(detach(known), now.full.image), 1.0) +
                       mean_square(critic(detach(guess), now.partial.image), 0.0);
    return 0.1f * fool + judge;
  }
  static void members(auto& self, auto&& visit) { visit("critic", self.critic); }
};

/// A second head on the decoder's features redraws the image.
struct SecondHead {
  Conv<F> head{4, 1, ConvOptions{.kernel = 1}};
  auto loss(auto& now) {
    return 0.3f * (mean_square(head(now.features_full()), now.full.image) +
                   mean_square(head(now.features_partial()), now.partial.image));
  }
  static void members(auto& self, auto&& visit) { visit("head", self.head); }
};

/// Confident labels from the weak view teach the strong one: Sohn et al. 2020, made short.
struct WeakAndStrong {
  static constexpr Needs needs{.strong_view = true};
  auto loss(auto& now) {
    const auto labels = complete(now.partial.labels, now.logits_partial(), 0.8f);
    return 0.5f * now.criterion(now.student(now.partial.strong), labels);
  }
};

/// From the second round on, D_1 has the labels that the network gave it.
struct PseudoLabels {
  Index rounds = 3;
  std::vector<Index> started = {};
  Index relabelled = 0;
  void start_round(auto& round) {
    started.push_back(round.number);
    if (round.number == 0) return;
    for (auto& one : round.cases) {
      auto labels = one.labels();
      const auto guess = one.predict();
      REQUIRE(labels.size() == guess.size());
      for (std::size_t i = 0; i < labels.size(); ++i)
        if (labels[i] == 0 && !one.annotated.has(guess[i])) labels[i] = guess[i];
      one.relabel(std::move(labels), AnnotatedSet::all(3));
      ++relabelled;
    }
  }
  template <class Now>
  typename Now::Value loss(Now& now) {
    if (started.back() == 0) return {};
    for (const auto& set : now.partial.labels.annotated) REQUIRE(set == AnnotatedSet::all(3));
    return 0.5f * now.labelled_partial();
  }
};

/// A term of a step and its gradient in the student's weights.
struct Part {
  double value;
  std::vector<float> gradient;
};
/// Repeats the step of a fresh copy of `net`; `term(now)` is what is asked of it.
template <class Term>
Part part_of(OneStep<>& step, Net net, Term term) {
  Group<float, Cpu> group(Role::trained, net);
  auto now = step.now(net);
  group.clear_grads();
  const auto value = term(now);
  backward(value);
  return {value.host(), group.grads.host()};
}
/// A policy for the labels and one that adds a term, which draws random numbers, are together what
/// they are alone, whichever comes first.
template <class Labels, class Added>
void check_adds_up(Labels labels, Added added, double expected_labelled) {
  OneStep<> step;
  const Net net = small_net();
  const Part first = part_of(step, net, [&](auto& now) { return labels.supervised(now); });
  const Part second = part_of(step, net, [&](auto& now) { return added.loss(now); });
  CHECK(first.value == doctest::Approx(expected_labelled).epsilon(1e-5));
  CHECK(second.value > 1e-6);
  const auto check = [&](auto both) {
    const Part whole = part_of(
        step, net, [&](auto& now) { return supervised_by(both, now) + loss_by(both, now); });
    CHECK(whole.value == doctest::Approx(first.value + second.value).epsilon(1e-6));
    std::vector<float> sum = first.gradient;
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += second.gradient[i];
    CHECK(distance(whole.gradient, sum) < 1e-5);
    CHECK(distance(whole.gradient, first.gradient) > 1e-3);
    CHECK(distance(whole.gradient, second.gradient) > 1e-3);
  };
  check(Both{labels, added});
  check(Both{added, labels});
}
/// The user's loss of D_0, and of D_1 as its second case annotates class 1 alone, by doubles;
/// `exclusion` times the overlap of class 2 with what was drawn.
double labelled_by_hand(double exclusion) {
  const OneStep<> step;
  const Net net = small_net();
  const auto known = step.full.labels.classes.host();
  const Doubles p = probabilities(net, step.full.image);
  double total = dice(p, known, 3, 2) + cross_entropy(p, known, 3);
  const auto all = step.partial.labels.classes.host();
  const std::vector<std::uint8_t> drawn(all.begin() + std::ptrdiff_t(all.size() / 2), all.end());
  const Doubles q = probabilities(net, step.partial.image);
  Doubles joined;  // background with class 2; class 1
  double overlap = 0, sizes = 0;
  for (std::size_t v = 0; v < drawn.size(); ++v) {
    const double* one = &q[3 * (drawn.size() + v)];
    joined.push_back(one[0] + one[2]), joined.push_back(one[1]);
    const double organ = drawn[v] != 0 ? 1 : 0;
    overlap += organ * one[2], sizes += organ + one[2];
  }
  total += dice(joined, drawn, 2, 1) + cross_entropy(joined, drawn, 2);
  return total + exclusion * 2 * overlap / (sizes + 1e-5);
}
// Hooks with a wrong signature.
struct TurnedOptions : Supervised {
  float weight = 1;
  static void options(auto&& visit, auto& self) { visit("weight", self.weight); }
};
struct BareMembers : Supervised {
  static void members(int) {}
};
struct Last final : Supervised {
  void after_step(int) {}
};

}  // namespace

TEST_SUITE("semi/policy") {
  TEST_CASE("a second network is trained with the student and stays another network") {
    Net net = small_net(1);
    TwoNetworks policy{small_net(2)};
    const auto before = weights_of(policy.second);
    const auto report = trained_with(policy, net);
    CHECK(report.steps == 4);
    CHECK(weights_of(policy.second) != before);
    CHECK(weights_of(policy.second) != weights_of(net));
    CHECK(report.curve.back().total > report.curve.back().labelled);
  }
  TEST_CASE("student and critic learn in one backward, each a constant to the other") {
    Net net = small_net();
    Adversarial policy;
    const auto before = policy.critic.look.weight.value().host();
    trained_with(policy, net);
    CHECK(policy.critic.look.weight.value().host() != before);
  }
  TEST_CASE("a head of the policy's own sits on the student's features") {
    Net net = small_net();
    SecondHead policy;
    const auto before = policy.head.weight.value().host();
    trained_with(policy, net);
    CHECK(policy.head.weight.value().host() != before);
  }
  TEST_CASE("a strong view is there for the policy that needs it") {
    Net net = small_net();
    WeakAndStrong policy;
    CHECK(trained_with(policy, net).skipped == 0);
  }
  TEST_CASE("rounds of pseudo labels relabel D_1") {
    Net net = small_net();
    PseudoLabels policy;
    trained_with(policy, net, 6);
    CHECK(policy.started == std::vector<Index>{0, 1, 2});
    CHECK(policy.relabelled == 2 * Index(training_cases(small_cohort(), false).size()));
  }
  TEST_CASE("a run remarks that labels of D_1 are not learnt") {
    const auto remarks = [](auto loss, auto policy) {
      Net net = small_net();
      return run(few_steps(1), small_cohort(), net, loss, policy, AdamW{}).remarks;
    };
    REQUIRE(remarks(Loss{}, Supervised{}).size() == 1);
    CHECK(remarks(Loss{}, Supervised{})[0].find("wrap it in Marginal") != std::string::npos);
    CHECK(remarks(Marginal{Loss{}}, Supervised{}).empty());
    CHECK(remarks(Loss{}, MarginalTraining{}).empty());
    CHECK(remarks(Loss{}, Both{WeakAndStrong{}, MarginalTraining{}}).empty());
    // A term of its own that asks the loss whether it can learn them learns them no more than that.
    const MutualConsistency<Net> decoders(small_net());
    CHECK(remarks(Loss{}, decoders).size() == 1);
    CHECK(remarks(Marginal{Loss{}}, decoders).empty());
    using Any = AnyPolicy<Net, Loss>;
    CHECK(remarks(Loss{}, Any("mcnet", decoders)).size() == 1);
    CHECK(remarks(Loss{}, Any("marginal", MarginalTraining{})).empty());
  }
  TEST_CASE("two policies have the rounds of the one that has more") {
    CHECK(rounds_of(Both{PseudoLabels{.rounds = 2}, Supervised{}}) == 2);
    CHECK(rounds_of(Both{PseudoLabels{.rounds = 2}, PseudoLabels{.rounds = 5}}) == 5);
    CHECK_THROWS_WITH_AS(rounds_of(PseudoLabels{.rounds = 0}),
                         "segmed: policy: its rounds are 0; give 1 or more", ConfigError);
  }
  TEST_CASE("a policy without a term trains as no policy at all") {
    Net with = small_net(), without = small_net();
    Supervised policy;
    trained_with(policy, with);
    auto options = few_steps();
    options.partial = std::vector<LoaderCase>{};
    run(options, small_cohort(), without, Loss{}, Supervised{}, AdamW{.rate = 3e-3f});
    CHECK(weights_of(with) == weights_of(without));
  }
  TEST_CASE("the teacher is an average of the student, and predicts") {
    Net net = small_net();
    MeanTeacher<Net> policy{.teacher = {net}};
    const auto start = weights_of(net);
    trained_with(policy, net);
    const auto teacher = weights_of(policy.teacher.module), student = weights_of(net);
    CHECK(teacher != student);
    CHECK(teacher != start);
    CHECK(&policy.predictor(net) == &policy.teacher.module);
  }
  TEST_CASE("two policies compose") {
    Net net = small_net();
    Both policy{MeanTeacher<Net>{.teacher = {net}}, WeakAndStrong{}};
    static_assert(needs_of<decltype(policy)>().strong_view);
    const auto report = trained_with(policy, net);
    CHECK(report.hooks == std::vector<std::string>{"loss", "after_step", "predictor", "needs",
                                                   "members", "options"});
  }
  TEST_CASE("two policies are the sum of their terms, and so is the gradient") {
    check_adds_up(MarginalTraining{}, RegularizedDropout{}, labelled_by_hand(0));
    check_adds_up(ExclusionTraining{},
                  MeanTeacher<Net>{.teacher = {small_net(2)}, .weight = 3, .noise = 0.3f},
                  labelled_by_hand(2));
  }
  TEST_CASE("hooks are found by name, and a wrong signature is not taken for none") {
    struct Misspelt : Supervised {
      void after_step(int) {}
    };
    CHECK(hooks_fit<Supervised, Net, Loss>());
    CHECK_FALSE(hooks_fit<Misspelt, Net, Loss>());
    CHECK(hooks_of<PseudoLabels, Net, Loss>().start_round);
    CHECK_FALSE(hooks_fit<TurnedOptions, Net, Loss>());
    CHECK_FALSE(hooks_fit<BareMembers, Net, Loss>());
    CHECK_FALSE(hooks_fit<Last, Net, Loss>());
    CHECK_FALSE(may_be_asked<Both<Supervised, Last>>());
  }
  TEST_CASE("every hook has its name in the report") {
    const auto names = [](auto policy) { return hooks_of<decltype(policy), Net, Loss>().names(); };
    using Names = std::vector<std::string>;
    CHECK(names(Supervised{}) == Names{"loss"});
    CHECK(names(PseudoLabels{}) == Names{"loss", "start_round", "rounds"});
    CHECK(names(SelfTraining{}) ==
          Names{"loss", "supervised", "start_round", "rounds", "options", "save"});
    CHECK(names(Both{SelfTraining{}, WeakAndStrong{}}) ==
          Names{"loss", "supervised", "start_round", "rounds", "needs", "options", "save"});
  }
}

TEST_SUITE("semi/partial_completion") {
  TEST_CASE("a drawn label whose class is not annotated says nothing") {
    const Grid grid{1, 1, 1, 3, 1};
    const auto only_one = AnnotatedSet{}.with(1);
    const F logits(grid.with_channels(3),
                   Storage<float, Cpu>(std::vector<float>{0, 0, 9, 0, 9, 1, 9, 0, 0}));
    const auto shown = complete(labels_of<Cpu>(grid, {1, 2, 2}, {only_one}), logits);
    const auto hidden = complete(labels_of<Cpu>(grid, {1, 0, 0}, {only_one}), logits);
    CHECK(shown.classes.host() == hidden.classes.host());
    CHECK(shown.classes.host() == std::vector<std::uint8_t>{1, 2, 0});
  }
  TEST_CASE("completion keeps what was drawn and opens only what nobody annotated") {
    const Grid grid{2, 1, 1, 3, 1};
    // Case 0: class 1 annotated. Case 1: nothing annotated, so every voxel is ignored.
    auto known = labels_of<Cpu>(grid, {1, 0, 0, ignored, ignored, ignored},
                                {AnnotatedSet{}.with(1), AnnotatedSet{}});
    const F logits(grid.with_channels(3),
                   Storage<float, Cpu>(std::vector<float>{0, 0, 9, 0, 9, 1, 9, 0, 0,  //
                                                          0, 9, 0, 0, 0, 9, 1, 1, 1}));
    const auto sure = complete(known, logits).classes.host();
    CHECK(sure == std::vector<std::uint8_t>{1, 2, 0, 1, 2, 0});
    const auto doubtful = complete(known, logits, 0.9f).classes.host();
    CHECK(doubtful == std::vector<std::uint8_t>{1, ignored, 0, 1, 2, ignored});
  }
  TEST_CASE("partly annotated cases change the training, and it resumes bit for bit") {
    Net completed = small_net(), supervised = small_net();
    PartialCompletion<Net> policy{.teacher = {completed}};
    trained_with(policy, completed);
    Supervised labels;
    trained_with(labels, supervised);
    CHECK(weights_of(supervised) != weights_of(completed));
    check_resumes([](const Net& net) { return PartialCompletion<Net>{.teacher = {net}}; });
  }
  TEST_CASE("a case in D_0 and in D_1 is told by its name") {
    auto options = few_steps(1);
    options.full = std::vector<LoaderCase>{{0}, {1}};
    options.partial = std::vector<LoaderCase>{{2}, {1}};
    Net net = small_net();
    CHECK_THROWS_WITH_AS(run(options, small_cohort(), net, Loss{}, Supervised{}, AdamW{}),
                         doctest::Contains("is in D_0 and in D_1"), ConfigError);
  }
  TEST_CASE("a patient in D_0 and in D_1, and a case of D_0 without all classes, are told") {
    auto cohort = small_cohort();
    auto options = few_steps(1);
    Net net = small_net();
    const auto begin = [&] { run(options, cohort, net, Loss{}, Supervised{}, AdamW{}); };
    cohort.examples[3].patient = cohort.examples[0].patient = "Smith";
    CHECK_THROWS_WITH_AS(begin(), doctest::Contains("patient Smith is in D_0 and in D_1 (case "),
                         ConfigError);
    cohort = small_cohort();
    options.full = std::vector<LoaderCase>{{0, AnnotatedSet{}.with(2)}, {1}};
    CHECK_THROWS_WITH_AS(begin(), doctest::Contains("annotates 1 of the 2 classes"), DataError);
    options.full = {};
    CHECK_NOTHROW(begin());
  }
  TEST_CASE("D_1's cases weigh by the number of cases with the same classes, where asked for") {
    const auto cohort = small_cohort(6, 3);
    auto options = few_steps(2);
    options.partial =
        std::vector<LoaderCase>{{2, AnnotatedSet{}.with(1)}, {3, {}}, {4, {}}, {5, {}}};
    options.full = std::vector<LoaderCase>{{0}, {1}};
    for (const LoaderCase& one : TrainingData(cohort, options).partial) CHECK(one.weight == 1);
    options.balance_sources = true;
    const TrainingData data(cohort, options);
    CHECK(data.partial[0].weight == 1);
    for (std::size_t i = 1; i < 4; ++i) CHECK(data.partial[i].weight == 1 / std::sqrt(3.0f));
    for (const LoaderCase& one : data.full) CHECK(one.weight == 1);
    Net net = small_net();
    CHECK(run(options, cohort, net, Loss{}, MarginalTraining{}, AdamW{}).steps == 2);
  }
  TEST_CASE("samples without a strong view are told where a policy needs one") {
    Net net = small_net();
    WeakAndStrong policy;
    const Loss loss{};
    const AdamW optimizer{};
    Trainer<Net, Loss, WeakAndStrong, AdamW> trainer(net, loss, policy, optimizer, 1, 0, 0);
    Samples<F> samples;
    samples.image = F({1, 8, 8, 8, 1}, Storage<float, Cpu>(512));
    samples.labels = labels_of<Cpu>(samples.image.grid(), std::vector<std::uint8_t>(512, 1),
                                    {AnnotatedSet::all(3)});
    CHECK_THROWS_WITH_AS(trainer.step(samples, samples, 0, 1),
                         doctest::Contains("needs a strong view of D_1"), DataError);
    Samples<F> both = samples;
    both.strong = samples.image;
    CHECK_NOTHROW(trainer.step(samples, both, 0, 1));
  }
  TEST_CASE("the number of threads changes no bit of a training") {
    const int before = threads();
    std::set<std::vector<float>> results;
    for (const int count : {1, 2, 4}) {
      set_threads(count);
      Net net = small_net();
      PartialCompletion<Net> policy{.teacher = {net}};
      trained_with(policy, net, 3);
      results.insert(weights_of(net));
    }
    set_threads(before);
    CHECK(results.size() == 1);
  }
}
