// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <fstream>
#include <set>
#include <string>

#include <doctest/doctest.h>

#include <segmed/data/hide.hpp>

using namespace segmed;

namespace {
const ClassTable five = ClassTable::of({"a", "b", "c", "d", "e"});
}

TEST_SUITE("data/hide") {
  TEST_CASE("classes:K hides K classes of every case, not the same ones in all") {
    const Hide hide = Hide::parse("classes:2", five);
    std::set<std::uint64_t> kinds;
    for (int i = 0; i < 60; ++i) {
      const std::string id = "case" + std::to_string(i);
      const AnnotatedSet left = hide.left_of(five.all(), id, 5);
      CHECK(left.count() == 3);
      CHECK(left == hide.left_of(five.all(), id, 5));
      kinds.insert(left.words[0]);
    }
    CHECK(kinds.size() == 10);  // all pairs of five
    CHECK(hide.left_of(AnnotatedSet{}.with(3), "x", 5).none());
    CHECK(hide.left_of(five.all(), "case1", 5) ==
          Hide::parse("classes:2", five).left_of(five.all(), "case1", 5));
  }
  TEST_CASE("more hidden classes are a superset of fewer") {
    const Hide one = Hide::parse("classes:1", five), three = Hide::parse("classes:3", five);
    for (int i = 0; i < 20; ++i) {
      const auto id = std::to_string(i);
      const AnnotatedSet less = three.left_of(five.all(), id, 1),
                         more = one.left_of(five.all(), id, 1);
      for (Index c = 1; c <= 5; ++c) CHECK((!less.has(c) || more.has(c)));
    }
  }
  TEST_CASE("probability:P hides about that part of the classes") {
    const Hide hide = Hide::parse("probability:0.3", five);
    Index left = 0;
    for (int i = 0; i < 1000; ++i) left += hide.left_of(five.all(), std::to_string(i), 9).count();
    CHECK(left > 3350);
    CHECK(left < 3650);
    CHECK(Hide::parse("probability:1", five).left_of(five.all(), "x", 1).none());
    CHECK(Hide::parse("probability:0", five).left_of(five.all(), "x", 1) == five.all());
  }
  TEST_CASE("keep:K leaves K classes, fraction:P hides that part, cases:P whole cases") {
    const Hide keep = Hide::parse("keep:1", five), part = Hide::parse("fraction:0.4", five),
               cases = Hide::parse("cases:0.25", five);
    Index whole = 0, empty = 0;
    for (int i = 0; i < 1000; ++i) {
      const std::string id = std::to_string(i);
      CHECK(keep.left_of(five.all(), id, 3).count() == 1);
      CHECK(part.left_of(five.all(), id, 3).count() == 3);
      whole += cases.left_of(five.all(), id, 3) == five.all();
      empty += cases.left_of(five.all(), id, 3).none();
    }
    CHECK(whole + empty == 1000);
    CHECK(empty > 200);
    CHECK(empty < 300);
    CHECK(Hide::parse("keep:7", ClassTable::of({"a", "b", "c", "d", "e", "f", "g"}))
              .left_of(five.all(), "x", 1) == five.all());
  }
  TEST_CASE("named:A+B hides those classes in every case") {
    const Hide hide = Hide::parse("named:b+e", five);
    CHECK(hide.left_of(five.all(), "x", 1) == five.all().without(2).without(5));
    CHECK_THROWS_WITH_AS(Hide::parse("named:b+q", five),
                         doctest::Contains("names no class \"q\"; there are"), ConfigError);
    CHECK_THROWS_AS(Hide::parse("named:", five), ConfigError);
  }
  TEST_CASE("everything leaves nothing, nothing leaves everything") {
    CHECK(Hide::parse("everything", five).left_of(five.all(), "x", 1).none());
    CHECK(Hide::parse("nothing", five).left_of(five.all(), "x", 1) == five.all());
  }
  TEST_CASE("centres:FILE gives each case to a center with its own classes") {
    const std::string path = "/tmp/segmed_hide_test.txt";
    std::ofstream(path) << "# centers\nnorth: a, b\nsouth: c d e\n\nwest: all\neast: none\n";
    const Hide hide = Hide::parse("centres:" + path, five);
    REQUIRE(hide.centers.size() == 4);
    const AnnotatedSet north = AnnotatedSet{}.with(1).with(2);
    CHECK(hide.centers[0].annotated == north);
    std::set<std::uint64_t> kinds;
    for (int i = 0; i < 60; ++i)
      kinds.insert(hide.left_of(five.all(), std::to_string(i), 1).words[0]);
    CHECK(kinds.size() == 4);
    CHECK(kinds.count(north.words[0]) == 1);

    std::ofstream(path) << "north: a, x\n";
    CHECK_THROWS_WITH_AS(Hide::parse("centers:" + path, five),
                         doctest::Contains("line 1: class x is not in the class table"), DataError);
    std::ofstream(path) << "\nnorth a\n";
    CHECK_THROWS_WITH_AS(Hide::parse("centers:" + path, five),
                         doctest::Contains("line 2: has no name with a colon"), DataError);
    std::ofstream(path) << "n: a\nn: b\n";
    CHECK_THROWS_WITH_AS(Hide::parse("centers:" + path, five), doctest::Contains("n stands twice"),
                         DataError);
    std::remove(path.c_str());
    CHECK_THROWS_AS(Hide::parse("centers:" + path, five), FileError);
  }
  TEST_CASE("text that says something else is refused") {
    CHECK_THROWS_WITH_AS(Hide::parse("classes:6", five),
                         "segmed: hide: \"classes:6\" needs a number from 0 to 5 after the colon",
                         ConfigError);
    CHECK_THROWS_AS(Hide::parse("classes:1.5", five), ConfigError);
    CHECK_THROWS_AS(Hide::parse("classes:", five), ConfigError);
    CHECK_THROWS_AS(Hide::parse("probability:2", five), ConfigError);
    CHECK_THROWS_AS(Hide::parse("probability:0.5x", five), ConfigError);
    CHECK_THROWS_AS(Hide::parse("everything:1", five), ConfigError);
    CHECK_THROWS_WITH_AS(Hide::parse("some", five),
                         "segmed: hide: \"some\" is none of nothing, classes:K, keep:K, "
                         "fraction:P, probability:P, named:CLASS+CLASS, cases:P, centres:FILE, "
                         "everything",
                         ConfigError);
  }
  TEST_CASE("hidden classes become background and leave the annotated set") {
    Example example{"x", "x", make_volume<float>({3, 1, 2}), make_volume<std::uint8_t>({3, 1, 2}),
                    five.all()};
    example.labels.voxels = {0, 1, 2, 3, 255, 5};
    hide_labels(example, AnnotatedSet{}.with(1).with(5));
    CHECK(example.labels.voxels == std::vector<std::uint8_t>{0, 1, 0, 0, 255, 5});
    CHECK(example.annotated == AnnotatedSet{}.with(1).with(5));
    hide_labels(example, AnnotatedSet{}.with(2));
    CHECK(example.annotated.none());
    CHECK(example.labels.empty());
  }
}
