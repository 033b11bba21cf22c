// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/data/phantom.hpp>
#include <segmed/data/plan.hpp>

using namespace segmed;

namespace {
Example scan(const Extent3& extent, double x, double y, double z, float shift = 0) {
  Example example{"s", "s", make_volume<float>(extent, Geometry::of_spacing(x, y, z)), {}, {}};
  for (std::size_t i = 0; i < example.image.voxels.size(); ++i)
    example.image.voxels[i] = shift + float(i % 17);
  return example;
}
}  // namespace

TEST_SUITE("data/plan") {
  TEST_CASE("small MR volumes get nearly whole patches and their own intensities") {
    Survey survey;
    for (const Extent3& extent : {Extent3{35, 51, 35}, Extent3{34, 50, 36}, Extent3{36, 48, 34}})
      survey.add(scan(extent, 1, 1, 1));
    const Plan plan = survey.plan();
    CHECK(plan.preparation.spacing_mm == std::array<double, 3>{1, 1, 1});
    CHECK(plan.preparation.normalization.kind == Normalization::Kind::z_score);
    CHECK(plan.widths == std::vector<Index>{8, 16, 32, 64});
    CHECK(plan.patch == Extent3{32, 48, 32});
    CHECK(plan.median_extent == Extent3{35, 50, 35});
    CHECK(plan.batch == 2);
    CHECK(plan.text() ==
          "spacing 1 x 1 x 1 mm, normalization z_score, patch 32 x 48 x 32, batch 2, widths 8 16 "
          "32 64");
  }
  TEST_CASE("CT is known by its air and gets the foreground's percentiles") {
    phantom::AbdomenOptions options{.extent = {48, 48, 48}, .spacing_mm = 8};
    options.partial_views = false;
    Survey survey;
    for (Index i = 0; i < 3; ++i) survey.add(phantom::abdomen_case(options, i));
    const Plan plan = survey.plan();
    CHECK(plan.preparation.normalization.kind == Normalization::Kind::percentile);
    CHECK(plan.preparation.spacing_mm == std::array<double, 3>{8, 8, 8});
    CHECK(plan.preparation.normalization.ranges.front().high < 600);
    const Plan narrow = survey.plan({.patch_voxels = 32768});
    CHECK(narrow.patch == Extent3{32, 32, 32});
  }
  TEST_CASE("an axis that is much coarser keeps more of its best resolution") {
    Survey survey;
    for (const double z : {3.0, 5.0, 5.0, 5.0, 6.0}) survey.add(scan({64, 64, 20}, 0.8, 0.8, z));
    const Plan plan = survey.plan();
    CHECK(plan.preparation.spacing_mm[0] == doctest::Approx(0.8));
    CHECK(plan.preparation.spacing_mm[2] == doctest::Approx(3.8));  // the tenth percentile
  }
  TEST_CASE("extents are counted along R, A, S") {
    Example example = scan({20, 30, 40}, 1, 1, 1);
    Affine turned = Affine::Zero();
    turned(2, 0) = 1, turned(0, 1) = -2, turned(1, 2) = 3, turned(3, 3) = 1;
    example.image.geometry.affine = turned;  // x runs up, y to the left, z to the front
    Survey survey;
    survey.add(example);
    const Plan plan = survey.plan();
    CHECK(plan.median_extent == Extent3{30, 40, 20});
    CHECK(plan.preparation.spacing_mm == std::array<double, 3>{2, 3, 1});
  }
  TEST_CASE("patches of one slice, asked for or found, make a 2-D plan") {
    Survey volumes, slices;
    volumes.add(scan({40, 48, 30}, 1, 1, 1));
    const Plan asked = volumes.plan({.patch = {32, 32, 1}});
    CHECK(asked.patch == Extent3{32, 32, 1});
    CHECK(asked.widths == std::vector<Index>{8, 16, 32, 64});
    CHECK(asked.batch == 16);
    slices.add(scan({80, 64, 1}, 1, 1, 1));
    CHECK(slices.plan().patch == Extent3{80, 64, 1});
  }
  TEST_CASE("what the user asks for stands") {
    Survey survey;
    survey.add(scan({40, 40, 40}, 1, 1, 1));
    const Plan plan = survey.plan({.spacing_mm = {2, 0, 0},
                                   .patch = {0, 24, 0},
                                   .batch = 7,
                                   .widths = {8, 16, 24},
                                   .normalization = {Normalization::window(0, 10)}});
    CHECK(plan.preparation.spacing_mm == std::array<double, 3>{2, 1, 1});
    CHECK(plan.patch == Extent3{20, 24, 40});
    CHECK(plan.batch == 7);
    CHECK(plan.widths.size() == 3);
    CHECK(plan.preparation.normalization.kind == Normalization::Kind::window);
    CHECK_THROWS_WITH_AS(survey.plan({.patch = {30, 32, 32}, .widths = {8, 16, 32, 64}}),
                         "segmed: plan: a patch of 30x32x32 with 4 levels; each extent must be a "
                         "multiple of 8",
                         ConfigError);
    CHECK_THROWS_WITH_AS(Survey().plan(), "segmed: plan: no training case to look at", DataError);
    CHECK_THROWS_WITH_AS(survey.add({"two", "two", make_volume<float>({4, 4, 4}, {}, 2), {}, {}}),
                         "segmed: plan: case two has 2 channels, the cases before it 1", DataError);
  }
  TEST_CASE("a plan survives JSON") {
    Survey survey;
    survey.add(scan({40, 44, 48}, 0.7, 0.8, 1.3, -1000));
    const Plan plan = survey.plan();
    CHECK(plan_of(parse_json(to_json(plan).dump(2))) == plan);
    Json broken = to_json(plan);
    broken["patch"] = Json::Array{1, 2};
    CHECK_THROWS_WITH_AS(plan_of(broken), "segmed: plan: patch has 2 numbers; it needs 3",
                         DataError);
  }
}
