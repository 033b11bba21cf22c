// SPDX-License-Identifier: Apache-2.0
#include <limits>
#include <sstream>

#include <doctest/doctest.h>

#include "policy_trial.hpp"
#include <segmed/semi/adversarial.hpp>
#include <segmed/semi/copy_paste.hpp>
#include <segmed/semi/cross_consistency.hpp>
#include <segmed/semi/cube_shuffle.hpp>
#include <segmed/semi/deformation_consistency.hpp>
#include <segmed/semi/dual_task.hpp>
#include <segmed/semi/fix_match.hpp>
#include <segmed/semi/interpolation_consistency.hpp>
#include <segmed/semi/mean_teacher.hpp>
#include <segmed/semi/mutual_consistency.hpp>
#include <segmed/semi/options.hpp>
#include <segmed/semi/partial_completion.hpp>
#include <segmed/semi/regularized_dropout.hpp>
#include <segmed/semi/self_training.hpp>
#include <segmed/semi/transform_consistency.hpp>
#include <segmed/semi/uncertainty_aware_mean_teacher.hpp>
#include <segmed/semi/uni_match.hpp>

using namespace trial;

namespace {

/// `value` is refused as outside of that range, and nothing is set.
template <class P>
void refuses(P policy, const std::string& name, double value, const std::string& range) {
  const PolicyOptions before = options_of(policy);
  std::ostringstream number;
  number << value;
  const std::string message =
      "segmed: policy: option " + name + " is " + number.str() + "; give " + range;
  CHECK_THROWS_WITH_AS(set_options(policy, {{name, value}}), message.c_str(), ConfigError);
  CHECK(options_of(policy) == before);
}
template <class P>
void takes(P policy, const std::string& name, double value) {
  set_options(policy, {{name, value}});
  CHECK(options_of(policy)[name] == double(float(value)));
}
template <class P>
void check_defaults(const P& policy) {
  each_option(policy, [](const std::string& name, const auto& value, const OptionRange& range) {
    CHECK_MESSAGE(range.holds(double(value)), name);
  });
}

/// A policy of a user, who says of one number only what it may be.
struct Own {
  float bound = 1, free = 0;
  Index count = 1;

  static void options(auto& self, auto&& visit) {
    visit("bound", self.bound, above(0));
    visit("free", self.free);
    visit("count", self.count, OptionRange{.most = 3});
  }
};

}  // namespace

