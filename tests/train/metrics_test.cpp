// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/backend/parallel.hpp>
#include <segmed/core/random.hpp>
#include <segmed/train/metrics.hpp>

using namespace segmed;

namespace {

using Labels = Volume<std::uint8_t>;

Labels random_labels(const Philox& random, Index& draw, const Extent3& extent, const Geometry& grid,
                     Index classes, float filled) {
  Labels labels = make_volume<std::uint8_t>(extent, grid);
  for (auto& voxel : labels.voxels) {
    const bool on = random.uniform(draw++) < filled;
    voxel = std::uint8_t(on ? 1 + random.below(draw++, classes - 1) : 0);
  }
  return labels;
}

struct Point {
  double x, y, z;
};
double between(const Point& a, const Point& b) {
  return std::sqrt((a.x - b.x) * (a.x - b.x) + (a.y - b.y) * (a.y - b.y) +
                   (a.z - b.z) * (a.z - b.z));
}

// The centers of the surface voxels, by the definition and nothing else.
std::vector<Point> surface(const Labels& labels, const Labels& truth, int label) {
  std::vector<Point> points;
  const auto step = labels.spacing();
  for (Index z = 0; z < labels.extent[2]; ++z)
    for (Index y = 0; y < labels.extent[1]; ++y)
      for (Index x = 0; x < labels.extent[0]; ++x) {
        if (labels.at(x, y, z) != label || truth.at(x, y, z) == 255) continue;
        bool border = false;
        for (int axis = 0; axis < 3; ++axis)
          for (int side = -1; side <= 1; side += 2) {
            Index p[3] = {x, y, z};
            p[axis] += side;
            if (labels.extent[std::size_t(axis)] == 1) continue;
            if (!labels.contains(p[0], p[1], p[2]))
              border = true;
            else if (labels.at(p[0], p[1], p[2]) != label && truth.at(p[0], p[1], p[2]) != 255)
              border = true;
          }
        if (border)
          points.push_back({double(x) * step[0], double(y) * step[1], double(z) * step[2]});
      }
  return points;
}
std::vector<double> nearest(const std::vector<Point>& from, const std::vector<Point>& to) {
  std::vector<double> distances;
  for (const Point& a : from) {
    double least = std::numeric_limits<double>::infinity();
    for (const Point& b : to) least = std::min(least, between(a, b));
    distances.push_back(least);
  }
  std::sort(distances.begin(), distances.end());
  return distances;
}
double sorted_percentile(const std::vector<double>& sorted, double share) {
  const double place = share * double(sorted.size() - 1);
  const std::size_t below = std::size_t(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - double(below)) * (sorted[above] - sorted[below]);
}

}  // namespace

