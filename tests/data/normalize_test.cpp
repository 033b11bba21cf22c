// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/data/normalize.hpp>

using namespace segmed;
using Kind = Normalization::Kind;

namespace {
Volume<float> scan(Index channels = 1) {
  Volume<float> image = make_volume<float>({5, 4, 3}, {}, channels);
  const Philox random{3};
  for (std::size_t i = 0; i < image.voxels.size(); ++i)
    image.voxels[i] = i % 3 == 0 ? 0.0f : 100 + 20 * random.normal(Index(i));
  return image;
}
struct Moments {
  double mean, deviation;
};
Moments moments(const std::vector<float>& values) {
  double sum = 0, square = 0;
  for (const float value : values) sum += double(value);
  const double mean = sum / double(values.size());
  for (const float value : values) square += (double(value) - mean) * (double(value) - mean);
  return {mean, std::sqrt(square / double(values.size()))};
}
}  // namespace

TEST_SUITE("data/normalize") {
  TEST_CASE("z_score gives mean 0 and deviation 1, channel by channel") {
    Volume<float> image = scan(2);
    normalize(image, {});
    for (std::size_t c = 0; c < 2; ++c) {
      std::vector<float> values;
      for (std::size_t i = c; i < image.voxels.size(); i += 2) values.push_back(image.voxels[i]);
      CHECK(std::abs(moments(values).mean) < 1e-6);
      CHECK(moments(values).deviation == doctest::Approx(1));
    }
  }
  TEST_CASE("z_score of the nonzero voxels leaves zero at zero") {
    Volume<float> image = scan();
    const Volume<float> before = image;
    normalize(image, {Kind::z_score, true, {}});
    std::vector<float> inside;
    for (std::size_t i = 0; i < image.voxels.size(); ++i)
      if (before.voxels[i] != 0)
        inside.push_back(image.voxels[i]);
      else
        CHECK(image.voxels[i] == 0);
    CHECK(std::abs(moments(inside).mean) < 1e-6);
    CHECK(moments(inside).deviation == doctest::Approx(1));
  }
  TEST_CASE("percentiles are those of the labelled foreground") {
    Example example{
        "x", "x", make_volume<float>({10, 10, 10}), make_volume<std::uint8_t>({10, 10, 10}), {}};
    std::vector<float> inside;
    for (std::size_t i = 0; i < 1000; ++i) {
      example.image.voxels[i] = float(i * 7 % 1000);
      example.labels.voxels[i] = i % 2 == 0 ? 1 : i % 5 == 0 ? 255 : 0;
      if (i % 2 == 0) inside.push_back(example.image.voxels[i]);
    }
    IntensityFit fit;
    fit.add(example);
    const Normalization fitted = fit.percentile();
    std::sort(inside.begin(), inside.end());
    REQUIRE(fitted.ranges.size() == 1);
    const double low = 0.005 * 499, high = 0.995 * 499;
    CHECK(double(fitted.ranges[0].low) ==
          doctest::Approx(double(inside[2]) + (low - 2) * double(inside[3] - inside[2])));
    CHECK(double(fitted.ranges[0].high) ==
          doctest::Approx(double(inside[496]) + (high - 496) * double(inside[497] - inside[496])));
    CHECK(double(fitted.ranges[0].mean) == doctest::Approx(moments(inside).mean));
    Volume<float> image = example.image;
    normalize(image, fitted);
    for (const float value : image.voxels) {
      CHECK(value >= fitted.outside(0));
      CHECK(std::abs(value) < 3);
    }
    CHECK_THROWS_WITH_AS(IntensityFit().percentile(),
                         "segmed: normalize: no training case to fit intensities on", DataError);
  }
  TEST_CASE("a window maps its ends to 0 and 1 and clips") {
    Volume<float> image = make_volume<float>({4, 1, 1});
    image.voxels = {-500, -160, 40, 500};
    normalize(image, Normalization::window(-160, 240));
    CHECK(image.voxels == std::vector<float>{0, 0, 0.5f, 1});
    CHECK_THROWS_WITH_AS(Normalization::window(3, 3),
                         "segmed: normalize: a window from 3 to 3 is empty", ConfigError);
  }
  TEST_CASE("voxels that are not finite count as the least finite one") {
    Volume<float> image = make_volume<float>({4, 1, 1});
    image.voxels = {std::numeric_limits<float>::quiet_NaN(), 2, 4,
                    std::numeric_limits<float>::infinity()};
    normalize(image, {Kind::none, false, {}});
    CHECK(image.voxels == std::vector<float>{2, 2, 4, 2});
    image.voxels.assign(4, std::numeric_limits<float>::quiet_NaN());
    CHECK_THROWS_WITH_AS(normalize(image, {}), "segmed: normalize: channel 0 has no finite voxel",
                         DataError);
  }
  TEST_CASE("a constant scan becomes zero, not NaN") {
    Volume<float> image = make_volume<float>({2, 2, 2}, {}, 1, 7.0f);
    normalize(image, {});
    CHECK(image.voxels == std::vector<float>(8, 0.0f));
  }
  TEST_CASE("ranges that were never fitted are asked for") {
    Volume<float> image = scan();
    CHECK_THROWS_WITH_AS(normalize(image, {Kind::percentile, false, {}}),
                         "segmed: normalize: percentile has 0 ranges for 1 channels; fit it on the "
                         "training cases first",
                         ConfigError);
  }
  TEST_CASE("normalization survives JSON") {
    const Normalization how{
        Kind::percentile, false, {{-100.25f, 200, 45.1f, 30}, {0, 1, 0.5f, 0.1f}}};
    CHECK(normalization_of(parse_json(to_json(how).dump())) == how);
    CHECK(normalization_of(to_json(Normalization{Kind::z_score, true, {}})).nonzero);
    CHECK_THROWS_WITH_AS(
        normalization_of(parse_json(R"({"kind": "x", "nonzero": false, "ranges": []})")),
        "segmed: normalize: kind x is none of none, z_score, percentile, window", DataError);
  }
}
