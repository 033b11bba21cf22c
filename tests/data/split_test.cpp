// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <string>

#include <doctest/doctest.h>

#include <segmed/data/split.hpp>

using namespace segmed;

namespace {
// 40 cases of 25 patients: every third patient has several scans; some cases are unlabelled,
// partial, or in a test split.
std::vector<CaseInfo> cases() {
  std::vector<CaseInfo> all;
  for (int i = 0; i < 40; ++i) {
    CaseInfo info;
    info.id = "case" + std::to_string(100 + i);
    info.patient = "p" + std::to_string(i < 25 ? i : (i - 25) * 3 % 25);
    info.annotated = AnnotatedSet::all(3);
    info.has_labels = true;
    info.part = Part::full;
    if (i == 4) info.annotated = {}, info.has_labels = false, info.part = Part::unlabelled;
    if (i == 5) info.annotated = AnnotatedSet{}.with(2), info.part = Part::partial;
    if (i == 6 || i == 7) info.part = Part::test;
    all.push_back(info);
  }
  return all;
}
std::map<std::string, std::string> patients() {
  std::map<std::string, std::string> of;
  for (const CaseInfo& info : cases()) of[info.id] = info.patient;
  return of;
}
}  // namespace

TEST_SUITE("data/split") {
  TEST_CASE("an inner split evaluates on whole patients of D_0 and puts D_val aside") {
    const auto all = cases();
    const auto of = patients();
    for (std::uint64_t seed = 1; seed <= 50; ++seed) {
      const Split outer = draw_split(all, 3, draw_validation(all, 3, 6, seed), 10, 8, seed);
      const Split inner = inner_split(outer, all, 3, 7);
      CHECK_NOTHROW(check_split(inner, all));  // disjoint by patient, D_val included
      CHECK(inner == inner_split(outer, all, 3, 7));
      CHECK(inner.validation.size() >= 3);
      CHECK(inner.validation.size() + inner.full.size() == outer.full.size());
      CHECK(inner.partial == outer.partial);
      for (const std::string& id : inner.validation)
        CHECK(std::count(outer.full.begin(), outer.full.end(), id) == 1);
      for (const std::string& id : outer.validation) {
        CHECK(std::count(inner.validation.begin(), inner.validation.end(), id) == 0);
        CHECK(std::count(inner.test.begin(), inner.test.end(), id) == 1);
      }
      Split other = outer;  // D_1 has no say in it
      other.partial.clear();
      CHECK(inner_split(other, all, 3, 7).validation == inner.validation);
    }
    const Split outer = draw_split(all, 3, {}, 4, 0, 1);
    for (const Index count : {0, 4, 5})
      CHECK_THROWS_WITH_AS(inner_split(outer, all, count, 1),
                           doctest::Contains("of the 4 cases of D_0"), DataError);
  }
  TEST_CASE("a case that does not annotate every class is told with its numbers") {
    const ClassTable classes = ClassTable::of({"liver", "spleen"});
    CHECK_NOTHROW(check_whole("D_0", "a", AnnotatedSet::all(255), classes));
    CHECK_THROWS_WITH_AS(check_whole("D_val", "b", AnnotatedSet{}.with(2).with(9), classes),
                         "segmed: D_val: case b annotates 1 of the 2 classes, and every one is "
                         "needed here; put it into D_1, or take only the classes that it annotates",
                         DataError);
  }
  TEST_CASE("parts are disjoint by patient for any seed and leave the test split alone") {
    const auto all = cases();
    for (std::uint64_t seed = 1; seed <= 50; ++seed) {
      const auto validation = draw_validation(all, 3, 8, seed);
      const Split split = draw_split(all, 3, validation, 6, 10, seed + 100);
      CHECK(split.full.size() == 6);
      CHECK(split.partial.size() == 10);
      CHECK(split.validation.size() == 8);
      CHECK(split.test == std::vector<std::string>{"case106", "case107"});
      CHECK_NOTHROW(check_split(split, all));
      for (const auto* ids : {&split.full, &split.validation})
        for (const std::string& id : *ids) {
          CHECK(id != "case104");  // unlabelled
          CHECK(id != "case105");  // partial
        }
      // Other scans of the test patients are not used either.
      const auto of = patients();
      for (const auto* ids : {&split.full, &split.partial, &split.validation})
        for (const std::string& id : *ids) {
          CHECK(of.at(id) != "p6");
          CHECK(of.at(id) != "p7");
        }
    }
  }
  TEST_CASE("a split depends on the seed and not on the order of the files") {
    auto all = cases();
    const auto validation = draw_validation(all, 3, 8, 1);
    const Split one = draw_split(all, 3, validation, 6, 10, 7);
    std::reverse(all.begin(), all.end());
    CHECK(draw_validation(all, 3, 8, 1) == validation);
    Split again = draw_split(all, 3, validation, 6, 10, 7);
    std::sort(again.test.begin(), again.test.end());
    CHECK(again == one);
    CHECK(draw_split(all, 3, validation, 6, 10, 8).full != one.full);
  }
  TEST_CASE("a smaller D_1 is the beginning of a larger one, beside the same D_0") {
    const auto all = cases();
    const auto validation = draw_validation(all, 3, 5, 1);
    const Split small = draw_split(all, 3, validation, 6, 4, 3);
    const Split large = draw_split(all, 3, validation, 6, 12, 3);
    const Split none = draw_split(all, 3, validation, 6, 0, 3);
    CHECK(small.full == large.full);
    CHECK(none.full == large.full);
    CHECK(none.partial.empty());
    CHECK(std::equal(small.partial.begin(), small.partial.end(), large.partial.begin()));
  }
  TEST_CASE("cases that are declared for validation are drawn first and never trained on") {
    auto all = cases();
    all[1].part = all[2].part = Part::validation;
    const auto validation = draw_validation(all, 3, 2, 9);
    CHECK(validation == std::vector<std::string>{"case101", "case102"});
    const Split split = draw_split(all, 3, draw_validation(all, 3, 1, 9), -1, -1, 1);
    for (const auto* ids : {&split.full, &split.partial})
      for (const std::string& id : *ids) CHECK((id != "case101" && id != "case102"));
  }
  TEST_CASE("too few cases are said with their number") {
    const auto all = cases();
    CHECK_THROWS_WITH_AS(draw_validation(all, 3, 41, 1),
                         doctest::Contains("D_val shall have 41 cases, but only "), DataError);
    CHECK_THROWS_WITH_AS(draw_split(all, 3, {}, 39, 0, 1),
                         doctest::Contains("D_0 shall have 39 cases, but only "), DataError);
    CHECK_THROWS_WITH_AS(draw_split(all, 3, {}, 5, 39, 1),
                         doctest::Contains("D_1 shall have 39 cases, but only "), DataError);
  }
  TEST_CASE("folds hold every labelled case once, whole patients each") {
    const auto all = cases();
    const auto of = patients();
    const auto folds = k_fold(all, 5, 2);
    REQUIRE(folds.size() == 5);
    std::multiset<std::string> seen;
    for (const Fold& fold : folds) {
      std::set<std::string> train;
      for (const std::string& id : fold.train) train.insert(of.at(id));
      for (const std::string& id : fold.validation) {
        CHECK(train.count(of.at(id)) == 0);
        seen.insert(id);
      }
      CHECK(fold.validation.size() >= 4);
      CHECK(fold.train.size() + fold.validation.size() ==
            folds[0].train.size() + folds[0].validation.size());
    }
    for (const std::string& id : seen) CHECK(seen.count(id) == 1);
    CHECK(k_fold(all, 5, 2) == folds);
    CHECK_FALSE(k_fold(all, 5, 3) == folds);
    CHECK_THROWS_WITH_AS(k_fold(all, 1, 1), doctest::Contains("k_fold: 1 folds of "), ConfigError);
    CHECK(folds_of(to_json(folds)) == folds);
  }
  TEST_CASE("a saved split comes back, and one that cannot be is refused") {
    const auto all = cases();
    const Split split = draw_split(all, 3, draw_validation(all, 3, 8, 1), 6, 10, 7);
    const std::string path = "/tmp/segmed_split_test.json";
    write_json(path, to_json(split));
    CHECK(split_of(read_json(path)) == split);
    std::remove(path.c_str());
    CHECK_THROWS_WITH_AS(read_json(path),
                         doctest::Contains("segmed_split_test.json: cannot be read"), FileError);

    Split wrong = split;
    wrong.full.push_back(wrong.validation.front());
    CHECK_THROWS_WITH_AS(check_split(wrong, all),
                         doctest::Contains("stands twice, in D_0 and in D_val"), DataError);
    wrong = split;
    wrong.partial.push_back("case106");
    CHECK_THROWS_WITH_AS(
        check_split(wrong, all),
        "segmed: split: case case106 of D_1 is in the test split that the data set "
        "declares",
        DataError);
    wrong = {};
    wrong.full = {"case103"}, wrong.validation = {"case126"};  // both of patient p3
    CHECK_THROWS_WITH_AS(
        check_split(wrong, all),
        "segmed: split: patient p3 is in D_0 and in D_val (case case126); keep all cases "
        "of a patient in one of them",
        DataError);
    wrong.full = {"nobody"};
    CHECK_THROWS_WITH_AS(check_split(wrong, all),
                         "segmed: split: case nobody of D_0 is not in the data set", DataError);
  }
}