TEST_SUITE("image/distance") {
  TEST_CASE("the distance transform equals the nearest voxel by search") {
    const Philox random{3, Purpose::noise};
    Index draw = 0;
    for (int trial = 0; trial < 1500; ++trial) {
      const Extent3 extent{1 + random.below(draw++, 9), 1 + random.below(draw++, 9),
                           1 + random.below(draw++, 6)};
      const std::array<double, 3> step{0.1 + 5 * random.uniform(draw++),
                                       0.1 + 5 * random.uniform(draw++),
                                       0.1 + 5 * random.uniform(draw++)};
      const float filled = trial % 3 == 0 ? 0.02f : trial % 3 == 1 ? 0.2f : 0.7f;
      std::vector<std::uint8_t> mask(std::size_t(extent[0] * extent[1] * extent[2]));
      for (auto& voxel : mask) voxel = random.uniform(draw++) < filled ? 1 : 0;
      const auto squares = squared_distances(mask, extent, step);
      const auto point = [&](std::size_t i) {
        const Index x = Index(i) % extent[0], y = Index(i) / extent[0] % extent[1],
                    z = Index(i) / extent[0] / extent[1];
        return Point{double(x) * step[0], double(y) * step[1], double(z) * step[2]};
      };
      bool same = true;
      for (std::size_t i = 0; i < mask.size(); ++i) {
        double least = std::numeric_limits<double>::infinity();
        for (std::size_t j = 0; j < mask.size(); ++j)
          if (mask[j] != 0) least = std::min(least, between(point(i), point(j)));
        const double found = std::sqrt(squares[i]);
        same = same && (std::isinf(least) ? std::isinf(found) : std::abs(found - least) <= 1e-9);
      }
      REQUIRE(same);
    }
  }
  TEST_CASE("the distance transform has the same bits for any number of threads") {
    const Philox random{4, Purpose::noise};
    std::vector<std::uint8_t> mask(31 * 29 * 23);
    for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = random.uniform(Index(i)) < 0.01f;
    const int before = threads();
    set_threads(1);
    const auto one = squared_distances(mask, {31, 29, 23}, {0.7, 1.3, 2.9});
    set_threads(4);
    CHECK(squared_distances(mask, {31, 29, 23}, {0.7, 1.3, 2.9}) == one);
    set_threads(before);
  }
  TEST_CASE("a mask of no voxel is infinitely far, and a volume keeps its grid") {
    Labels mask = make_volume<std::uint8_t>({4, 3, 2}, Geometry::of_spacing(1, 2, 3));
    CHECK(std::isinf(distance_transform(mask).at(0, 0, 0)));
    mask.at(0, 0, 0) = 9;
    const auto distances = distance_transform(mask);
    CHECK(distances.at(3, 2, 1) == doctest::Approx(std::sqrt(9.0 + 16 + 9)));
    CHECK(same_grid(distances, mask));
    CHECK_THROWS_WITH_AS(squared_distances({1, 0}, {3, 1, 1}, {1, 1, 1}),
                         "segmed: distance: a mask of 2 voxels is not 3x1x1", ShapeError);
    CHECK_THROWS_WITH_AS(squared_distances({1, 0}, {2, 1, 1}, {1, 0, 1}),
                         "segmed: distance: a spacing is 0 mm", ShapeError);
  }
  TEST_CASE("the distance transform equals scipy's") {
    if (std::system("/usr/bin/python3 -c 'import scipy.ndimage' 2>/dev/null") != 0) {
      MESSAGE("skipped: /usr/bin/python3 has no scipy");
      return;
    }
    const Philox random{5, Purpose::noise};
    const Extent3 extent{23, 19, 17};
    std::vector<std::uint8_t> mask(std::size_t(23 * 19 * 17));
    for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = random.uniform(Index(i)) < 0.004f;
    const auto squares = squared_distances(mask, extent, {0.8, 1.25, 3.0});
    const char* folder = std::getenv("TMPDIR");
    const std::string base = std::string(folder ? folder : "/tmp") + "/segmed_edt_" +
                             std::to_string(std::size_t(&squares) ^ hash_of("edt"));
    const auto write = [](const std::string& path, const auto& values) {
      std::FILE* file = std::fopen(path.c_str(), "wb");
      REQUIRE(file != nullptr);
      std::fwrite(values.data(), sizeof values[0], values.size(), file);
      std::fclose(file);
    };
    write(base + ".mask", mask);
    write(base + ".squares", squares);
    const std::string program =
        "import numpy as np, sys; from scipy.ndimage import distance_transform_edt as edt; "
        "m = np.fromfile('" +
        base +
        ".mask', np.uint8).reshape(17, 19, 23); "
        "d = np.sqrt(np.fromfile('" +
        base +
        ".squares')).reshape(m.shape); "
        "sys.exit(int(abs(edt(m == 0, sampling=(3.0, 1.25, 0.8)) - d).max() > 1e-9))";
    CHECK(std::system(("/usr/bin/python3 -c \"" + program + "\"").c_str()) == 0);
    std::remove((base + ".mask").c_str());
    std::remove((base + ".squares").c_str());
  }
}

