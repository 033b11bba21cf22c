// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/data/intensity.hpp>
#include <segmed/data/patch_reader.hpp>

using namespace segmed;

namespace {
std::array<std::uint8_t, 256> same() {
  std::array<std::uint8_t, 256> map{};
  for (std::size_t i = 0; i < 256; ++i) map[i] = std::uint8_t(i);
  return map;
}
Example scan(const Extent3& extent, Index channels = 1) {
  Example example{"x", "x", make_volume<float>(extent, {}, channels),
                  make_volume<std::uint8_t>(extent), AnnotatedSet::all(4)};
  const Philox random{11};
  for (std::size_t i = 0; i < example.image.voxels.size(); ++i)
    example.image.voxels[i] = random.normal(Index(i));
  for (std::size_t i = 0; i < example.labels.voxels.size(); ++i)
    example.labels.voxels[i] = std::uint8_t(random.below(Index(i) + 100000, 4));
  return example;
}
void change(std::vector<float>& image, Index channels, const IntensityChange& how,
            std::uint64_t seed, Extent3 extent = {}) {
  if (extent[0] == 0) extent = {Index(image.size()) / channels, 1, 1};
  change_intensity(image, extent, IntensityDraw::draw(how, channels, {seed, Purpose::augment}, 0));
}
// Where a voxel of a patch lies in the scan, by the definition of the spline.
std::array<double, 3> place_of(const Placement& placement, const Extent3& extent, const Index* at) {
  std::array<double, 3> moved{}, place{};
  const Elastic& elastic = placement.elastic;
  const auto basis = [](double t) {
    t = std::abs(t);
    return t < 1 ? 2.0 / 3 - t * t + t * t * t / 2 : t < 2 ? (2 - t) * (2 - t) * (2 - t) / 6 : 0;
  };
  const auto& n = elastic.points;
  for (std::size_t i = 0; i < elastic.by.size(); ++i) {
    const auto point = Index(i / 3);
    const Index lies[3] = {point % n[0], point / n[0] % n[1], point / (n[0] * n[1])};
    double weight = 1;
    for (std::size_t k = 0; k < 3; ++k)
      weight *= basis((double(at[k]) + 0.5) * double(elastic.per_voxel[k]) - double(lies[k] - 1));
    moved[i % 3] += weight * double(elastic.by[i]);
  }
  for (std::size_t k = 0; k < 3; ++k) {
    place[k] = double(placement.center[k]);
    for (std::size_t a = 0; a < 3; ++a)
      place[k] +=
          (double(at[a]) - 0.5 * double(extent[a] - 1) + moved[a]) * double(placement.step[a][k]);
  }
  return place;
}
// The same by its definition: every voxel by itself, in double.
void brute_force(const Example& example, const Placement& placement, const Extent3& extent,
                 float outside, std::vector<float>& image, std::vector<std::uint8_t>& labels,
                 std::vector<bool>& sure) {
  for (Index z = 0; z < extent[2]; ++z)
    for (Index y = 0; y < extent[1]; ++y)
      for (Index x = 0; x < extent[0]; ++x) {
        const Index at[3] = {x, y, z};
        std::array<double, 3> p = place_of(placement, extent, at);
        bool inside = true, clear = true;
        for (std::size_t k = 0; k < 3; ++k) {
          const double most = double(example.image.extent[k] - 1);
          clear = clear && std::abs(p[k] + 0.5) > 1e-3 && std::abs(p[k] - most - 0.5) > 1e-3;
          inside = inside && p[k] >= -0.5 && p[k] <= most + 0.5;
          p[k] = std::clamp(p[k], 0.0, most);
          clear = clear && std::abs(p[k] - std::floor(p[k]) - 0.5) > 1e-3;
        }
        for (Index c = 0; c < example.image.channels; ++c) {
          double value = 0;
          for (int corner = 0; corner < 8; ++corner) {
            double weight = 1;
            Extent3 v{};
            for (std::size_t k = 0; k < 3; ++k) {
              const double low = std::floor(p[k]), t = p[k] - low;
              const bool up = (corner >> k & 1) != 0;
              weight *= up ? t : 1 - t;
              v[k] = std::min(Index(low) + (up ? 1 : 0), example.image.extent[k] - 1);
            }
            value += weight * double(example.image.at(v[0], v[1], v[2], c));
          }
          image.push_back(inside ? float(value) : outside);
        }
        const Extent3 v{Index(std::floor(p[0] + 0.5)), Index(std::floor(p[1] + 0.5)),
                        Index(std::floor(p[2] + 0.5))};
        labels.push_back(inside ? example.labels.at(v[0], v[1], v[2]) : ignored);
        sure.push_back(clear);
      }
}
}  // namespace

