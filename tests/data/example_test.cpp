// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/data/example.hpp>

using namespace segmed;

TEST_SUITE("data/example") {
  TEST_CASE("left and right classes are partners by name") {
    const auto table = ClassTable::of({"liver", "kidney_left", "rib_right_1", "kidney_right",
                                       "rib_left_1", "lobe_left", "leftover"});
    CHECK(table.size() == 8);
    CHECK(table.names[0] == "background");
    CHECK(table.mirror == std::vector<std::uint8_t>{0, 1, 4, 5, 2, 3, 6, 7});
    CHECK(table.find("rib_left_1") == 5);
    CHECK(table.find("spleen") == -1);
    const auto set = AnnotatedSet{}.with(1).with(2);
    CHECK(table.mirrored(set) == AnnotatedSet{}.with(1).with(4));
    CHECK(mirrored_name("kidney_left") == "kidney_right");
    CHECK(mirrored_name("upright") == "upright");
  }
  TEST_CASE("a class table refuses names that cannot be told apart") {
    CHECK_THROWS_WITH_AS(ClassTable::of({"liver", "liver"}),
                         "segmed: classes: class liver stands twice", ConfigError);
    CHECK_THROWS_WITH_AS(ClassTable::of({"liver", ""}), "segmed: classes: a class has no name",
                         ConfigError);
    CHECK_THROWS_WITH_AS(ClassTable::of(std::vector<std::string>(255, "x")),
                         "segmed: classes: 255 classes are more than the 254 that a label can hold",
                         ConfigError);
  }
  TEST_CASE("a case's part follows from what is annotated in it") {
    MemoryCohort cohort;
    cohort.classes = ClassTable::of({"a", "b"});
    for (const auto& set : {cohort.classes.all(), AnnotatedSet{}.with(2), AnnotatedSet{}}) {
      Example example{"c", "p", make_volume<float>({2, 2, 2}), {}, set};
      if (!set.none()) example.labels = make_volume<std::uint8_t>({2, 2, 2});
      cohort.add(example);
    }
    cohort.add({"t", "p", {}, {}, {}}, Part::test);
    CHECK(cohort.info(0).part == Part::full);
    CHECK(cohort.info(1).part == Part::partial);
    CHECK(cohort.info(2).part == Part::unlabelled);
    CHECK_FALSE(cohort.info(2).has_labels);
    CHECK(cases_in(cohort, Part::test) == std::vector<Index>{3});
    CHECK(name_of(Part::validation) == std::string("validation"));
    CHECK_THROWS_WITH_AS(cohort.load(4), "segmed: cohort: case 4 of 4", DataError);
  }
}
