// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include <doctest/doctest.h>

#include "policy_trial.hpp"
#include <segmed/semi/mean_teacher.hpp>
#include <segmed/semi/options.hpp>
#include <segmed/semi/self_training.hpp>
#include <segmed/semi/transform_consistency.hpp>
#include <segmed/semi/uncertainty_aware_mean_teacher.hpp>

using namespace trial;

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
  TEST_CASE("policies within a policy are told apart by their place") {
    Both both{MeanTeacher<Net>{{small_net()}}, SelfTraining{}};
    set_options(both, {{"first.weight", 0.25}, {"second.weight", 0.75}});
    CHECK(both.first.weight == 0.25f);
    CHECK(both.second.weight == 0.75f);
    CHECK(options_of(both).count("weight") == 0);
  }
}
