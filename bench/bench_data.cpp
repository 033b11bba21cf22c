// SPDX-License-Identifier: Apache-2.0
// Around the network: patches that are turned, scaled and displaced, two at once as a loader's
// threads make them, and label maps that are scored.
#include "workload.hpp"
#include <segmed/data/patch_reader.hpp>
#include <segmed/train/metrics.hpp>

namespace {
using namespace segmed;

constexpr Index patches = 2;

struct Augmented {
  Example example;
  Extent3 extent;
  std::array<std::uint8_t, 256> same{};
  std::vector<float> outside = {0};
  std::vector<Placement> placements;
  std::vector<float> image[patches];
  std::vector<std::uint8_t> labels[patches];

  Augmented(Index size, bool elastic) : extent{size, size, size} {
    const Index whole = size * 5 / 3;
    example.image = make_volume<float>({whole, whole, whole});
    example.image.voxels = bench::normal_numbers(example.image.size());
    example.labels = make_volume<std::uint8_t>({whole, whole, whole});
    example.labels.voxels = bench::random_labels(example.labels.size(), 3);
    for (std::size_t label = 0; label < 256; ++label) same[label] = std::uint8_t(label);
    Augment augment = Augment::none();
    augment.turn_chance = augment.scale_chance = 1;
    augment.elastic_chance = elastic ? 1 : 0;
    for (Index p = 0; p < patches; ++p) {
      placements.push_back(
          Placement::draw(augment, extent, {1, 1, 1}, {1, Purpose::augment}, p << 20));
      placements.back().center.fill(float(whole - 1) / 2);
    }
  }
  void read() {
    parallel_for(patches, 1, [&](Index begin, Index end) {
      for (Index p = begin; p < end; ++p)
        PatchReader(example, placements[std::size_t(p)], extent, outside, same)
            .read(image[p], labels[p]);
    });
  }

  /// Where a voxel of a patch lies in the scan, in double.
  std::array<double, 3> place(const Placement& from, const std::array<Index, 3>& voxel) const {
    double at[3];
    for (std::size_t k = 0; k < 3; ++k) at[k] = double(voxel[k]) - 0.5 * double(extent[k] - 1);
    if (!from.elastic.empty()) {
      double weight[3][4];
      Index first[3];
      for (std::size_t k = 0; k < 3; ++k) {
        const double u = (double(voxel[k]) + 0.5) * double(from.elastic.per_voxel[k]);
        first[k] = std::min(Index(u), from.elastic.points[k] - 4);
        const double t = u - double(first[k]), s = 1 - t;
        weight[k][0] = s * s * s / 6, weight[k][3] = t * t * t / 6;
        weight[k][1] = (3 * t * t * t - 6 * t * t + 4) / 6;
        weight[k][2] = (3 * s * s * s - 6 * s * s + 4) / 6;
      }
      for (int n = 0; n < 64; ++n) {
        const int i[3] = {n % 4, n / 4 % 4, n / 16};
        const Index point = ((first[2] + i[2]) * from.elastic.points[1] + first[1] + i[1]) *
                                from.elastic.points[0] +
                            first[0] + i[0];
        for (std::size_t k = 0; k < 3; ++k)
          at[k] += weight[0][i[0]] * weight[1][i[1]] * weight[2][i[2]] *
                   double(from.elastic.by[std::size_t(3 * point) + k]);
      }
    }
    std::array<double, 3> in_scan{};
    for (std::size_t k = 0; k < 3; ++k) {
      in_scan[k] = double(from.center[k]);
      for (std::size_t a = 0; a < 3; ++a) in_scan[k] += at[a] * double(from.step[a][k]);
    }
    return in_scan;
  }
  /// Some voxels beside the same in double.
  std::vector<bench::Check> checks(const std::string& what) {
    read();
    std::vector<double> made, truth;
    double wrong = 0;
    const Philox random{3, Purpose::statistics};
    for (Index sample = 0; sample < 5000; ++sample) {
      const auto p = std::size_t(sample % patches);
      std::array<Index, 3> voxel{};
      for (std::size_t k = 0; k < 3; ++k) voxel[k] = random.below(3 * sample + Index(k), extent[k]);
      const auto at = place(placements[p], voxel);
      Index low[3], near[3];
      double part[3];
      bool inside = true, tied = false;
      for (std::size_t k = 0; k < 3; ++k) {
        low[k] = Index(std::floor(at[k])), part[k] = at[k] - double(low[k]);
        inside = inside && low[k] >= 0 && low[k] + 1 < example.image.extent[k];
        tied = tied || std::abs(part[k] - 0.5) < 1e-3;
        near[k] = low[k] + (part[k] >= 0.5 ? 1 : 0);
      }
      if (!inside) continue;
      double value = 0;
      for (int corner = 0; corner < 8; ++corner) {
        double weight = 1;
        for (int k = 0; k < 3; ++k) weight *= (corner >> k & 1) != 0 ? part[k] : 1 - part[k];
        value += weight * double(example.image.at(low[0] + (corner & 1), low[1] + (corner >> 1 & 1),
                                                  low[2] + (corner >> 2 & 1)));
      }
      const auto i = std::size_t((voxel[2] * extent[1] + voxel[1]) * extent[0] + voxel[0]);
      made.push_back(double(image[p][i])), truth.push_back(value);
      if (!tied && labels[p][i] != example.labels.at(near[0], near[1], near[2])) ++wrong;
    }
    return {{what, bench::relative_error(made, truth), 1e-4}, {what + "'s labels", wrong, 0}};
  }
};

bench::Workload augmentation(const std::string& name, Index size, bool elastic) {
  const double voxels = double(patches) * std::pow(double(size), 3);
  return {name,
          [=] {
            const auto a = std::make_shared<Augmented>(size, elastic);
            return [a] { return bench::seconds_of([&] { a->read(); }); };
          },
          0,
          2 * 5 * voxels,
          {},
          [=] { return Augmented(size, elastic).checks(name); }};
}

struct Maps {
  Index classes;
  Volume<std::uint8_t> truth, predicted;

