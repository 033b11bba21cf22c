// SPDX-License-Identifier: Apache-2.0
#include "check.hpp"
#include <segmed/autograd/normalize.hpp>
#include <segmed/autograd/warp.hpp>

TEST_SUITE_BEGIN("autograd/warp");
using namespace check;

namespace {

/// Random displacements of at most `most` voxels, the same in float and double.
template <class F>
F wandering(const Grid& grid, float most) {
  return scaled(random_map<F>(grid.with_channels(Index(F::dim)), 50), double(most));
}
/// x at displaced positions, by plain loops.
template <class F>
std::vector<double> read_at(const F& x, const F& by, double farthest) {
  const Grid g = x.grid();
  const auto from = x.dense().value.host(), d = by.dense().value.host();
  const Index e[3] = {g.depth, g.height, g.width}, axes = Index(F::dim);
  std::vector<double> out;
  for (Index n = 0; n < g.cases; ++n)
    for (Index v = 0; v < g.voxels(); ++v) {
      double at[3] = {double(v / e[2] / e[1]), double(v / e[2] % e[1]), double(v % e[2])};
      for (Index a = 3 - axes; a < 3; ++a) {
        const double move = double(d[std::size_t((n * g.voxels() + v) * axes + a - 3 + axes)]);
        at[a] = std::clamp(at[a] + std::clamp(move, -farthest, farthest), 0.0, double(e[a] - 1));
      }
      for (Index c = 0; c < g.channels; ++c) {
        double total = 0;
        for (Index u = 0; u < g.voxels(); ++u) {  // a hat around each input voxel
          const double p[3] = {double(u / e[2] / e[1]), double(u / e[2] % e[1]), double(u % e[2])};
          double weight = 1;
          for (int a = 0; a < 3; ++a) weight *= std::max(0.0, 1 - std::abs(at[a] - p[a]));
          total += weight * double(from[std::size_t((n * g.voxels() + u) * g.channels + c)]);
        }
        out.push_back(total);
      }
    }
  return out;
}
template <class F>
double worst_distance(const Grid& grid, float most, float farthest) {
  const F x = random_map<F>(grid, 1), by = wandering<F>(grid, most);
  const auto ours = warp(x, by, farthest).dense().value.host();
  const auto expected = read_at(x, by, double(farthest));
  double worst = 0;
  for (std::size_t i = 0; i < ours.size(); ++i)
    worst = std::max(worst, std::abs(double(ours[i]) - expected[i]));
  return worst;
}
template <class F>
double gradient_of(const Grid& grid, float most, float farthest) {
  const F by = wandering<F>(grid, most);
  return worst_gradient<F>({grid}, {}, [&](const auto& x, const auto&) {
    return warp(leaky_relu(x[0], 0.2), by, farthest);
  });
}

}  // namespace

TEST_CASE("a warped map is the sum of hats at displaced positions") {
  CHECK(worst_distance<Map3>({2, 5, 6, 7, 2}, 3, 4) < 1e-12);
  CHECK(worst_distance<Map3>({1, 5, 6, 7, 2}, 30, 2.5f) < 1e-12);  // cut off
  CHECK(worst_distance<Map2>({2, 1, 9, 7, 3}, 5, 5) < 1e-12);
  CHECK(worst_distance<Single3>({1, 5, 6, 7, 2}, 3, 4) < 1e-5);
}

TEST_CASE("the gradient of a warp is that of central differences, across tiles too") {
  CHECK(gradient_of<Map3>({2, 3, 4, 5, 2}, 2, 2) < 1e-7);
  CHECK(gradient_of<Map3>({1, 2, 10, 34, 1}, 3, 3) < 1e-7);
  CHECK(gradient_of<Map3>({1, 4, 4, 9, 1}, 40, 8) < 1e-7);  // most land on an edge
  CHECK(gradient_of<Map2>({2, 1, 35, 9, 1}, 5, 6) < 1e-7);
}

TEST_CASE("no displacement changes nothing, and a whole one moves voxels") {
  const Grid grid{1, 3, 4, 5, 2};
  const Single3 x = random_map<Single3>(grid, 3);
  const auto moved = [&](float z, float y, float w) {
    std::vector<float> by;
    for (Index v = 0; v < grid.voxels(); ++v) by.insert(by.end(), {z, y, w});
    return warp(x, Single3(grid.with_channels(3), Storage<float, Cpu>(by)), 4).dense().value.host();
  };
  const auto still = x.dense().value.host(), shifted = moved(0, 0, 2);
  CHECK(moved(0, 0, 0) == still);
  for (Index v = 0; v < grid.voxels(); ++v)
    for (Index c = 0; c < 2; ++c) {
      const Index from = v - v % 5 + std::min<Index>(4, v % 5 + 2);  // the edge is repeated
      CHECK(shifted[std::size_t(2 * v + c)] == still[std::size_t(2 * from + c)]);
    }
}

TEST_CASE("the size of the tiles changes no bit") {
  const Grid grid{2, 9, 17, 13, 3};
  const auto g = random_map<Single3>(grid, 5), by = wandering<Single3>(grid, 3);
  const WarpField<float> field{grid, by.data(), 3, 2.5f};
  const auto pulled = [&](auto pull) {
    Storage<float, Cpu> sums(grid.size()), gx(grid.size());
    pull.field = field, pull.g = g.data(), pull.sums = sums.write(), pull.gx = gx.write();
    Cpu::launch_blocks(pull.items(grid), pull);
    return gx.host();
  };
  const auto large = pulled(WarpPull<float, 32>{});
  CHECK(pulled(WarpPull<float, 8>{}) == large);
  CHECK(pulled(WarpPull<float, 3>{}) == large);
}

TEST_CASE("a warp has the same bits for 1, 2 and 4 threads") {
  const Grid grid{2, 17, 19, 13, 3};
  const auto by = wandering<Single3>(grid, 3);
  CHECK(same_for_threads<Single3>({grid}, {},
                                  [&](const auto& x, const auto&) { return warp(x[0], by, 3); }));
}

TEST_CASE("a displacement that does not fit is said with its numbers") {
  const auto x = random_map<Single3>({1, 2, 2, 2, 1}, 1);
  CHECK_THROWS_WITH_AS(warp(x, x, 1),
                       "segmed: warp: displacement (1, 2, 2, 2, 1) does not fit (1, 2, 2, 2, 1); "
                       "give it one channel per axis",
                       ShapeError);
  CHECK_THROWS_AS(warp(x, wandering<Single3>(x.grid(), 1), -1), ConfigError);
}

TEST_SUITE_END();
