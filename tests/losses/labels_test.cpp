// SPDX-License-Identifier: Apache-2.0
#include "reference.hpp"
#include <segmed/losses/labels.hpp>

using namespace check;

TEST_SUITE("losses/labels") {
  TEST_CASE("labels keep their annotated sets, on the device as well") {
    const Grid grid{2, 1, 1, 2, 3};
    const auto labels = labels_of<Cpu>(grid, {0, 1, 2, 255}, Index(3));
    CHECK(labels.grid == grid.with_channels(1));
    CHECK(labels.annotated == std::vector<AnnotatedSet>(2, AnnotatedSet::all(3)));
    CHECK(labels.sets().host() == labels.annotated);
    const Labels<Cpu> bare{labels.grid, labels.classes, {AnnotatedSet{}, AnnotatedSet{}.with(2)}};
    CHECK(bare.sets().host() == bare.annotated);
    CHECK(Labels<Cpu>{}.empty());
  }
  TEST_CASE("counts that do not fit are named") {
    CHECK_THROWS_WITH_AS(labels_of<Cpu>({1, 1, 2, 2, 1}, {0, 1}, Index(2)),
                         "segmed: labels: grid (1, 1, 2, 2, 1) needs 4 labels, not 2", ShapeError);
    CHECK_THROWS_WITH_AS(labels_of<Cpu>({2, 1, 1, 1, 1}, {0, 1}, {AnnotatedSet{}}),
                         "segmed: labels: 2 cases need as many annotated sets, not 1", ShapeError);
  }
  TEST_CASE("thinned out labels are every other voxel, never a mixture") {
    const auto labels = labels_of<Cpu>({2, 1, 2, 4, 1},
                                       {0, 1, 2, 3,  //
                                        4, 5, 6, 7,  //
                                        8, 9, 10, 11, 12, 13, 14, 255},
                                       Index(20));
    const auto half = subsampled(labels, {2, 1, 1, 2, 9});
    CHECK(half.grid == Grid{2, 1, 1, 2, 1});
    CHECK(half.classes.host() == std::vector<std::uint8_t>{0, 2, 8, 10});
    CHECK(half.annotated == labels.annotated);
    CHECK(subsampled(labels, labels.grid).classes.read() == labels.classes.read());
    const auto odd = subsampled(labels, {2, 1, 2, 3, 1});
    CHECK(odd.classes.host() == std::vector<std::uint8_t>{0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14});
  }
}