  Maps(Index count, Index size)
      : classes(count),
        truth(make_volume<std::uint8_t>({size, size, size})),
        predicted(make_volume<std::uint8_t>({size, size, size})) {
    truth.voxels = bench::random_labels(truth.size(), classes);
    // Right in half of the voxels.
    const auto other = bench::random_labels(2 * truth.size(), classes);
    for (std::size_t i = 0; i < truth.voxels.size(); ++i)
      predicted.voxels[i] = i % 2 ? truth.voxels[i] : other[truth.voxels.size() + i];
  }
  CaseScore score() const {
    return score_case(predicted, truth, AnnotatedSet::all(classes), classes, {.surfaces = false});
  }
};

bench::Workload dice_metric(Index classes, Index size) {
  const auto name = "BM_DiceMetric/" + std::to_string(classes) + "/" + std::to_string(size);
  return {name,
          [=] {
            const auto maps = std::make_shared<Maps>(classes, size);
            return [maps] { return bench::seconds_of([&] { maps->score(); }); };
          },
          0,
          2 * std::pow(double(size), 3),
          {},
          [=] {
            const Maps maps(classes, size);
            const CaseScore score = maps.score();
            std::vector<double> made, truth;
            for (Index c = 1; c < classes; ++c) {
              double both = 0, sum = 0;
              for (std::size_t i = 0; i < maps.truth.voxels.size(); ++i) {
                const bool a = maps.truth.voxels[i] == c, b = maps.predicted.voxels[i] == c;
                both += a && b ? 1 : 0, sum += (a ? 1 : 0) + (b ? 1 : 0);
              }
              made.push_back(score.classes[std::size_t(c)].dice), truth.push_back(2 * both / sum);
            }
            return std::vector<bench::Check>{{name, bench::relative_error(made, truth), 1e-12}};
          }};
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run_program(
      argc, argv, [] { return std::vector<bench::Check>{}; },
      {augmentation("BM_AugmentAffine/96/b2", 96, false),
       augmentation("BM_AugmentElastic/96/b2", 96, true), dice_metric(14, 128)});
}
