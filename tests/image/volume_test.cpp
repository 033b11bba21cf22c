// SPDX-License-Identifier: Apache-2.0
#include <numeric>

#include <doctest/doctest.h>

#include <segmed/image/volume.hpp>

using namespace segmed;

TEST_SUITE("image/volume") {
  TEST_CASE("x runs fastest behind the channels") {
    auto volume = make_volume<float>({3, 4, 5}, {}, 2);
    std::iota(volume.voxels.begin(), volume.voxels.end(), 0.0f);
    CHECK(volume.size() == 120);
    CHECK(volume.at(0, 0, 0, 1) == 1);
    CHECK(volume.at(1, 0, 0) == 2);
    CHECK(volume.at(0, 1, 0) == 6);
    CHECK(volume.at(0, 0, 1) == 24);
    CHECK(volume.at(2, 3, 4, 1) == 119);
  }
  TEST_CASE("extents that cannot be held are refused with their numbers") {
    CHECK_THROWS_WITH_AS(make_volume<float>({0, 4, 4}),
                         "segmed: volume: extent 0x4x4 with 1 channels cannot be held", ShapeError);
    const Index large = Index(1) << 31;
    CHECK_THROWS_AS(make_volume<float>({large, large, large}), ShapeError);
  }
  TEST_CASE("a volume that is not filled is refused") {
    Volume<float> volume;
    volume.extent = {2, 2, 2};
    CHECK_THROWS_WITH_AS(check_filled(volume, "test"),
                         "segmed: test: volume of 2x2x2 with 1 channels holds 0 values",
                         ShapeError);
  }
  TEST_CASE("a cropped box keeps values and places and fills the outside") {
    auto volume = make_volume<short>({4, 4, 4}, Geometry::of_spacing(2, 2, 2), 2);
    std::iota(volume.voxels.begin(), volume.voxels.end(), short{0});
    const auto box = cropped(volume, {-1, 2, 3}, {6, 3, 2}, short{-7});
    int outside = 0;
    for (Index z = 0; z < 2; ++z)
      for (Index y = 0; y < 3; ++y)
        for (Index x = 0; x < 6; ++x)
          for (Index c = 0; c < 2; ++c) {
            const bool in = volume.contains(x - 1, y + 2, z + 3);
            outside += !in;
            CHECK(box.at(x, y, z, c) == (in ? volume.at(x - 1, y + 2, z + 3, c) : -7));
          }
    CHECK(outside == 2 * (36 - 8));
    CHECK(box.geometry.to_world(1, 0, 0) == volume.geometry.to_world(0, 2, 3));
  }
  TEST_CASE("grids are the same when corners agree within the tolerance") {
    const auto a = make_volume<float>({10, 10, 10});
    auto b = converted<unsigned char>(a);
    CHECK(same_grid(a, b));
    b.geometry.affine(0, 0) = 1.0003;
    CHECK_FALSE(same_grid(a, b));
    CHECK(same_grid(a, b, 0.01));
    CHECK_FALSE(same_grid(a, make_volume<float>({10, 10, 9})));
  }
}
