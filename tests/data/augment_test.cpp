// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/data/augment.hpp>

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
// The same by its definition: every voxel by itself, in double.
void brute_force(const Example& example, const Placement& placement, const Extent3& extent,
                 float outside, std::vector<float>& image, std::vector<std::uint8_t>& labels,
                 std::vector<bool>& sure) {
  for (Index z = 0; z < extent[2]; ++z)
    for (Index y = 0; y < extent[1]; ++y)
      for (Index x = 0; x < extent[0]; ++x) {
        const Index at[3] = {x, y, z};
        double p[3];
        bool inside = true, clear = true;
        for (std::size_t k = 0; k < 3; ++k) {
          p[k] = double(placement.center[k]);
          for (std::size_t a = 0; a < 3; ++a)
            p[k] += (double(at[a]) - 0.5 * double(extent[a] - 1)) * double(placement.step[a][k]);
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
  TEST_CASE("a rotated and scaled patch is the brute-force resampling, borders included") {
    for (const Index channels : {Index{1}, Index{2}}) {
      const Example example = scan({17, 14, 12}, channels);
      Augment augment;
      augment.turn_chance = augment.scale_chance = 1;
      augment.turn_degrees = 40;
      for (std::uint32_t draw = 0; draw < 20; ++draw) {
        Placement placement =
            Placement::draw(augment, {1, 1.5, 2}, {5, Purpose::augment, 0, draw}, 0);
        CHECK(placement.bent);
        placement.center = {8.5f, 6.25f, float(draw % 12)};
        const Extent3 extent = {12, 9, 10};
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
    const Placement placement = Placement::draw(augment, spacing, {1, Purpose::augment, 2, 3}, 0);
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
      const auto placement = Placement::draw(augment, {1, 1, 1}, {1, Purpose::augment, 0, draw}, 0);
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
    change_intensity(after, 1, how, {1, Purpose::augment}, 0);
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
    change_intensity(after, 1, {1, 0.25f, 0, 0, 0, 1, 1, 0, 0}, {3, Purpose::augment}, 0);
    const float factor = after[0] / before[0];
    CHECK(factor > 0.75f);
    CHECK(factor < 1.25f);
    for (std::size_t i = 0; i < 100; ++i) CHECK(after[i] == doctest::Approx(before[i] * factor));

    after = before;
    change_intensity(after, 1, {0, 0, 1, 0.25f, 0, 1, 1, 0, 0}, {3, Purpose::augment}, 0);
    CHECK(*std::max_element(after.begin(), after.end()) <=
          *std::max_element(before.begin(), before.end()));
    CHECK(after != before);

    after = before;
    change_intensity(after, 1, {0, 0, 0, 0, 0, 1, 1, 1, 0.1f}, {3, Purpose::augment}, 0);
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
    change_intensity(image, 2, {1, 0.5f, 0, 0, 0, 1, 1, 0, 0}, {3, Purpose::augment}, 0);
    CHECK(image[0] != image[1]);
    CHECK(image[0] == image[1998]);
    const auto before = image;
    change_intensity(image, 2, Augment::none().weak, {3, Purpose::augment}, 0);
    CHECK(image == before);
  }
}
