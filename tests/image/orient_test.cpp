// SPDX-License-Identifier: Apache-2.0
#include <numeric>
#include <string>

#include <doctest/doctest.h>

#include <segmed/image/orient.hpp>

using namespace segmed;

namespace {

Volume<int> numbered(Index channels) {
  Geometry geometry;
  geometry.affine << -0.8, 0.3, -0.1, -20, -0.2, 1.1, 0.4, 13, 0.1, -0.3, 2.5, 7, 0, 0, 0, 1;
  auto volume = make_volume<int>({5, 6, 7}, geometry, channels);
  std::iota(volume.voxels.begin(), volume.voxels.end(), 0);
  return volume;
}

}  // namespace

TEST_SUITE("image/orient") {
  TEST_CASE("every voxel keeps its value and its place in the patient") {
    for (const Index channels : {1, 3}) {
      const auto volume = numbered(channels);
      for (const std::string code : {"RAS", "LPS", "SAR", "PIR", "ILA", "ASL"}) {
        const auto there = reorient(volume, code);
        CHECK(there.geometry.orientation() == code);
        double farthest = 0;
        for (Index z = 0; z < there.extent[2]; ++z)
          for (Index y = 0; y < there.extent[1]; ++y)
            for (Index x = 0; x < there.extent[0]; ++x)
              for (Index c = 0; c < channels; ++c) {
                const Index old = there.at(x, y, z, c);
                CHECK(old % channels == c);
                const Index i = old / channels;
                const auto was =
                    volume.geometry.to_world(double(i % 5), double(i / 5 % 6), double(i / 30));
                const auto is = there.geometry.to_world(double(x), double(y), double(z));
                farthest = std::max(farthest, (was - is).norm());
              }
        CHECK(farthest < 1e-12);
      }
    }
  }
  TEST_CASE("there and back is the same bits") {
    const auto volume = numbered(2);
    const auto back = reorient(reorient(volume, "SPR"), volume.geometry.orientation());
    CHECK(back.voxels == volume.voxels);
    CHECK(back.extent == volume.extent);
    CHECK(back.geometry.same_grid(volume.geometry, 1e-12));
  }
  TEST_CASE("an empty volume is refused") {
    CHECK_THROWS_AS(reorient(Volume<float>{}, "RAS"), ShapeError);
  }
}
