// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/data/sampler.hpp>

using namespace segmed;

namespace {
const ClassTable classes = ClassTable::of({"big", "kidney_left", "kidney_right", "missing"});

// A large class, a left and a right one of a few voxels, one without a voxel.
Example scan(const Extent3& extent = {40, 40, 40}) {
  Example example{"case", "case", make_volume<float>(extent), make_volume<std::uint8_t>(extent),
                  classes.all()};
  for (Index z = 0; z < extent[2]; ++z)
    for (Index y = 0; y < extent[1]; ++y)
      for (Index x = 0; x < extent[0]; ++x) {
        example.image.at(x, y, z) = float(x + 100 * y + 10000 * z);
        example.labels.at(x, y, z) = z >= 20 ? 1 : 0;
      }
  if (extent[2] > 5) example.labels.at(3, 4, 5) = example.labels.at(4, 4, 5) = 2;
  if (example.labels.contains(36, 35, 6)) example.labels.at(36, 35, 6) = 3;
  return example;
}
Patch draw(const ReadyCase& ready, const SampleOptions& options, std::uint32_t number,
           const AnnotatedSet& left = classes.all()) {
  return draw_patch(ready, classes, left, options, {1, number, 0});
}
bool holds(const Patch& patch, std::uint8_t label) {
  return std::find(patch.labels.begin(), patch.labels.end(), label) != patch.labels.end();
}
}  // namespace

