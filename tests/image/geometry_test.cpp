// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/image/geometry.hpp>

using namespace segmed;

namespace {

Geometry oblique() {
  Geometry made;
  made.affine << 0.8, 0.3, -0.1, -20, -0.2, 1.1, 0.4, 13, 0.1, -0.3, 2.5, 7, 0, 0, 0, 1;
  return made;
}

std::vector<std::string> all_codes() {
  std::vector<std::string> codes;
  std::string order = "012";
  do {
    for (int flips = 0; flips < 8; ++flips) {
      std::string code;
      for (std::size_t k = 0; k < 3; ++k)
        code += ((flips >> k) & 1 ? "LPI" : "RAS")[std::size_t(order[k] - '0')];
      codes.push_back(code);
    }
  } while (std::next_permutation(order.begin(), order.end()));
  return codes;
}

}  // namespace

TEST_SUITE("image/geometry") {
  TEST_CASE("a spacing makes axis-aligned voxels in RAS") {
    const Geometry geometry = Geometry::of_spacing(1, 2, 3);
    CHECK(geometry.orientation() == "RAS");
    CHECK(geometry.spacing()[2] == 3);
    CHECK(geometry.voxel_volume() == doctest::Approx(6));
    CHECK(geometry.to_world(1, 1, 1)[1] == 2);
    CHECK_FALSE(geometry.is_sheared());
  }
  TEST_CASE("world and voxel positions are inverse to each other, sheared or not") {
    const Geometry geometry = oblique();
    CHECK(geometry.is_sheared());
    CHECK(geometry.is_valid());
    const auto back = geometry.to_voxel(geometry.to_world(3.25, -4, 17));
    CHECK(back[0] == doctest::Approx(3.25));
    CHECK(back[1] == doctest::Approx(-4));
    CHECK(back[2] == doctest::Approx(17));
  }
  TEST_CASE("each of the 48 orientations is reached and read back") {
    const Extent3 extent{5, 6, 7};
    const auto codes = all_codes();
    CHECK(codes.size() == 48);
    for (const Geometry& start : {Geometry::of_spacing(1, 2, 3), oblique()})
      for (const std::string& code : codes) {
        const AxisMap map = start.turn_to(code);
        const Geometry there = start.turned(map, extent);
        CHECK(there.orientation() == code);
        const Extent3 moved = map.extent(extent);
        const Geometry back = there.turned(map.inverse(), moved);
        CHECK(back.same_grid(start, 1e-9));
        CHECK(map.inverse().then(map).is_identity());
        CHECK(map.then(map.inverse()).is_identity());
        CHECK(there.turn_to(start.orientation()) == map.inverse());
      }
  }
  TEST_CASE("turns compose") {
    const Geometry start = oblique();
    const Extent3 extent{5, 6, 7};
    const AxisMap first = start.turn_to("PSR");
    const Geometry middle = start.turned(first, extent);
    const AxisMap second = middle.turn_to("ILA");
    CHECK(start.turn_to("ILA") == first.then(second));
    CHECK(start.turned(first.then(second), extent)
              .same_grid(middle.turned(second, first.extent(extent)), 1e-9));
  }
  TEST_CASE("a wrong orientation code is refused by name") {
    for (const char* wrong : {"", "RA", "RAX", "RLS", "RASS", "AAS"})
      CHECK_THROWS_AS(axes_of_code(wrong), ConfigError);
    CHECK_THROWS_WITH(axes_of_code("RRS"),
                      "segmed: orient: \"RRS\" is no orientation; use one letter each of R/L, A/P "
                      "and S/I, as in RAS");
    CHECK(axes_of_code("ras").is_identity());
  }
  TEST_CASE("scaled voxels keep the outer corner, cropped boxes their places") {
    const Geometry start = oblique();
    const Geometry coarse = start.scaled({2, 3, 0.5});
    const auto before = start.to_world(-0.5, -0.5, -0.5);
    const auto after = coarse.to_world(-0.5, -0.5, -0.5);
    CHECK((before - after).norm() < 1e-12);
    CHECK(coarse.spacing()[1] == doctest::Approx(3 * start.spacing()[1]));
    CHECK((start.cropped({1, -2, 3}).to_world(4, 4, 4) - start.to_world(5, 2, 7)).norm() < 1e-12);
  }
  TEST_CASE("the distance of two grids is that of their farthest corner") {
    Geometry other = Geometry::of_spacing(1, 1, 1.1);
    CHECK(Geometry{}.distance(other, {10, 10, 11}) == doctest::Approx(1.0));
    CHECK(Geometry{}.same_grid(other, 0.2));
    CHECK_FALSE(Geometry{}.same_grid(other));
  }
  TEST_CASE("affines without an inverse or with NaN are not valid") {
    Geometry flat = Geometry::of_spacing(1, 1, 0);
    CHECK_FALSE(flat.is_valid());
    flat.affine(2, 2) = std::nan("");
    CHECK_FALSE(flat.is_valid());
    Geometry doubled;
    doubled.affine(0, 1) = 1, doubled.affine(1, 1) = 0;
    CHECK_FALSE(doubled.is_valid());
  }
  TEST_CASE("LPS turns the first two world axes") {
    const Affine lps = oblique().to_lps();
    CHECK(lps(0, 3) == 20);
    CHECK(lps(1, 3) == -13);
    CHECK(lps(2, 3) == 7);
  }
  TEST_CASE("the layout does not depend on the instruction set") {
    CHECK(alignof(Geometry) == alignof(double));
    CHECK(sizeof(Geometry) == 16 * sizeof(double));
  }
}