TEST_SUITE("semi/options") {
  TEST_CASE("options have the values of their defaults, and take others of their kind") {
    TransformConsistency policy;
    CHECK(options_of(policy) == PolicyOptions{{"mirrors", 0}, {"weight", double(0.1f)}});
    set_options(policy, {{"weight", 0.5}, {"mirrors", 1}});
    CHECK(policy.weight == 0.5f);
    CHECK(policy.mirrors);
    UncertaintyAwareMeanTeacher<Net> teacher{{small_net()}};
    set_options(teacher, {{"passes", 4}});
    CHECK(teacher.passes == 4);
    CHECK(teacher.weight == 0.1f);
  }
  TEST_CASE("what a policy does not have or cannot take is refused, and nothing is set") {
    TransformConsistency policy;
    CHECK_THROWS_WITH_AS(set_options(policy, {{"weight", 2}, {"width", 1}}, "transform"),
                         "segmed: transform: there is no option width; give one of mirrors, weight",
                         ConfigError);
    CHECK_THROWS_WITH_AS(set_options(policy, {{"weight", 2}, {"mirrors", 0.5}}),
                         "segmed: policy: option mirrors is 0.5; give 0 for no or 1 for yes",
                         ConfigError);
    CHECK_THROWS_AS(set_options(policy, {{"weight", std::numeric_limits<double>::quiet_NaN()}}),
                    ConfigError);
    CHECK(policy.weight == 0.1f);
    Supervised none;
    CHECK_THROWS_WITH_AS(set_options(none, {{"weight", 2}}),
                         "segmed: policy: there is no option weight", ConfigError);
    UncertaintyAwareMeanTeacher<Net> teacher{{small_net()}};
    CHECK_THROWS_AS(set_options(teacher, {{"passes", 2.5}}), ConfigError);
    CHECK_THROWS_AS(set_options(teacher, {{"passes", 1e12}}), ConfigError);
  }
  TEST_CASE("a number outside of its range is refused, and nothing is set") {
    const Net net = small_net();
    refuses(MeanTeacher<Net>{{net}}, "keep", 7, "0 to 1");
    refuses(PartialCompletion<Net>{{net}}, "keep", 2, "0 to 1");
    refuses(MutualConsistency<Net>(net), "temperature", 0, "more than 0");
    refuses(Adversarial<Net>::of(3), "pace", 5, "0 to 1");
    refuses(CopyPaste<Net>{{net}}, "side", -1, "0 to 1");
    refuses(RegularizedDropout{}, "weight", -1, "0 or more");
    refuses(PartialCompletion<Net>{{net}}, "agree.dropout", 1, "0 to less than 1");
    refuses(FixMatch{}, "confidence", 3, "0 to 1");
    refuses(CubeShuffle<Net>{{net}}, "parts", 0, "1 or more");
    refuses(UncertaintyAwareMeanTeacher<Net>{{net}}, "passes", 0, "1 or more");
    refuses(InterpolationConsistency<Net>{{net}}, "shape", 0, "more than 0, up to 10");
    refuses(RegularizedDropout{}, "dropout", 1, "0 to less than 1");
    refuses(CrossConsistency<Net>(net), "dropout", 2, "0 to less than 1");
    refuses(DeformationConsistency{}, "cell", 0, "1 or more");
    refuses(DualTask<Net>::of(net, 3), "steepness", -1500, "more than 0");
    refuses(UniMatch{}, "views", 3, "1 to 2");
    refuses(Both{MeanTeacher<Net>{{net}}, FixMatch{}}, "second.confidence", -0.5, "0 to 1");

    MeanTeacher<Net> teacher{{net}};
    CHECK_THROWS_AS(set_options(teacher, {{"keep", 0.5}, {"weight", -1}}), ConfigError);
    CHECK(teacher.keep == 0.99f);
  }
  TEST_CASE("a range may depend on another option, as it is set beside it") {
    const Net net = small_net();
    const CrossConsistency<Net> policy(net);
    refuses(policy, "low", 0.95, "0 to 0.9");
    refuses(policy, "high", 0.5, "0.7 to 1");
    CrossConsistency<Net> both(net);
    set_options(both, {{"low", 0.2}, {"high", 0.4}});
    CHECK(both.low == 0.2f);
    CHECK(both.high == 0.4f);
    CHECK_THROWS_AS(set_options(both, {{"low", 0.9}, {"high", 0.8}}), ConfigError);
    CHECK(both.low == 0.2f);
    CHECK(both.high == 0.4f);
  }
  TEST_CASE("the ends of a range belong to it unless it says otherwise") {
    const Net net = small_net();
    takes(MeanTeacher<Net>{{net}}, "keep", 0);
    takes(MeanTeacher<Net>{{net}}, "keep", 1);
    takes(MeanTeacher<Net>{{net}}, "weight", 0);
    takes(RegularizedDropout{}, "dropout", 0);
    takes(UniMatch{}, "views", 2);
    takes(MutualConsistency<Net>(net), "temperature", 1e-6);
  }
  TEST_CASE("a number is judged as the policy keeps it") {
    refuses(RegularizedDropout{}, "dropout", 1 - 1e-12, "0 to less than 1");
    refuses(MutualConsistency<Net>(small_net()), "temperature", 1e-60, "more than 0");
    refuses(RegularizedDropout{}, "weight", 1e300, "a smaller number");
  }
  TEST_CASE("defaults lie in their ranges") {
    const Net net = small_net();
    check_defaults(MeanTeacher<Net>{{net}});
    check_defaults(PartialCompletion<Net>{{net}});
    check_defaults(MutualConsistency<Net>(net));
    check_defaults(Adversarial<Net>::of(3));
    check_defaults(CopyPaste<Net>{{net}});
    check_defaults(CubeShuffle<Net>{{net}});
    check_defaults(UncertaintyAwareMeanTeacher<Net>{{net}});
    check_defaults(InterpolationConsistency<Net>{{net}});
    check_defaults(SelfTraining{});
    check_defaults(CrossConsistency<Net>(net));
    check_defaults(DeformationConsistency{});
    check_defaults(DualTask<Net>::of(net, 3));
    check_defaults(UniMatch{});
  }
  TEST_CASE("a policy need not say what its numbers may be") {
    takes(Own{}, "free", -1e6);
    takes(Own{}, "count", -2);
    refuses(Own{}, "count", 4, "3 or less");
    refuses(Own{}, "bound", 0, "more than 0");
  }
  TEST_CASE("what was set past the names is refused by the step") {
    Net net = small_net();
    CubeShuffle<Net> policy{.teacher = {net}, .parts = 0};
    const Loss loss;
    Clock<Cpu> clock;
    const Samples<F> none;
    SemiStep<Net, Loss> now(net, loss, none, none, clock);
    CHECK_THROWS_WITH_AS(policy.loss(now),
                         "segmed: CubeShuffle: 0 cubes along each axis; give 1 or more",
                         ConfigError);
  }
  TEST_CASE("policies within a policy are told apart by their place") {
    Both both{MeanTeacher<Net>{{small_net()}}, SelfTraining{}};
    set_options(both, {{"first.weight", 0.25}, {"second.weight", 0.75}});
    CHECK(both.first.weight == 0.25f);
    CHECK(both.second.weight == 0.75f);
    CHECK(options_of(both).count("weight") == 0);
  }
}