TEST_SUITE("data/sampler") {
  TEST_CASE("patches aimed at classes find small classes as often as large ones") {
    const ReadyCase ready(scan());
    SampleOptions options{.patch = {8, 8, 8}, .foreground = 1, .augment = Augment::none()};
    std::array<Index, 5> found{};
    for (std::uint32_t i = 0; i < 600; ++i) {
      const Patch patch = draw(ready, options, i);
      bool any = false;
      for (std::uint8_t c = 1; c < 5; ++c)
        if (holds(patch, c)) ++found[c], any = true;
      CHECK(any);
    }
    CHECK(found[4] == 0);
    CHECK(found[2] > 150);
    CHECK(found[3] > 150);
    CHECK(found[1] > 150);
    CHECK(found[1] < 400);
  }
  TEST_CASE("a patch is the scan's own voxels") {
    const ReadyCase ready(scan());
    SampleOptions options{.patch = {6, 7, 8}, .augment = Augment::none()};
    for (std::uint32_t i = 0; i < 50; ++i) {
      const Patch patch = draw(ready, options, i);
      REQUIRE(patch.image.size() == 6 * 7 * 8);
      const Index first = Index(patch.image[0]);
      const Index fx = first % 100, fy = first / 100 % 100, fz = first / 10000;
      for (Index z = 0; z < 8; ++z)
        for (Index y = 0; y < 7; ++y)
          for (Index x = 0; x < 6; ++x) {
            const auto at = std::size_t((z * 7 + y) * 6 + x);
            CHECK(patch.image[at] == ready.example.image.at(fx + x, fy + y, fz + z));
            CHECK(patch.labels[at] == ready.example.labels.at(fx + x, fy + y, fz + z));
          }
    }
  }
  TEST_CASE("the same key gives the same patch, another draw or attempt another one") {
    const ReadyCase ready(scan());
    SampleOptions options{.patch = {8, 8, 8}, .strong_view = true};
    const Patch one = draw(ready, options, 3), again = draw(ready, options, 3);
    CHECK(one.image == again.image);
    CHECK(one.strong == again.strong);
    CHECK(one.labels == again.labels);
    CHECK(one.key == key_of("case"));
    CHECK(draw(ready, options, 4).image != one.image);
    CHECK(draw_patch(ready, classes, classes.all(), options, {1, 3, 1}).image != one.image);
    CHECK(draw_patch(ready, classes, classes.all(), options, {2, 3, 0}).image != one.image);
  }
  TEST_CASE("the strong view shows the same voxels, and asking for it changes nothing else") {
    const ReadyCase ready(scan());
    SampleOptions options{.patch = {8, 8, 8}, .augment = Augment::none()};
    const Patch plain = draw(ready, options, 7);
    CHECK(plain.strong.empty());
    options.strong_view = true;
    const Patch both = draw(ready, options, 7);
    CHECK(both.image == plain.image);
    REQUIRE(both.strong.size() == plain.image.size());
    CHECK(both.strong != both.image);
  }
  TEST_CASE("a flip along x swaps left and right, in labels and in the annotated set") {
    const ReadyCase ready(scan({12, 12, 12}));
    SampleOptions options{.patch = {12, 12, 12}, .augment = Augment::none()};
    options.augment.flip = {1, 0, 0};
    const auto left_only = AnnotatedSet{}.with(2);
    const Patch patch = draw(ready, options, 1, left_only);
    CHECK(patch.annotated == AnnotatedSet{}.with(3));
    const auto at = [&](Index x, Index y, Index z) {
      return patch.labels[std::size_t((z * 12 + y) * 12 + x)];
    };
    CHECK(at(11 - 3, 4, 5) == 3);
    CHECK(at(11 - 4, 4, 5) == 3);
    CHECK_FALSE(holds(patch, 2));
    CHECK_FALSE(holds(patch, 1));  // hidden
  }
  TEST_CASE("a scan smaller than the patch is centered and padded") {
    const ReadyCase ready(scan({6, 40, 5}), {-7.0f});
    SampleOptions options{.patch = {8, 8, 8}, .augment = Augment::none()};
    const Patch patch = draw(ready, options, 2);
    Index padded = 0;
    for (std::size_t i = 0; i < patch.labels.size(); ++i) {
      CHECK((patch.labels[i] == ignored) == (patch.image[i] == -7.0f));
      padded += patch.labels[i] == ignored ? 1 : 0;
    }
    CHECK(padded == 512 - 6 * 8 * 5);
    CHECK(patch.labels[std::size_t((3 * 8 + 3) * 8)] == ignored);      // x = 0
    CHECK(patch.labels[std::size_t((3 * 8 + 3) * 8 + 1)] != ignored);  // x = 1
  }
  TEST_CASE("without labels every voxel is ignored") {
    Example bare = scan();
    bare.labels = {};
    bare.annotated = {};
    const Patch patch = draw(ReadyCase(bare), {.patch = {8, 8, 8}}, 1);
    CHECK(std::all_of(patch.labels.begin(), patch.labels.end(),
                      [](auto label) { return label == ignored; }));
    CHECK(patch.annotated.none());
    const Patch hidden = draw(ReadyCase(scan()), {.patch = {8, 8, 8}}, 1, AnnotatedSet{});
    CHECK(std::all_of(hidden.labels.begin(), hidden.labels.end(),
                      [](auto label) { return label == ignored; }));
  }
  TEST_CASE("at most 4096 places are kept of a class, evenly spread") {
    const ReadyCase ready(scan());
    CHECK(ready.places[1].size() == 4096);
    CHECK(ready.places[2] == std::vector<Index>{(5 * 40 + 4) * 40 + 3, (5 * 40 + 4) * 40 + 4});
    CHECK(ready.places[0].empty());
    for (const Index place : ready.places[1])
      CHECK(ready.example.labels.voxels[std::size_t(place)] == 1);
    // 32000 voxels: every 7th or 8th.
    for (std::size_t i = 1; i < 4096; ++i) {
      CHECK(ready.places[1][i] - ready.places[1][i - 1] >= 7);
      CHECK(ready.places[1][i] - ready.places[1][i - 1] <= 8);
    }
  }
  TEST_CASE("an empty patch is refused") {
    CHECK_THROWS_WITH_AS(draw(ReadyCase(scan()), {.patch = {8, 0, 8}}, 1),
                         "segmed: sample: a patch of 8x0x8 is empty", ConfigError);
  }
}
