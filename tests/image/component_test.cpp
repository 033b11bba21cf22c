// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include <doctest/doctest.h>

#include "files.hpp"
#include <segmed/core/random.hpp>
#include <segmed/image/component.hpp>

using namespace segmed;
using namespace segmed_test;

namespace {

const Connectivity all[] = {Connectivity::faces, Connectivity::edges, Connectivity::corners};

std::vector<std::uint8_t> random_mask(const Extent3& e, double density, std::uint32_t stream) {
  std::vector<std::uint8_t> mask;
  for (Index v = 0; v < e[0] * e[1] * e[2]; ++v) {
    const bool set = Philox{5, Purpose::sample, stream}.uniform(v) < float(density);
    mask.push_back(set ? std::uint8_t(1 + v % 255) : std::uint8_t(0));
  }
  return mask;
}

/// Each piece flooded from its first voxel.
std::vector<std::int32_t> flooded(const std::vector<std::uint8_t>& mask, const Extent3& e,
                                  Connectivity c) {
  const Index most = c == Connectivity::faces ? 1 : c == Connectivity::edges ? 2 : 3;
  std::vector<std::int32_t> labels(mask.size());
  std::int32_t count = 0;
  for (Index seed = 0; seed < Index(mask.size()); ++seed) {
    std::vector<Index> piece;
    const auto take = [&](Index x, Index y, Index z) {
      if (std::min({x, y, z}) < 0 || x >= e[0] || y >= e[1] || z >= e[2]) return;
      const Index v = (z * e[1] + y) * e[0] + x;
      if (mask[std::size_t(v)] == 0 || labels[std::size_t(v)] != 0) return;
      labels[std::size_t(v)] = count + 1;
      piece.push_back(v);
    };
    take(seed % e[0], seed / e[0] % e[1], seed / e[0] / e[1]);
    for (std::size_t i = 0; i < piece.size(); ++i)
      for (Index n = 0; n < 27; ++n) {
        const Index step[3] = {n % 3 - 1, n / 3 % 3 - 1, n / 9 - 1};
        if (std::abs(step[0]) + std::abs(step[1]) + std::abs(step[2]) > most) continue;
        take(piece[i] % e[0] + step[0], piece[i] / e[0] % e[1] + step[1],
             piece[i] / e[0] / e[1] + step[2]);
      }
    if (!piece.empty()) ++count;
  }
  return labels;
}

}  // namespace

TEST_SUITE("image/component") {
  TEST_CASE("pieces are those of a flood, for masks of any density and any number of threads") {
    const int before = threads();
    for (const Extent3& e : {Extent3{11, 9, 7}, Extent3{70, 40, 1}, Extent3{1, 5, 90},
                             Extent3{129, 3, 40}, Extent3{64, 67, 3}, Extent3{1, 1, 1}})
      for (const double density : {0.0, 0.05, 0.15, 0.3, 0.5, 0.8, 1.0})
        for (const Connectivity c : all) {
          CAPTURE(e[0]);
          CAPTURE(density);
          CAPTURE(int(c));
          const auto mask = random_mask(e, density, std::uint32_t(e[0]));
          const auto expected = flooded(mask, e, c);
          for (const int count : {1, 2, 4}) {
            set_threads(count);
            const auto found = label_components(mask, e, c);
            CHECK(found.labels == expected);
            REQUIRE(found.count() == *std::max_element(expected.begin(), expected.end()));
            for (Index k = 0; k <= found.count(); ++k)
              CHECK(found.sizes[std::size_t(k)] ==
                    std::count(expected.begin(), expected.end(), std::int32_t(k)));
          }
          // The largest piece, of equal ones the first.
          const auto largest = largest_component(mask, e);
          const auto corners = label_components(mask, e);
          const auto& sizes = corners.sizes;
          std::int32_t best = 1;
          for (std::size_t k = 2; k < sizes.size(); ++k)
            if (sizes[k] > sizes[std::size_t(best)]) best = std::int32_t(k);
          bool same = true;
          for (std::size_t v = 0; v < mask.size(); ++v)
            same &= largest[v] == (corners.labels[v] == best);
          CHECK(same);
        }
    set_threads(before);
  }
  TEST_CASE("a winding line is one piece, and neighbours by edge or corner as asked") {
    // A snail along x and y, whose ends are found to be one only at the very last.
    const Extent3 e{9, 9, 1};
    std::vector<std::uint8_t> comb(81, 1);
    for (std::size_t y = 0; y < 8; ++y)
      for (std::size_t x = 1; x < 9; x += 2) comb[9 * y + x] = 0;
    const auto one = label_components(comb, e, Connectivity::faces);
    CHECK(one.sizes == std::vector<Index>{32, 49});
    const std::vector<std::uint8_t> edge = {1, 0, 0, 1, 0, 0, 0, 0},
                                    corner = {1, 0, 0, 0, 0, 0, 0, 1};
    const Index by_edge[] = {2, 1, 1}, by_corner[] = {2, 2, 1};
    for (int i = 0; i < 3; ++i) {
      CHECK(label_components(edge, {2, 2, 2}, all[i]).count() == by_edge[i]);
      CHECK(label_components(corner, {2, 2, 2}, all[i]).count() == by_corner[i]);
    }
  }
  TEST_CASE("what cannot be is refused with its numbers") {
    CHECK_THROWS_WITH_AS(label_components({1, 0, 1}, {2, 2, 1}),
                         "segmed: component: a mask of 3 voxels is not 2x2x1", ShapeError);
    CHECK_THROWS_WITH_AS(label_components({}, {0, 1, 1}),
                         "segmed: component: a mask of 0 voxels is not 0x1x1", ShapeError);
    CHECK_THROWS_WITH_AS(label_components({1}, {1, 1, 1}, Connectivity(8)),
                         "segmed: component: connectivity 8 is none of 6, 18 and 26", ConfigError);
  }
  TEST_CASE("scipy gives the same numbers") {
    const Folder folder;
    if (!python_has(folder, "scipy.ndimage")) {
      MESSAGE("skipped: /usr/bin/python3 has no scipy");
      return;
    }
    const Extent3 e{37, 29, 23};
    for (const double density : {0.1, 0.25, 0.4, 0.7}) {
      const auto mask = random_mask(e, density, 7);
      put_file(folder / "mask.u8", mask);
      REQUIRE(python(folder,
                     "import sys, numpy as np, scipy.ndimage as nd\n"
                     "m = np.fromfile(sys.argv[1] + '/mask.u8', np.uint8).reshape(23, 29, 37)\n"
                     "for k in (1, 2, 3):\n"
                     "  nd.label(m, nd.generate_binary_structure(3, k))[0].astype(float)"
                     ".tofile(sys.argv[1] + '/labels%d' % k)\n",
                     folder.path));
      for (int k = 0; k < 3; ++k) {
        const auto labels = label_components(mask, e, all[k]).labels;
        CHECK(std::vector<double>(labels.begin(), labels.end()) ==
              get_doubles(folder / ("labels" + std::to_string(k + 1))));
      }
    }
  }
}