TEST_SUITE("train/metrics") {
  TEST_CASE("every score equals the one by definition, on thousands of random cases") {
    const Philox random{1, Purpose::noise};
    Index draw = 0;
    int found = 0;
    for (int trial = 0; trial < 3000; ++trial) {
      const Extent3 extent{1 + random.below(draw++, 8), 1 + random.below(draw++, 8),
                           1 + random.below(draw++, 5)};
      double step[3];
      for (double& mm : step) mm = 0.2 + 4 * random.uniform(draw++);
      const Geometry grid = Geometry::of_spacing(step[0], step[1], step[2]);
      const float filled = trial % 2 == 0 ? 0.05f : 0.8f;
      const Labels prediction = random_labels(random, draw, extent, grid, 4, filled);
      Labels truth = random_labels(random, draw, extent, grid, 4, filled);
      if (trial % 4 < 2)
        for (auto& voxel : truth.voxels)
          if (random.uniform(draw++) < 0.15f) voxel = ignored;
      const AnnotatedSet annotated = AnnotatedSet::all(4).without(1 + random.below(draw++, 6));
      const CaseScore result = score_case(prediction, truth, annotated, 4);
      REQUIRE(result.classes.size() == 4);
      DefinedMean mean;
      for (int c = 1; c < 4; ++c) {
        const ClassScore& score = result.classes[std::size_t(c)];
        if (!annotated.has(c)) {
          REQUIRE(score.presence == Presence::not_annotated);
          REQUIRE(std::isnan(score.dice));
          continue;
        }
        double tp = 0, fp = 0, fn = 0;
        for (std::size_t i = 0; i < truth.voxels.size(); ++i) {
          if (truth.voxels[i] == ignored) continue;
          const bool p = prediction.voxels[i] == c, t = truth.voxels[i] == c;
          tp += p && t, fp += p && !t, fn += !p && t;
        }
        if (tp + fp + fn == 0) {
          REQUIRE(score.presence == Presence::absent);
          REQUIRE(std::isnan(score.dice));
          REQUIRE(std::isnan(score.iou));
          continue;
        }
        REQUIRE(score.dice == doctest::Approx(2 * tp / (2 * tp + fp + fn)).epsilon(1e-12));
        REQUIRE(score.iou == doctest::Approx(tp / (tp + fp + fn)).epsilon(1e-12));
        mean.add(2 * tp / (2 * tp + fp + fn));
        const auto ours = surface(prediction, truth, c), theirs = surface(truth, truth, c);
        if (ours.empty() || theirs.empty()) {
          REQUIRE(std::isnan(score.hd95));
          REQUIRE(std::isnan(score.assd));
          continue;
        }
        ++found;
        auto forth = nearest(ours, theirs);
        const auto back = nearest(theirs, ours);
        REQUIRE(std::abs(score.hd95 - std::max(sorted_percentile(forth, 0.95),
                                               sorted_percentile(back, 0.95))) <= 1e-9);
        forth.insert(forth.end(), back.begin(), back.end());
        double sum = 0;
        for (const double d : forth) sum += d;
        REQUIRE(std::abs(score.assd - sum / double(forth.size())) <= 1e-9);
      }
      if (mean.count > 0)
        REQUIRE(result.mean_dice() == doctest::Approx(mean.value()));
      else
        REQUIRE(std::isnan(result.mean_dice()));
    }
    CHECK(found > 3000);
  }
  TEST_CASE("a cube moved by two voxels has the distances that one draws on paper") {
    Labels truth = make_volume<std::uint8_t>({20, 12, 12}, Geometry::of_spacing(1.5, 1, 1));
    Labels prediction = truth;
    for (Index z = 3; z < 9; ++z)
      for (Index y = 3; y < 9; ++y)
        for (Index x = 3; x < 9; ++x) truth.at(x, y, z) = 1, prediction.at(x + 2, y, z) = 1;
    const CaseScore score = score_case(prediction, truth, AnnotatedSet::all(2), 2);
    CHECK(score.classes[1].dice == doctest::Approx(2.0 * 144 / 432));
    CHECK(score.classes[1].hd95 == doctest::Approx(3.0));
    CHECK(score.classes[1].assd > 0.5);
    CHECK(score.classes[1].assd < 3.0);
    const CaseScore same = score_case(truth, truth, AnnotatedSet::all(2), 2);
    CHECK(same.classes[1].dice == 1);
    CHECK(same.classes[1].hd95 == 0);
    CHECK(same.classes[1].assd == 0);
  }
  TEST_CASE("an empty class follows the rule that is printed") {
    Labels none = make_volume<std::uint8_t>({4, 4, 4}), some = none;
    some.at(1, 1, 1) = 1;
    const AnnotatedSet all = AnnotatedSet::all(3);
    const ClassScore absent = score_case(none, none, all, 3).classes[1];
    const ClassScore missed = score_case(none, some, all, 3).classes[1];
    const ClassScore invented = score_case(some, none, all, 3).classes[1];
    CHECK(absent.presence == Presence::absent);
    CHECK(std::isnan(absent.dice));
    CHECK(missed.presence == Presence::missed);
    CHECK(missed.dice == 0);
    CHECK(missed.iou == 0);
    CHECK(std::isnan(missed.hd95));
    CHECK(invented.presence == Presence::invented);
    CHECK(invented.dice == 0);
    CHECK(std::isnan(invented.assd));
    CHECK(std::isnan(score_case(none, none, all, 3).mean_dice()));
    const auto summary = ScoreSummary::of(
        {score_case(none, none, all, 3), score_case(none, some, all, 3),
         score_case(some, some, all, 3), score_case(some, some, all.without(1), 3)});
    CHECK(summary.dice.count == 2);
    CHECK(summary.dice.value() == doctest::Approx(0.5));
    CHECK(summary.classes[1].annotated == 3);
    CHECK(summary.classes[1].absent == 1);
    CHECK(summary.classes[1].missed == 1);
    CHECK(summary.classes[1].found == 1);
    CHECK(summary.classes[1].dice.count == 2);
    CHECK(summary.classes[1].hd95.count == 1);
    CHECK(summary.classes[2].annotated == 4);
    CHECK(std::isnan(summary.classes[2].dice.value()));
  }
  TEST_CASE("an ignored voxel counts nowhere") {
    Labels truth = make_volume<std::uint8_t>({3, 1, 1}), prediction = truth;
    truth.voxels = {1, 255, 0};
    prediction.voxels = {1, 1, 0};
    CHECK(score_case(prediction, truth, AnnotatedSet::all(2), 2).classes[1].dice == 1);
    prediction.voxels = {0, 1, 0};
    CHECK(score_case(prediction, truth, AnnotatedSet::all(2), 2).classes[1].presence ==
          Presence::missed);
  }
  TEST_CASE("what does not fit is refused with its numbers") {
    const Labels a = make_volume<std::uint8_t>({2, 2, 2});
    Labels b = make_volume<std::uint8_t>({2, 2, 3});
    CHECK_THROWS_WITH_AS(score_case(a, b, {}, 2),
                         "segmed: score: a prediction of 2x2x2 does not fit a truth of 2x2x3",
                         ShapeError);
    b = a;
    b.voxels[3] = 2;
    CHECK_THROWS_WITH_AS(
        score_case(b, a, {}, 2),
        "segmed: score: the prediction has label 2 in 1 voxels, but there are 2 classes",
        DataError);
    CHECK_THROWS_WITH_AS(
        score_case(a, b, {}, 2),
        "segmed: score: the truth has label 2 in 1 voxels, but there are 2 classes", DataError);
    b = make_volume<std::uint8_t>({2, 2, 2}, Geometry::of_spacing(1, 1, 2));
    CHECK_THROWS_AS(score_case(a, b, {}, 2), DataError);
    b = a;
    b.voxels.pop_back();
    CHECK_THROWS_AS(score_case(a, b, {}, 2), ShapeError);
  }
  TEST_CASE("percentiles are NumPy's") {
    // numpy.percentile([7, 1, 3, 10, 4], [0, 25, 50, 95, 100])
    const std::vector<double> values{7, 1, 3, 10, 4};
    CHECK(percentile(values, 0) == 1);
    CHECK(percentile(values, 25) == 3);
    CHECK(percentile(values, 50) == 4);
    CHECK(percentile(values, 95) == doctest::Approx(9.4));
    CHECK(percentile(values, 100) == 10);
    CHECK(std::isnan(percentile({}, 50)));
  }
}