TEST_SUITE("data/augment") {
  TEST_CASE("a turned, scaled and deformed patch is the brute-force resampling, with borders") {
    for (const auto& [channels, depth] : {std::pair<Index, Index>{1, 12}, {2, 12}, {2, 1}}) {
      const Example example = scan({17, 14, depth}, channels);
      Augment augment;
      augment.elastic_chance = 0.5f, augment.elastic_mm = 3, augment.elastic_cell_mm = 6;
      augment.turn_chance = augment.scale_chance = 1;
      augment.turn_degrees = 40;
      const Extent3 extent = {12, 9, 10};
      for (std::uint32_t draw = 0; draw < 20; ++draw) {
        Placement placement =
            Placement::draw(augment, extent, {1, 1.5, 2}, {5, Purpose::augment, 0, draw}, 0);
        CHECK(placement.bent);
        placement.center = {8.5f, 6.25f, float(Index(draw) % depth)};
        std::vector<float> image, expected;
        std::vector<std::uint8_t> labels, expected_labels;
        std::vector<bool> sure;
        PatchReader(example, placement, extent, {-3.0f}, same()).read(image, labels);
        brute_force(example, placement, extent, -3, expected, expected_labels, sure);
        for (std::size_t i = 0; i < labels.size(); ++i) {
          if (!sure[i]) continue;
          CHECK(labels[i] == expected_labels[i]);
          for (std::size_t c = 0; c < std::size_t(channels); ++c) {
            const std::size_t k = i * std::size_t(channels) + c;
            CHECK(std::abs(image[k] - expected[k]) < 1e-4f);
          }
        }
      }
    }
  }
  TEST_CASE("rotation keeps lengths in mm on voxels that are no cubes") {
    Augment augment;
    augment.turn_chance = 1, augment.scale_chance = 0, augment.turn_degrees = 30;
    const std::array<double, 3> spacing = {0.7, 1.1, 3};
    const Placement placement =
        Placement::draw(augment, {8, 8, 8}, spacing, {1, Purpose::augment, 2, 3}, 0);
    for (std::size_t a = 0; a < 3; ++a)
      for (std::size_t b = 0; b < 3; ++b) {
        double dot = 0;
        for (std::size_t k = 0; k < 3; ++k)
          dot +=
              double(placement.step[a][k]) * double(placement.step[b][k]) * spacing[k] * spacing[k];
        CHECK(dot == doctest::Approx(a == b ? spacing[a] * spacing[a] : 0).epsilon(1e-5));
      }
  }
  TEST_CASE("a flipped patch is the plain one read backwards") {
    const Example example = scan({9, 8, 7});
    const Extent3 extent = {6, 5, 4};
    Placement plain;
    plain.center = {4, 4, 3};
    std::vector<float> image, turned;
    std::vector<std::uint8_t> labels, turned_labels;
    PatchReader(example, plain, extent, {}, same()).read(image, labels);
    Placement flipped = plain;
    flipped.step[0][0] = -1, flipped.step[2][2] = -1;
    PatchReader(example, flipped, extent, {}, same()).read(turned, turned_labels);
    for (Index z = 0; z < 4; ++z)
      for (Index y = 0; y < 5; ++y)
        for (Index x = 0; x < 6; ++x) {
          const auto a = std::size_t((z * 5 + y) * 6 + x);
          const auto b = std::size_t(((3 - z) * 5 + y) * 6 + 5 - x);
          CHECK(image[a] == turned[b]);
          CHECK(labels[a] == turned_labels[b]);
          CHECK(image[a] == example.image.at(x + 1, y + 2, z + 1));
        }
  }
  TEST_CASE("beyond the scan lie the padding value and ignored labels") {
    const Example example = scan({4, 4, 4});
    Placement placement;
    placement.center = {2, 2, 2};
    std::vector<float> image;
    std::vector<std::uint8_t> labels;
    PatchReader(example, placement, {8, 8, 8}, {-9.0f}, same()).read(image, labels);
    Index inside = 0;
    for (std::size_t i = 0; i < labels.size(); ++i) {
      CHECK((labels[i] == ignored) == (image[i] == -9.0f));
      inside += labels[i] != ignored ? 1 : 0;
    }
    CHECK(inside == 64);
  }
  TEST_CASE("flips happen as often as they should") {
    Augment augment;
    augment.flip = {0.5f, 0, 1};
    Index swapped = 0;
    for (std::uint32_t draw = 0; draw < 1000; ++draw) {
      const auto placement =
          Placement::draw(augment, {8, 8, 8}, {1, 1, 1}, {1, Purpose::augment, 0, draw}, 0);
      swapped += placement.mirrored ? 1 : 0;
      if (placement.bent) continue;
      CHECK(placement.step[1][1] == 1);
      CHECK(placement.step[2][2] == -1);
      CHECK((placement.step[0][0] < 0) == placement.mirrored);
    }
    CHECK(swapped > 440);
    CHECK(swapped < 560);
  }
  TEST_CASE("gamma keeps mean and deviation, and the order of intensities") {
    IntensityChange how{0, 0, 0, 0, 1, 1.5f, 1.5f, 0, 0};
    std::vector<float> before(4000);
    for (std::size_t i = 0; i < before.size(); ++i) before[i] = Philox{4}.normal(Index(i));
    std::vector<float> after = before;
    change(after, 1, how, 1);
    double mean = 0, square = 0;
    for (const float value : after) mean += double(value), square += double(value) * double(value);
    mean /= 4000, square = square / 4000 - mean * mean;
    double old_mean = 0, old_square = 0;
    for (const float value : before)
      old_mean += double(value), old_square += double(value) * double(value);
    old_mean /= 4000, old_square = old_square / 4000 - old_mean * old_mean;
    CHECK(mean == doctest::Approx(old_mean).epsilon(1e-3));
    CHECK(square == doctest::Approx(old_square).epsilon(1e-3));
    CHECK(after != before);
    for (std::size_t i = 1; i < 300; ++i)
      CHECK((before[i] < before[i - 1]) == (after[i] < after[i - 1]));
    // The power law itself.
    const auto [least, most] = std::minmax_element(before.begin(), before.end());
    const auto [low, high] = std::minmax_element(after.begin(), after.end());
    for (std::size_t i = 0; i < 300; ++i) {
      const float t = (before[i] - *least) / (*most - *least),
                  u = (after[i] - *low) / (*high - *low);
      CHECK(u == doctest::Approx(std::pow(t, 1.5f)).epsilon(2e-3));
    }
  }
  TEST_CASE("brightness, contrast and noise do what they say") {
    std::vector<float> before(30000);
    for (std::size_t i = 0; i < before.size(); ++i) before[i] = 1 + Philox{4}.normal(Index(i));
    auto after = before;
    change(after, 1, {1, 0.25f, 0, 0, 0, 1, 1, 0, 0}, 3);
    const float factor = after[0] / before[0];
    CHECK(factor > 0.75f);
    CHECK(factor < 1.25f);
    for (std::size_t i = 0; i < 100; ++i) CHECK(after[i] == doctest::Approx(before[i] * factor));

    after = before;
    change(after, 1, {0, 0, 1, 0.25f, 0, 1, 1, 0, 0}, 3);
    CHECK(*std::max_element(after.begin(), after.end()) <=
          *std::max_element(before.begin(), before.end()));
    CHECK(after != before);

    after = before;
    change(after, 1, {0, 0, 0, 0, 0, 1, 1, 1, 0.1f}, 3);
    double mean = 0, square = 0, fourth = 0;
    for (std::size_t i = 0; i < after.size(); ++i) {
      const double noise = double(after[i]) - double(before[i]);
      mean += noise, square += noise * noise, fourth += noise * noise * noise * noise;
    }
    mean /= 30000, square /= 30000, fourth /= 30000;
    const float deviation = Philox{3, Purpose::augment}.uniform(7, 0, 0.1f);
    CHECK(std::abs(mean) < 0.002);
    CHECK(std::sqrt(square) == doctest::Approx(double(deviation)).epsilon(0.02));
    CHECK(fourth / (square * square) > 2.5);  // 3 for a normal distribution
    CHECK(fourth / (square * square) < 3.2);
  }
  TEST_CASE("channels change apart from each other, and nothing changes when nothing shall") {
    std::vector<float> image(2000, 1.0f);
    change(image, 2, {1, 0.5f, 0, 0, 0, 1, 1, 0, 0}, 3);
    CHECK(image[0] != image[1]);
    CHECK(image[0] == image[1998]);
    const auto before = image;
    change(image, 2, Augment::none().weak, 3);
    CHECK(image == before);
  }
  TEST_CASE("a displacement is smooth, folds nothing and is the same for any spacing in mm") {
    Augment augment;
    augment.elastic_chance = 1, augment.elastic_mm = 1e6f, augment.elastic_cell_mm = 8;
    const Extent3 extent = {24, 20, 12};
    Index moved = 0;
    for (std::uint32_t draw = 0; draw < 8; ++draw) {
      const Philox random{2, Purpose::augment, 0, draw};
      const Elastic elastic = Elastic::draw(augment, extent, {1, 1, 2}, random, 0);
      CHECK(elastic.points == Extent3{6, 6, 6});
      Placement placement;
      placement.elastic = elastic;
      const auto at = [&](Index x, Index y, Index z) {
        const Index voxel[3] = {x, y, z};
        return place_of(placement, extent, voxel);
      };
      for (Index z = 0; z + 1 < extent[2]; ++z)
        for (Index y = 0; y + 1 < extent[1]; ++y)
          for (Index x = 0; x + 1 < extent[0]; ++x) {
            const auto here = at(x, y, z), right = at(x + 1, y, z), back = at(x, y + 1, z),
                       up = at(x, y, z + 1);
            double j[3][3];
            for (std::size_t k = 0; k < 3; ++k)
              j[0][k] = right[k] - here[k], j[1][k] = back[k] - here[k], j[2][k] = up[k] - here[k];
            CHECK(j[0][0] * (j[1][1] * j[2][2] - j[1][2] * j[2][1]) -
                      j[0][1] * (j[1][0] * j[2][2] - j[1][2] * j[2][0]) +
                      j[0][2] * (j[1][0] * j[2][1] - j[1][1] * j[2][0]) >
                  0.05);
            moved += std::abs(j[0][0] - 1) > 0.2 ? 1 : 0;
          }
      // What is given in mm moves half as many voxels of twice the size.
      augment.elastic_mm = 1;
      const Elastic fine = Elastic::draw(augment, {24, 24, 24}, {1, 1, 1}, random, 0);
      const Elastic wide = Elastic::draw(augment, {12, 12, 12}, {2, 2, 2}, random, 0);
      REQUIRE(fine.by.size() == wide.by.size());
      for (std::size_t i = 0; i < fine.by.size(); ++i)
        CHECK(fine.by[i] == doctest::Approx(2 * wide.by[i]));
      CHECK(fine.farthest(0) <= 1);
      augment.elastic_mm = 1e6f;
    }
    CHECK(moved > 100);
    const Elastic flat = Elastic::draw(augment, {24, 20, 1}, {1, 1, 5}, {2, Purpose::augment}, 0);
    CHECK(flat.farthest(0) > 0.1f);
    CHECK(flat.farthest(2) == 0);
    augment.elastic_chance = 0;
    CHECK(Elastic::draw(augment, extent, {1, 1, 1}, {2, Purpose::augment}, 0).empty());
  }
  TEST_CASE("a blur is a Gaussian along each axis, with the border going on") {
    IntensityChange how = Augment::none().weak;
    how.blur_chance = 1, how.blur_low = how.blur_high = 1.5f;
    const Extent3 extent = {21, 11, 9};
    std::vector<float> image(std::size_t(2 * 21 * 11 * 9));
    const auto at = [&](Index x, Index y, Index z) {
      return std::size_t((z * extent[1] + y) * extent[0] + x);
    };
    for (std::size_t i = 0; i < image.size(); ++i) image[i] = Philox{6}.normal(Index(i));
    std::vector<float> blurred = image;
    change(blurred, 2, how, 3, extent);
    for (const auto& v : {Extent3{10, 5, 4}, {0, 5, 8}, {20, 0, 0}, {3, 10, 1}})
      for (std::size_t c = 0; c < 2; ++c) {
        double sum = 0, total = 0;
        for (Index z = -5; z <= 5; ++z)
          for (Index y = -5; y <= 5; ++y)
            for (Index x = -5; x <= 5; ++x) {
              const double weight = std::exp(-0.5 * double(x * x + y * y + z * z) / 2.25);
              const auto from =
                  at(std::clamp<Index>(v[0] + x, 0, 20), std::clamp<Index>(v[1] + y, 0, 10),
                     std::clamp<Index>(v[2] + z, 0, 8));
              sum += weight * double(image[2 * from + c]), total += weight;
            }
        CHECK(blurred[2 * at(v[0], v[1], v[2]) + c] == doctest::Approx(sum / total).epsilon(1e-4));
      }
    // One channel alone, and none at all.
    how.blur_chance = 0.5f;
    Index changed = 0;
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
      blurred = image;
      change(blurred, 2, how, seed, extent);
      changed += (blurred[0] != image[0] ? 1 : 0) + (blurred[1] != image[1] ? 1 : 0);
    }
    CHECK(changed > 40);
    CHECK(changed < 80);
  }
  TEST_CASE("a low resolution keeps nearest voxels and is linear between them") {
    IntensityChange how = Augment::none().weak;
    how.low_resolution_chance = 1, how.low_resolution = 0.4f;
    const Extent3 extent = {20, 12, 1};
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      std::vector<float> image(240);
      for (std::size_t i = 0; i < 240; ++i) image[i] = Philox{6}.normal(Index(i));
      const auto before = image;
      change(image, 1, how, seed, extent);
      const double left = double(Philox{seed, Purpose::augment}.uniform(13, 0.4f, 1));
      const auto taps = [&](Index n, Index i) {
        const double m = std::floor(double(n) * left + 0.5);
        const double at = std::clamp((double(i) + 0.5) * m / double(n) - 0.5, 0.0, m - 1);
        const double low = std::floor(at), high = std::min(low + 1, m - 1);
        const auto kept = [&](double k) {
          return std::size_t(std::floor((k + 0.5) * double(n) / m + 1e-6));
        };
        return std::tuple{kept(low), kept(high), at - low};
      };
      for (Index y = 0; y < 12; ++y)
        for (Index x = 0; x < 20; ++x) {
          const auto [x0, x1, fx] = taps(20, x);
          const auto [y0, y1, fy] = taps(12, y);
          const auto row = [&, x0 = x0, x1 = x1, fx = fx](std::size_t at) {
            return double(before[at * 20 + x0]) * (1 - fx) + double(before[at * 20 + x1]) * fx;
          };
          CHECK(image[std::size_t(y * 20 + x)] ==
                doctest::Approx(row(y0) * (1 - fy) + row(y1) * fy).epsilon(1e-4));
        }
    }
  }
  TEST_CASE("a field out of its range is named with its value and what to give") {
    Augment augment;
    augment.check();
    augment.elastic_chance = 1.5f;
    CHECK_THROWS_WITH_AS(augment.check(),
                         "segmed: augment: elastic_chance is 1.5; give a chance from 0 to 1",
                         ConfigError);
    augment.elastic_chance = 1, augment.elastic_cell_mm = 0;
    CHECK_THROWS_WITH_AS(augment.check(),
                         "segmed: augment: elastic_cell_mm is 0; give a length above 0",
                         ConfigError);
    augment = {};
    augment.weak.blur_high = 9;
    CHECK_THROWS_WITH_AS(augment.check(),
                         "segmed: augment: blur_low and blur_high are 0.5 and 9; give deviations "
                         "above 0 and up to 4 voxels, the low one first",
                         ConfigError);
    augment = {};
    augment.strong.low_resolution = 0;
    CHECK_THROWS_WITH_AS(augment.check(),
                         "segmed: augment: low_resolution is 0; give a part above 0 and up to 1",
                         ConfigError);
  }
}
