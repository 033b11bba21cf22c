// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/semi/partial_completion.hpp>

using namespace trial;

namespace {

using Completion = PartialCompletion<Net>;

/// Probabilities among open classes, voxel by voxel, on the host.
struct Answer {
  int label;
  double confidence;
};
Answer answer_of(const std::vector<float>& z, std::size_t v, Index classes,
                 const AnnotatedSet& annotated) {
  Answer best{0, 0};
  double total = 0;
  const auto at = [&](Index c) { return double(z[v * std::size_t(classes) + std::size_t(c)]); };
  for (Index c = 0; c < classes; ++c) {
    if (c > 0 && annotated.has(c)) continue;
    if (at(c) > at(best.label)) best.label = int(c);
    total += std::exp(at(c));
  }
  best.confidence = std::exp(at(best.label)) / total;
  return best;
}

/// Some partly annotated voxels: class 1 in case 0, class 2 in case 1.
struct Setting {
  Grid grid{2, 4, 4, 4, 1};
  std::vector<std::uint8_t> drawn;
  std::vector<AnnotatedSet> sets{AnnotatedSet{}.with(1), AnnotatedSet{}.with(2)};
  std::vector<float> z;

  explicit Setting(std::uint64_t seed) {
    const Philox random{seed, Purpose::noise};
    for (Index v = 0; v < grid.size(); ++v) {
      const bool organ = random.uniform(v) < 0.3f;
      drawn.push_back(organ ? std::uint8_t(1 + v / grid.voxels()) : 0);
    }
    drawn[3] = ignored;
    for (Index i = 0; i < 3 * grid.size(); ++i) z.push_back(2 * random.normal(1000 + i));
  }
  Labels<Cpu> labels() const { return labels_of<Cpu>(grid, drawn, sets); }
  F logits() const { return F(grid.with_channels(3), Storage<float, Cpu>(z)); }
  const AnnotatedSet& set(std::size_t v) const { return sets[v / std::size_t(grid.voxels())]; }
};

/// The mean confidences after an answer, in double.
void follow(std::vector<double>& mean, const Setting& s, double keep) {
  std::vector<double> sum(3), voxels(3);
  for (std::size_t v = 0; v < s.drawn.size(); ++v) {
    if (s.drawn[v] != 0) continue;
    const Answer a = answer_of(s.z, v, 3, s.set(v));
    sum[std::size_t(a.label)] += a.confidence, ++voxels[std::size_t(a.label)];
  }
  for (std::size_t c = 0; c < 3; ++c)
    if (voxels[c] > 0)
      mean[c] = mean[c] > 0 ? keep * mean[c] + (1 - keep) * sum[c] / voxels[c] : sum[c] / voxels[c];
}
RunOptions partly(Index steps) {
  auto options = few_steps(steps);
  options.full = std::vector<LoaderCase>{{0}};
  options.partial = std::vector<LoaderCase>{{1, AnnotatedSet{}.with(1)}};
  return options;
}
/// A network that shows no features.
struct Plain {
  using Features = F;
  Conv<F> head{1, 3};
  F operator()(const F& x) const { return head(x); }
  static void members(auto& self, auto&& visit) { visit("head", self.head); }
};
std::vector<float> trained(Completion policy, Net net) {
  run(partly(3), small_cohort(), net, Loss{}, policy, AdamW{.rate = 3e-3f});
  return weights_of(net);
}

}  // namespace

