// SPDX-License-Identifier: Apache-2.0
#include <initializer_list>

#include <doctest/doctest.h>

#include <segmed/core/annotated_set.hpp>

TEST_SUITE_BEGIN("core/annotated_set");
using namespace segmed;

TEST_CASE("background is always annotated, and no class else at first") {
  const AnnotatedSet set;
  CHECK(set.has(0));
  for (Index c = 1; c < 256; ++c) CHECK_FALSE(set.has(c));
  CHECK(set.none());
  CHECK(set.count() == 0);
  CHECK(set.without(0).has(0));
}

TEST_CASE("classes are added and taken away one by one, in every word") {
  AnnotatedSet set;
  for (const Index c : {1, 63, 64, 127, 128, 191, 192, 254}) {
    const Index before = set.count();
    set = set.with(c);
    CHECK(set.has(c));
    CHECK(set.count() == before + 1);
    CHECK(set.with(c) == set);
  }
  CHECK(set.count() == 8);
  CHECK_FALSE(set.none());
  CHECK_FALSE(set.without(64).has(64));
  CHECK(set.without(64).has(63));
  CHECK(set.without(64).count() == 7);
  CHECK(set.without(65) == set);
}

TEST_CASE("all(n) holds classes 0 to n - 1") {
  CHECK(AnnotatedSet::all(1) == AnnotatedSet{});
  CHECK(AnnotatedSet::all(5).count() == 4);
  CHECK(AnnotatedSet::all(5).has(4));
  CHECK_FALSE(AnnotatedSet::all(5).has(5));
  CHECK(AnnotatedSet::all(255).count() == 254);
  CHECK_THROWS_AS(AnnotatedSet::all(256), DataError);
  CHECK_THROWS_AS(AnnotatedSet{}.with(-1), DataError);
}

TEST_CASE("a voxel is open to background and to the classes that nobody looked for") {
  const AnnotatedSet set = AnnotatedSet{}.with(2).with(200), nothing;
  for (Index c = 0; c < ignored; ++c) {
    CHECK(set.open(c) == (c != 2 && c != 200));
    CHECK(nothing.open(c));
  }
  for (int label = 0; label <= ignored; ++label) {
    CHECK(set.settles(std::uint8_t(label)) == (label == 2 || label == 200 || label == ignored));
    CHECK_FALSE(nothing.settles(std::uint8_t(label)));
  }
}

TEST_SUITE_END();
