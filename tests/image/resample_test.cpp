// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include <doctest/doctest.h>

#include "files.hpp"
#include <segmed/core/random.hpp>
#include <segmed/image/orient.hpp>
#include <segmed/image/resample.hpp>

using namespace segmed;
using namespace segmed_test;

namespace {

Geometry oblique() {
  Geometry made;
  made.affine << 0.9, 0.3, -0.1, -3, -0.2, 1.1, 0.2, 2, 0.1, -0.3, 1.5, 1, 0, 0, 0, 1;
  return made;
}

Volume<double> noise(Extent3 extent, Index channels = 1) {
  auto volume = make_volume<double>(extent, oblique(), channels);
  std::uint64_t state = 1;
  for (double& value : volume.voxels) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = double(state >> 40) / double(1 << 24);
  }
  return volume;
}

std::string numbers(const Affine& affine) {
  std::string text;
  for (int r = 0; r < 4; ++r)
    for (int c = 0; c < 4; ++c) {
      char number[40];
      std::snprintf(number, sizeof number, "%.17g,", affine(r, c));
      text += number;
    }
  return text;
}

}  // namespace

TEST_SUITE("image/resample") {
  TEST_CASE("the same grid gives the same bits, NaN beside them or not") {
    auto volume = noise({6, 7, 8}, 2);
    volume.at(3, 3, 3, 1) = std::nan("");
    volume.at(2, 2, 2, 0) = std::numeric_limits<double>::infinity();
    for (const auto how : {Interpolation::linear, Interpolation::nearest}) {
      const auto same = resample_like(volume, volume, how);
      const auto bytes = volume.voxels.size() * sizeof(double);
      CHECK(std::memcmp(same.voxels.data(), volume.voxels.data(), bytes) == 0);
    }
  }
  TEST_CASE("a turned grid gives the turned voxels") {
    const auto volume = noise({6, 7, 8});
    const auto turn = reorient(volume, "PSR");
    CHECK(resample_like(volume, turn, Interpolation::linear).voxels == turn.voxels);
  }
  TEST_CASE("another spacing keeps the field of view from its first corner") {
    auto volume = make_volume<float>({10, 10, 5}, Geometry::of_spacing(1, 1, 2), 1, 3.0f);
    const auto fine = resample(volume, {0.5, 2, 3}, Interpolation::linear);
    CHECK(fine.extent == Extent3{20, 5, 3});
    CHECK(fine.spacing()[0] == doctest::Approx(0.5));
    CHECK(fine.geometry.to_world(-0.5, -0.5, -0.5) == volume.geometry.to_world(-0.5, -0.5, -0.5));
    for (const float value : fine.voxels) CHECK(value == 3.0f);
  }
  TEST_CASE("oblique grids of one orientation are mapped axis by axis, others are not") {
    const auto grid = [](double mm, double turn) {
      VoxelGrid g{{300, 280, 90}, {}};
      const double c = std::cos(turn), s = std::sin(turn), u = std::cos(0.7), v = std::sin(0.7);
      g.geometry.affine << mm * c, -mm * s * u, mm * s * v, -31.7, mm * s, mm * c * u, -mm * c * v,
          12.3, 0, mm * v, mm * u, 200.9, 0, 0, 0, 1;
      return g;
    };
    CHECK(GridMap(grid(0.7, 0.4), grid(1.3, 0.4), Beyond::outside).along_axes());
    CHECK_FALSE(GridMap(grid(0.7, 0.4), grid(1.3, 0.4001), Beyond::outside).along_axes());
  }
  TEST_CASE("a linear ramp in the patient stays one inside") {
    auto volume = make_volume<double>({12, 12, 12}, oblique());
    const auto ramp = [](const Eigen::Vector3d& p) { return 2 * p[0] - 3 * p[1] + p[2] + 5; };
    for (Index z = 0; z < 12; ++z)
      for (Index y = 0; y < 12; ++y)
        for (Index x = 0; x < 12; ++x)
          volume.at(x, y, z) = ramp(volume.geometry.to_world(double(x), double(y), double(z)));
    const auto fine = resample(volume, {0.7, 0.8, 1.1}, Interpolation::linear);
    double worst = 0;
    Index inside = 0;
    for (Index z = 0; z < fine.extent[2]; ++z)
      for (Index y = 0; y < fine.extent[1]; ++y)
        for (Index x = 0; x < fine.extent[0]; ++x) {
          const auto world = fine.geometry.to_world(double(x), double(y), double(z));
          const auto at = volume.geometry.to_voxel(world);
          if (at.minCoeff() < 0 || at.maxCoeff() > 11) continue;
          ++inside;
          worst = std::max(worst, std::abs(fine.at(x, y, z) - ramp(world)));
        }
    CHECK(inside > 1000);
    CHECK(worst < 1e-9);
  }
  TEST_CASE("labels stay labels") {
    auto labels = make_volume<std::uint8_t>({7, 7, 7}, oblique());
    for (std::size_t k = 0; k < labels.voxels.size(); ++k)
      labels.voxels[k] = k % 3 == 0 ? 255 : k % 3 == 1 ? 0 : 7;
    for (const auto value : resample(labels, {0.6, 0.9, 2.2}, Interpolation::nearest).voxels)
      CHECK((value == 255 || value == 0 || value == 7));
  }
  TEST_CASE("whole numbers are rounded to the nearest") {
    auto volume = make_volume<short>({2, 1, 1});
    volume.voxels = {-10, 11};
    const auto fine = resample(volume, {0.25, 1, 1}, Interpolation::linear);
    CHECK(fine.voxels == std::vector<short>{-10, -10, -7, -2, 3, 8, 11, 11});
  }
  TEST_CASE("beyond the field of view lies the outside value") {
    const auto volume = make_volume<float>({4, 4, 4}, {}, 1, 1.0f);
    VoxelGrid grid{{6, 1, 1}, Geometry{}.shifted(-1, 0, 0)};
    const auto wide = resample_onto(volume, grid, Interpolation::linear, -5.0f);
    CHECK(wide.voxels == std::vector<float>{-5, 1, 1, 1, 1, -5});
    grid.geometry = Geometry{}.shifted(-0.5, 0, 0);
    const auto half = resample_onto(volume, grid, Interpolation::nearest, -5.0f);
    CHECK(half.voxels == std::vector<float>{1, 1, 1, 1, 1, -5});
  }
  TEST_CASE("one slice can be made thicker") {
    const auto slice = make_volume<float>({8, 8, 1}, {}, 1, 2.0f);
    const auto thick = resample(slice, {1, 1, 5}, Interpolation::linear);
    CHECK(thick.extent == Extent3{8, 8, 1});
    for (const float value : thick.voxels) CHECK(value == 2.0f);
  }
  TEST_CASE("spacings that cannot be are refused with their numbers") {
    const auto volume = make_volume<float>({4, 4, 4});
    CHECK_THROWS_WITH_AS(resample(volume, {1, 0, 1}, Interpolation::linear),
                         "segmed: resample: spacing 1,0,1 mm is not positive", ConfigError);
    CHECK_THROWS_WITH_AS(resample(volume, {1e-9, 1, 1}, Interpolation::linear),
                         "segmed: resample: spacing 1e-09,1,1 mm makes more than 2^34 voxels of "
                         "4x4x4; ask for larger voxels",
                         ConfigError);
    const VoxelGrid flat{{4, 4, 4}, Geometry::of_spacing(1, 1, 0)};
    CHECK_THROWS_AS(resample_onto(volume, flat, Interpolation::linear), DataError);
  }
  TEST_CASE("the number of threads does not change a bit") {
    const auto volume = noise({31, 29, 37}, 2);
    const int before = threads();
    std::vector<std::vector<double>> made;
    for (const int count : {1, 2, 4}) {
      set_threads(count);
      made.push_back(resample(volume, {0.7, 0.9, 1.1}, Interpolation::linear).voxels);
    }
    set_threads(before);
    CHECK(made[0] == made[1]);
    CHECK(made[0] == made[2]);
  }
  TEST_CASE("scipy gives the same values") {
    const Folder folder;
    if (!python_has(folder, "scipy.ndimage")) {
      MESSAGE("skipped: /usr/bin/python3 has no scipy");
      return;
    }
    const auto volume = noise({13, 11, 9});
    Geometry other = Geometry::of_spacing(0.6137, 0.7071, 0.8253).shifted(-4.013, 3.1415, 2.2236);
    other.affine(0, 1) = 0.2137;
    const VoxelGrid grid{{17, 16, 15}, other};
    put_file(folder / "in.f64", bytes_of(volume.voxels));
    const std::string program =
        "import sys, numpy as np, scipy.ndimage as nd\n"
        "v = np.fromfile(sys.argv[1] + '/in.f64').reshape(9, 11, 13).transpose()\n"
        "a, b = [np.array([float(x) for x in s.split(',')[:16]]).reshape(4, 4)"
        " for s in sys.argv[2:4]]\n"
        "m = np.linalg.inv(a) @ b\n"
        "for order in (0, 1):\n"
        "  o = nd.affine_transform(v, m[:3, :3], m[:3, 3], output_shape=(17, 16, 15),"
        " order=order, mode='nearest')\n"
        "  o.transpose().tofile(sys.argv[1] + '/out%d.f64' % order)\n";
    REQUIRE(python(folder, program,
                   folder.path + " \" " + numbers(volume.geometry.affine) + "\" \" " +
                       numbers(grid.geometry.affine) + "\""));
    for (const int order : {0, 1}) {
      const auto how = order ? Interpolation::linear : Interpolation::nearest;
      const auto mine = resample_onto(volume, grid, how, 0.0, Beyond::border);
      const auto cut = resample_onto(volume, grid, how, -1.0);
      const auto theirs = get_doubles(folder / ("out" + std::to_string(order) + ".f64"));
      REQUIRE(theirs.size() == mine.voxels.size());
      double worst = 0;
      Index inside = 0;
      for (std::size_t k = 0; k < theirs.size(); ++k) {
        worst = std::max(worst, std::abs(theirs[k] - mine.voxels[k]));
        if (cut.voxels[k] == -1.0) continue;
        ++inside;
        worst = std::max(worst, std::abs(theirs[k] - cut.voxels[k]));
      }
      INFO("order ", order);
      CHECK(worst < 1e-12);
      CHECK(inside > 500);
      CHECK(inside < Index(theirs.size()));
    }
  }
}