TEST_SUITE("semi/partial_completion") {
  TEST_CASE("mean confidences and what they ask for are their formulas") {
    ClassConfidence<Cpu> sure(255);
    std::vector<double> mean(3);
    for (const std::uint64_t seed : {1, 2, 3}) {
      const Setting s(seed);
      sure.follow(s.labels(), s.logits(), 0.9f);
      follow(mean, s, double(0.9f));
      const auto found = sure.mean.running().host();
      const auto least = sure.least(0.8f).host();
      const double most = *std::max_element(mean.begin(), mean.end());
      for (std::size_t c = 0; c < 3; ++c) {
        CHECK(double(found[c]) == doctest::Approx(mean[c]).epsilon(1e-5));
        CHECK(double(least[c]) == doctest::Approx(0.8 * mean[c] / most).epsilon(1e-5));
      }
      CHECK(least[9] == 0.8f);  // never answered: as much as of the surest
      const auto labels = complete(s.labels(), s.logits(), sure.least(0.8f)).classes.host();
      for (std::size_t v = 0; v < labels.size(); ++v) {
        const Answer a = answer_of(s.z, v, 3, s.set(v));
        const double enough = double(least[std::size_t(a.label)]);
        if (std::abs(a.confidence - enough) < 1e-5) continue;
        const int expected = a.confidence < enough ? ignored : a.label;
        CHECK(int(labels[v]) == (s.drawn[v] != 0 ? s.drawn[v] : expected));
      }
    }
  }
  TEST_CASE("one confidence per class, all of them equal, is one confidence") {
    const Setting s(4);
    const Storage<float, Cpu> each(std::vector<float>{0.7f, 0.7f, 0.7f});
    CHECK(complete(s.labels(), s.logits(), each).classes.host() ==
          complete(s.labels(), s.logits(), 0.7f).classes.host());
    CHECK_THROWS_WITH_AS(complete(s.labels(), s.logits(), each.slice(0, 2)),
                         "segmed: complete: 2 confidences for 3 classes", ShapeError);
    ClassConfidence<Cpu> small(2);
    CHECK_THROWS_WITH_AS(
        small.follow(s.labels(), s.logits(), 0.9f),
        "segmed: ClassConfidence: has room for 2 classes, not 3; say so when it is made",
        ConfigError);
  }
  TEST_CASE("the number of threads changes no bit of the mean confidences") {
    const int before = threads();
    std::vector<std::vector<float>> found;
    for (const int count : {1, 2, 4}) {
      set_threads(count);
      const Setting s(5);
      ClassConfidence<Cpu> sure(3);
      sure.follow(s.labels(), s.logits(), 0.9f);
      found.push_back(sure.mean.running().host());
    }
    set_threads(before);
    CHECK(found[0] == found[1]);
    CHECK(found[0] == found[2]);
  }
  TEST_CASE("the terms are those of the parts that are switched on") {
    const Net net = small_net(), other = small_net(2);
    Net student = net;
    const Setting s(6);
    const Philox random{9, Purpose::noise};
    std::vector<float> image;
    for (Index i = 0; i < s.grid.size(); ++i) image.push_back(random.normal(i));
    Setting whole = s;
    whole.sets.assign(2, AnnotatedSet::all(3));
    const Samples<F> full{F(s.grid, Storage<float, Cpu>(image)), whole.labels()};
    const Samples<F> partial{F(s.grid, Storage<float, Cpu>(image)), s.labels()};
    Clock<Cpu> clock;
    clock.set({.progress = 0.75f, .ramp = 1});
    const auto terms = [&](Completion policy, auto loss) {
      SemiStep<Net, decltype(loss)> now(student, loss, full, partial, clock);
      const std::pair<double, double> found{supervised_by(policy, now).host(),
                                            policy.loss(now).host()};
      Tape::current()->clear();
      return found;
    };
    const F z = evaluating([&] { return student(partial.image); });
    const auto value_of = [&](const auto& loss, const Labels<Cpu>& labels) {
      return double(voxel_loss(loss, z, labels).host());
    };
    const Loss user{};
    const double base = value_of(user, full.labels), out = value_of(Exclusion{}, partial.labels),
                 merged = value_of(Marginal{user}, partial.labels);
    const auto near = [](double x) { return doctest::Approx(x).epsilon(1e-5); };
    // Each scan of D_1 annotates one of two organs.
    CHECK(terms({.teacher = {other}}, user).first == near(base + merged / 2 + double(0.1f) * out));
    CHECK(terms({.teacher = {other}, .exclusion = 0}, user).first == near(base + merged / 2));
    CHECK(terms({.teacher = {other}, .balanced = false}, user).first ==
          near(base + merged + double(0.1f) * out));
    CHECK(terms({.teacher = {other}, .marginal = false}, user).first ==
          near(base + double(0.1f) * out));
    // A loss that takes partial labels by itself: the same terms.
    const Marginal takes{user};
    CHECK(terms({.teacher = {other}}, takes).first == near(base + merged / 2 + double(0.1f) * out));
    CHECK(terms({.teacher = {other}, .exclusion = 0}, takes).first == near(base + merged / 2));
    CHECK(terms({.teacher = {other}, .marginal = false}, takes).first ==
          near(base + double(0.1f) * out));

    const F answer = evaluating([&] { return other(partial.image); });
    const double completed = value_of(user, complete(partial.labels, answer, 0.7f));
    CHECK(terms({.teacher = {other}, .weight = 0.5f, .adaptive = false}, user).second ==
          near(0.5 * completed));
    ClassConfidence<Cpu> sure(3);
    sure.follow(partial.labels, answer, 0.99f);
    const double adapted = value_of(user, complete(partial.labels, answer, sure.least(0.7f)));
    CHECK(terms({.teacher = {other}, .weight = 0.5f}, user).second == near(0.5 * adapted));
    CHECK(adapted != near(completed));
    CHECK(terms({.teacher = {other}, .weight = 0}, user).second == 0);
  }
  TEST_CASE("answers with other features dropped agree, beside completion, when asked to") {
    Net net = small_net();
    OneStep step;
    const auto value = [&](auto policy) {
      auto now = step.now(net);
      const auto term = policy.loss(now);
      const double found = term ? term.host() : 0;
      Tape::current()->clear();
      return found;
    };
    const Completion off{.teacher = {small_net(2)}, .confidence = 0.4f};
    Completion both = off, alone = off;
    both.agree.weight = alone.agree.weight = 3;
    alone.weight = 0;
    const double completion = value(off), agreement = value(RegularizedDropout{.weight = 3});
    CHECK(completion > 0);
    CHECK(agreement > 0);
    CHECK(value(both) == doctest::Approx(completion + agreement).epsilon(1e-5));
    CHECK(value(alone) == doctest::Approx(agreement).epsilon(1e-5));
    check_resumes([&](const Net& start) {
      Completion policy{.teacher = {start}, .after = 0};
      policy.agree.weight = 3;
      return policy;
    });
  }
  TEST_CASE("a network that cannot drop features is refused agreement, and trains without") {
    Plain net;
    PartialCompletion<Plain> policy{.teacher = {net}, .confidence = 0.4f};
    OneStep step;
    auto now = step.now(net);
    CHECK_NOTHROW(policy.loss(now));
    policy.agree.weight = 4;
    CHECK_THROWS_WITH_AS(policy.loss(now),
                         "segmed: PartialCompletion: agree.weight is 4, and this network cannot "
                         "drop its features; give 0",
                         ConfigError);
    Tape::current()->clear();
  }
  TEST_CASE("completed labels are constants: the gradient reaches the student alone") {
    auto net = small_net(1);
    Completion policy{.teacher = {small_net(2)}, .after = 0, .confidence = 0.4f};
    PolicyStep step(net, policy);
    CHECK(Index(step.group.params().size()) ==
          Index(Group<float, Cpu>(Role::frozen, policy.teacher).params().size()));
    const auto gradient = step.gradient();
    CHECK(std::any_of(gradient.begin(), gradient.end(), [](float g) { return g != 0; }));
  }
  TEST_CASE("two dimensions, erased networks, and any number of threads") {
    const auto make = [](const auto& net) {
      return PartialCompletion<std::remove_cvref_t<decltype(net)>>{
          .teacher = {net}, .after = 0, .confidence = 0.4f};
    };
    check_flat_and_erased(make);
    check_threads(make);
  }
  TEST_CASE("a policy that adapts resumes bit for bit, and is not one that does not") {
    check_resumes([](const Net& net) { return Completion{.teacher = {net}, .after = 0}; });
    const Net net = small_net();
    const Completion adaptive{.teacher = {net}, .after = 0};
    const Completion fixed{.teacher = {net}, .after = 0, .adaptive = false};
    Completion switched = adaptive;
    switched.adaptive = false;
    CHECK(trained(fixed, net) != trained(adaptive, net));
    CHECK(trained(fixed, net) == trained(switched, net));
  }
}
