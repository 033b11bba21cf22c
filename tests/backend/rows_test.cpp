// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include <doctest/doctest.h>

#include "views.hpp"
#include <segmed/backend/cpu.hpp>

namespace {
using namespace check;

const std::vector<Grid>& grids() {
  static const std::vector<Grid> all = {{2, 5, 6, 7, 3},   {1, 9, 11, 13, 16}, {3, 1, 30, 20, 21},
                                        {1, 2, 3, 4, 130}, {1, 8, 8, 8, 1},    {2, 7, 5, 3, 8},
                                        {1, 4, 5, 6, 24},  {1, 3, 9, 5, 12}};
  return all;
}

}  // namespace

TEST_SUITE("backend/rows") {
  TEST_CASE_TEMPLATE("apply writes what readers see, with moments", T, float, double) {
    for (const Grid& grid : grids()) {
      CAPTURE(grid);
      const View<T> a(grid, 1), b(grid.with_channels((grid.channels + 1) / 2), 5),
          c(grid.with_channels(grid.channels / 2), 9, false);
      Reader<T> one, two;
      one.lane[0] = a.lane, two.lane[0] = b.lane;
      if (c.lane.grid.channels) two.lane[1] = c.lane;
      for (const bool sum : {false, true}) {
        const Reader<T>* const other = sum ? &two : nullptr;
        std::vector<T> expected, y(std::size_t(grid.size()));
        std::vector<double> sums(std::size_t(2 * grid.pairs())), moments(sums.size(), 9.0);
        for (Index n = 0; n < grid.cases; ++n)
          for (Index v = 0; v < grid.voxels(); ++v)
            for (Index k = 0; k < grid.channels; ++k) {
              const At at{n, v, k};
              expected.push_back(other ? T(one(at) + two(at)) : one(at));
              const double value = double(expected.back());
              sums[std::size_t(2 * grid.pair(at))] += value;
              sums[std::size_t(2 * grid.pair(at) + 1)] += value * value;
            }
        set_threads(1);
        Cpu::apply(one, other, y.data(), moments.data());
        CHECK(same_bits(y, expected));
        CHECK(distance(moments, sums) < (sizeof(T) == 4 ? 5e-6 : 1e-11));
        for (const int count : {2, 4}) {
          std::vector<T> z(y.size());
          std::vector<double> more(sums.size());
          set_threads(count);
          Cpu::apply(one, other, z.data(), more.data());
          CHECK(same_bits(z, y));
          CHECK(same_bits(more, moments));
        }
        Lane<T> lane;
        lane.grid = grid, lane.x = y.data();
        std::vector<double> alone(sums.size());
        Cpu::moments(lane, alone.data());
        CHECK(same_bits(alone, moments));
      }
    }
  }
  TEST_CASE_TEMPLATE("moments tell the variance of numbers that are far from zero", T, float,
                     double) {
    const Grid grid{1, 10, 20, 30, 19};
    std::vector<T> x = random<T>(grid.size(), 3);
    for (T& value : x) value += T(1000);
    Lane<T> lane;
    lane.grid = grid, lane.x = x.data();
    std::vector<double> moments(std::size_t(2 * grid.channels));
    Cpu::moments(lane, moments.data());
    for (std::size_t c = 0; c < std::size_t(grid.channels); ++c) {
      const double count = double(grid.voxels()), mean = moments[2 * c] / count;
      double variance = 0;
      for (Index v = 0; v < grid.voxels(); ++v) {
        const double d = double(x[std::size_t(v * grid.channels) + c]) - mean;
        variance += d * d / count;
      }
      CHECK(moments[2 * c + 1] / count - mean * mean == doctest::Approx(variance).epsilon(1e-4));
    }
  }
  TEST_CASE_TEMPLATE("spread carries gradients through a view", T, float, double) {
    for (const Grid& grid : grids())
      for (const bool pending : {true, false}) {
        CAPTURE(grid);
        const View<T> view(grid, 1, pending);
        const std::vector<T> seen = random<T>(grid.size(), 20), start = random<T>(grid.size(), 21);
        std::vector<T> raw, expected = start;
        std::vector<double> sums[3], totals[3];
        for (auto& s : totals) s.assign(std::size_t(grid.pairs()), 0.5);
        for (Index n = 0; n < grid.cases; ++n)
          for (Index v = 0; v < grid.voxels(); ++v)
            for (Index c = 0; c < grid.channels; ++c) {
              const At at{n, v, c};
              const auto i = std::size_t(grid.index(at)), p = std::size_t(grid.pair(at));
              const T leaked = view.lane.through_leak(at, seen[i]);
              expected[i] = std::fma(leaked, pending ? view.scale[p] : T(1), start[i]);
              totals[0][p] += double(leaked) * double(view.x[i]);
              totals[1][p] += double(leaked);
              const T z = view.lane.before_leak(at);
              if (z <= 0) totals[2][p] += double(seen[i]) * double(z);
            }
        for (const int count : {1, 2, 4}) {
          set_threads(count);
          std::vector<T> again = start;
          std::vector<double> more[3];
          for (auto& s : more) s.assign(std::size_t(grid.pairs()), 0.5);
          Cpu::spread(view.lane, seen.data(), again.data(), more[0].data(), more[1].data(),
                      more[2].data());
          CHECK(same_bits(again, expected));
          for (int k = 0; k < 3; ++k) {
            CHECK(distance(more[k], totals[k]) < (sizeof(T) == 4 ? 5e-6 : 1e-11));
            if (count > 1) CHECK(same_bits(more[k], sums[k]));
            sums[k] = more[k];
          }
        }
        std::vector<double> shift(std::size_t(grid.pairs()), 0.5);
        Cpu::spread(view.lane, seen.data(), static_cast<T*>(nullptr), nullptr, shift.data(),
                    nullptr);
        CHECK(same_bits(shift, sums[1]));
      }
  }
  TEST_CASE_TEMPLATE("an incoming gradient is summed, and added to both parts", T, float, double) {
    for (const Grid& grid : grids())
      for (int mode = 0; mode < 8; ++mode) {
        CAPTURE(grid);
        CAPTURE(mode);
        const View<T> view(grid, 1, mode % 2 == 0);
        const std::vector<T> direct = random<T>(grid.size(), 20), seen = random<T>(grid.size(), 21);
        const std::vector<double> moments = random<double>(2 * grid.pairs(), 22);
        Incoming<T> g;
        g.view = view.lane;
        if (mode != 3) g.direct = direct.data();
        if (mode != 5) g.seen = seen.data();
        if (mode != 7) g.moments = moments.data();
        Sink<T> sink;
        sink.add[0] = mode < 6, sink.add[1] = mode < 4;
        std::vector<T> out[2], expected[2];
        for (int i = 0; i < 2; ++i) {
          const Index first = (2 * grid.channels + 2) / 3;
          sink.grid[i] = grid.with_channels(i ? grid.channels - first : first);
          expected[i] = out[i] = random<T>(sink.grid[i].size(), 30);
          sink.out[i] = expected[i].data();
        }
        for (Index n = 0; n < grid.cases; ++n)
          for (Index v = 0; v < grid.voxels(); ++v)
            for (Index c = 0; c < grid.channels; ++c) sink({n, v, c}, g({n, v, c}));
        for (int i = 0; i < 2; ++i) sink.out[i] = out[i].data();
        if (mode == 1) sink.out[0] = nullptr, expected[0] = out[0];
        std::vector<T> totals = random<T>(grid.channels, 40);
        std::vector<double> sums(totals.begin(), totals.end());
        for (Index n = 0; n < grid.cases; ++n)
          for (Index v = 0; v < grid.voxels(); ++v)
            for (Index c = 0; c < grid.channels; ++c) sums[std::size_t(c)] += double(g({n, v, c}));
        Cpu::total(g, totals.data());
        for (std::size_t c = 0; c < sums.size(); ++c)
          CHECK(double(totals[c]) ==
                doctest::Approx(sums[c]).epsilon(sizeof(T) == 4 ? 1e-5 : 1e-11));
        Cpu::deposit(g, sink);
        CHECK(same_bits(out[0], expected[0]));
        if (!out[1].empty()) CHECK(same_bits(out[1], expected[1]));
      }
  }
  // The larger grid is written past the caches, in whole vectors.
  TEST_CASE_TEMPLATE("a map is written straight into memory, however large", T, float, double) {
    for (const Grid& grid : {Grid{2, 5, 6, 7, 32}, Grid{1, 64, 64, 32, 32}, Grid{1, 9, 8, 7, 70}}) {
      CAPTURE(grid);
      const View<T> view(grid, 1);
      const std::vector<T> seen = random<T>(grid.size(), 20);
      const std::vector<double> moments = random<double>(2 * grid.pairs(), 22);
      Reader<T> reader;
      reader.lane[0] = view.lane;
      Incoming<T> g;
      g.view = view.lane, g.seen = seen.data(), g.moments = moments.data();
      const Scratch<T> values(grid.size()), slopes(grid.size());
      Sink<T> sink;
      sink.grid[0] = grid, sink.out[0] = slopes.data();
      for (const int count : {1, 2}) {
        set_threads(count);
        std::fill_n(values.data(), grid.size(), T(-9)),
            std::fill_n(slopes.data(), grid.size(), T(-9));
        Cpu::apply<T>(reader, nullptr, values.data(), nullptr);
        Cpu::deposit(g, sink);
        Index wrong = 0;
        for (Index row = 0; row < grid.rows(); ++row)
          for (Index c = 0; c < grid.channels; ++c) {
            const At at = grid.at(row, c);
            const Index i = grid.index(at);
            if (values.data()[i] != reader(at) || slopes.data()[i] != g(at)) ++wrong;
          }
        CHECK(wrong == 0);
      }
    }
  }
}
