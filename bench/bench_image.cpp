// SPDX-License-Identifier: Apache-2.0
// What is computed on volumes: distances to a mask in mm, the pieces of one, another spacing.
#include "workload.hpp"
#include <segmed/image/component.hpp>
#include <segmed/image/distance.hpp>
#include <segmed/image/resample.hpp>

namespace {
using namespace segmed;

Geometry spaced(double x, double y, double z) {
  Geometry g;
  g.affine.diagonal() << x, y, z, 1;
  return g;
}
/// Some balls.
Volume<std::uint8_t> mask(Index extent, Index radius) {
  auto m = make_volume<std::uint8_t>({extent, extent, extent}, spaced(0.8, 0.8, 2.0));
  const Philox random{1, Purpose::phantom};
  for (Index ball = 0; ball < 6; ++ball) {
    Index c[3];
    for (Index a = 0; a < 3; ++a) c[a] = extent / 8 + random.below(3 * ball + a, extent * 3 / 4);
    for (Index z = 0; z < extent; ++z)
      for (Index y = 0; y < extent; ++y)
        for (Index x = 0; x < extent; ++x) {
          const Index d[3] = {x - c[0], y - c[1], z - c[2]};
          if (d[0] * d[0] + d[1] * d[1] + d[2] * d[2] < radius * radius) m.at(x, y, z) = 1;
        }
  }
  return m;
}
Volume<float> scan(Index extent) {
  auto v = make_volume<float>({extent, extent, extent}, spaced(1, 1, 1));
  v.voxels = bench::normal_numbers(v.size());
  return v;
}

/// Three waves and some noise above a threshold: about a third of the voxels, large pieces with
/// ragged borders. A peer has the same by
///
///   sin(0.19 x) + sin(0.23 y + 1) + sin(0.17 z + 2) + 0.8 hash / 2^32 > 1
///   hash = (73856093 x ^ 19349663 y ^ 83492791 z) * 2654435761 in 32 bits without sign
std::vector<std::uint8_t> ragged_mask(Index extent) {
  std::vector<std::uint8_t> set;
  for (Index z = 0; z < extent; ++z)
    for (Index y = 0; y < extent; ++y)
      for (Index x = 0; x < extent; ++x) {
        const std::uint32_t hash = (std::uint32_t(x) * 73856093u ^ std::uint32_t(y) * 19349663u ^
                                    std::uint32_t(z) * 83492791u) *
                                   2654435761u;
        const double waves = std::sin(0.19 * double(x)) + std::sin(0.23 * double(y) + 1) +
                             std::sin(0.17 * double(z) + 2);
        set.push_back(waves + 0.8 * double(hash) / 4294967296.0 > 1);
      }
  return set;
}

/// Voxels whose pieces are not those that neighbours agree on, when each takes the smallest number
/// around it again and again.
double components_error() {
  const Index n = 24;
  const auto mask = ragged_mask(n);
  std::vector<Index> first(mask.size());
  for (std::size_t v = 0; v < mask.size(); ++v) first[v] = Index(v);
  for (bool changed = true; changed;) {
    changed = false;
    for (Index v = 0; v < n * n * n; ++v)
      for (Index k = 0; k < 27 && mask[std::size_t(v)]; ++k) {
        const Index at[3] = {v % n + k % 3 - 1, v / n % n + k / 3 % 3 - 1, v / n / n + k / 9 - 1};
        if (*std::min_element(at, at + 3) < 0 || *std::max_element(at, at + 3) >= n) continue;
        const auto other = std::size_t((at[2] * n + at[1]) * n + at[0]);
        if (!mask[other] || first[other] >= first[std::size_t(v)]) continue;
        first[std::size_t(v)] = first[other], changed = true;
      }
  }
  const auto labels = label_components(mask, {n, n, n}).labels;
  std::int32_t count = 0;
  double wrong = 0;
  for (std::size_t v = 0; v < mask.size(); ++v)
    wrong += labels[v] != (mask[v] == 0           ? 0
                           : first[v] == Index(v) ? ++count
                                                  : labels[std::size_t(first[v])]);
  return wrong;
}

double distance_error() {
  const auto m = mask(15, 2);
  const auto made = distance_transform(m);
  std::vector<double> truth;
  const Eigen::Vector3d step = m.spacing();
  for (Index i = 0; i < m.size(); ++i) {
    double best = INFINITY;
    for (Index j = 0; j < m.size(); ++j) {
      if (m.voxels[std::size_t(j)] == 0) continue;
      const double d[3] = {step[0] * double(i % 15 - j % 15),
                           step[1] * double(i / 15 % 15 - j / 15 % 15),
                           step[2] * double(i / 225 - j / 225)};
      best = std::min(best, d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
    }
    truth.push_back(std::sqrt(best));
  }
  return bench::relative_error(made.voxels, truth);
}
double resample_error() {
  const auto from = scan(12);
  const auto made = resample(from, {1.5, 1.5, 1.5}, Interpolation::linear);
  std::vector<double> truth;
  // The k-th voxel's center lies 1.5 k + 0.25 voxels from the first voxel's center.
  const auto place = [](Index k) { return 1.5 * double(k) + 0.25; };
  for (Index z = 0; z < 8; ++z)
    for (Index y = 0; y < 8; ++y)
      for (Index x = 0; x < 8; ++x) {
        double value = 0;
        for (int corner = 0; corner < 8; ++corner) {
          double weight = 1;
          Index at[3];
          for (int a = 0; a < 3; ++a) {
            const double p = place(a == 0 ? x : a == 1 ? y : z), part = p - std::floor(p);
            const bool high = (corner >> a & 1) != 0;
            weight *= high ? part : 1 - part;
            at[a] = Index(p) + (high ? 1 : 0);
          }
          value += weight * double(from.at(at[0], at[1], at[2]));
        }
        truth.push_back(value);
      }
  return bench::relative_error(made.voxels, truth);
}
std::vector<bench::Check> checks() {
  return {{"distance_transform", distance_error(), 1e-6},
          {"label_components", components_error(), 0},
          {"resample", resample_error(), 1e-6}};
}

bench::Run distances(Index extent) {
  return [m = std::make_shared<Volume<std::uint8_t>>(mask(extent, extent / 10))] {
    return bench::seconds_of([&] { distance_transform(*m); });
  };
}
bench::Run components(Index extent) {
  return [extent, mask = ragged_mask(extent)] {
    return bench::seconds_of([&] { label_components(mask, {extent, extent, extent}); });
  };
}
bench::Run resampled(Index extent) {
  return [v = std::make_shared<Volume<float>>(scan(extent))] {
    return bench::seconds_of([&] { resample(*v, {1.5, 1.5, 1.5}, Interpolation::linear); });
  };
}

}  // namespace

int main(int argc, char** argv) {
  const double voxels = 192.0 * 192 * 192;
  return bench::run_program(
      argc, argv, checks,
      {{"BM_DistanceTransform/192", [] { return distances(192); }, 0, 5 * voxels},
       {"BM_ConnectedComponents/192", [] { return components(192); }, 0, 5 * voxels},
       {"BM_ResampleCt/192", [] { return resampled(192); }, 0, 4 * voxels * (1 + 8.0 / 27)}});
}
