// SPDX-License-Identifier: Apache-2.0
// The passes over feature maps by teams against those of the processor, on the same memory.
#include <doctest/doctest.h>

#include "teamed_host.hpp"
#include "views.hpp"
#include <segmed/core/bfloat16.hpp>

TEST_SUITE_BEGIN("backend/team_rows");
using namespace check;

namespace {

const std::vector<Grid>& grids() {
  static const std::vector<Grid> all = {{2, 5, 6, 7, 3},   {1, 9, 11, 13, 1}, {1, 3, 11, 13, 16},
                                        {2, 1, 9, 20, 11}, {1, 3, 5, 7, 32},  {2, 3, 5, 5, 33},
                                        {1, 8, 9, 10, 8},  {1, 2, 3, 4, 130}, {1, 3, 3, 3, 320}};
  return all;
}
// Runs `work` twice, in both orders of threads and teams, and says whether it gave the same.
template <class Work>
auto both_ways(Work work) {
  auto result = work();
  TeamedHost::reversed = true;
  const auto again = work();
  TeamedHost::reversed = false;
  CHECK(result == again);
  return result;
}

/// How near the processor's sums are, which adds some floats before it goes on in double.
template <class T>
constexpr double as_sums = sizeof(T) == 4 ? 5e-6 : 1e-11;

}  // namespace

TEST_CASE_TEMPLATE("apply writes what readers see, with moments", T, float, double) {
  for (const Grid& grid : grids())
    for (const Index shifted : {0, 1}) {
      CAPTURE(grid);
      const Index half = grid.channels % 8 == 0 ? grid.channels / 2 : (grid.channels + 1) / 2;
      const View<T> a(grid, 1, true, shifted), b(grid.with_channels(half), 5),
          c(grid.with_channels(grid.channels - half), 9, false);
      Reader<T> one, two;
      one.lane[0] = a.lane, two.lane[0] = b.lane;
      if (c.lane.grid.channels) two.lane[1] = c.lane;
      for (const Reader<T>* other : {static_cast<const Reader<T>*>(nullptr), &std::as_const(two)})
        for (const bool summed : {false, true}) {
          std::vector<T> expected(std::size_t(grid.size()));
          std::vector<double> sums(std::size_t(summed ? 2 * grid.pairs() : 0)), moments = sums;
          Cpu::apply(one, other, expected.data(), summed ? sums.data() : nullptr);
          const auto y = both_ways([&] {
            std::vector<T> values(expected.size(), T(7));
            TeamedHost::apply(one, other, values.data(), summed ? moments.data() : nullptr);
            return std::pair(values, moments);
          });
          CHECK(y.first == expected);
          CHECK(distance(y.second, sums) < as_sums<T>);
        }
      Lane<T> lane;
      lane.grid = grid, lane.x = a.lane.x;
      std::vector<double> sums(std::size_t(2 * grid.pairs())), moments = sums;
      Cpu::moments(lane, sums.data());
      CHECK(distance(both_ways([&] {
                       TeamedHost::moments(lane, moments.data());
                       return moments;
                     }),
                     sums) < as_sums<T>);
    }
}

TEST_CASE("moments of numbers far from zero keep their variance") {
  const Grid grid{1, 16, 32, 32, 4};
  std::vector<float> x = random<float>(grid.size(), 3);
  for (float& value : x) value = 3000 + value;
  Lane<float> lane;
  lane.grid = grid, lane.x = x.data();
  std::vector<double> moments(8);
  TeamedHost::moments(lane, moments.data());
  for (std::size_t c = 0; c < 4; ++c) {
    double mean = 0, variance = 0;
    const double count = double(grid.voxels());
    for (std::size_t i = c; i < x.size(); i += 4) mean += double(x[i]) / count;
    for (std::size_t i = c; i < x.size(); i += 4)
      variance += (double(x[i]) - mean) * (double(x[i]) - mean) / count;
    const double ours = moments[2 * c] / count;
    CHECK(moments[2 * c + 1] / count - ours * ours == doctest::Approx(variance).epsilon(1e-6));
  }
}

TEST_CASE("maps of Bfloat16 are read in packs of eight and of one") {
  using T = Bfloat16;
  for (const Grid& grid : {Grid{2, 3, 5, 7, 16}, Grid{1, 3, 5, 7, 12}, Grid{2, 3, 5, 7, 11}}) {
    CAPTURE(grid);
    const auto drawn = [&](std::uint32_t stream) {
      std::vector<T> x;
      for (const float value : random<float>(grid.size(), stream)) x.emplace_back(value);
      return x;
    };
    const auto x = drawn(1), seen = drawn(2), start = drawn(3);
    const auto scale = random<float>(grid.pairs(), 4), shift = random<float>(grid.pairs(), 5);
    Lane<T> lane;
    lane.grid = grid, lane.x = x.data(), lane.leak = 0.1f;
    lane.scale = scale.data(), lane.shift = shift.data();
    Reader<T> reader;
    reader.lane[0] = lane;
    Incoming<T> g;
    g.view = lane, g.direct = start.data(), g.seen = seen.data();
    std::vector<T> y = start, raw = start, out = start, expected[3] = {start, start, start};
    std::vector<double> sums(std::size_t(2 * grid.pairs())), slopes(std::size_t(grid.pairs()));
    std::vector<double> all(sums.size()), by_shift(slopes.size());
    std::vector<float> totals(std::size_t(grid.channels)), total(totals.size());
    for (Index row = 0; row < grid.rows(); ++row)
      for (Index c = 0; c < grid.channels; ++c) {
        const At at = grid.at(row, c);
        const auto i = std::size_t(grid.index(at)), pair = std::size_t(grid.pair(at));
        expected[0][i] = T(reader(at));
        expected[1][i] = T(float(start[i]) + lane.through(at, float(seen[i])));
        expected[2][i] = T(g(at));
        all[2 * pair] += double(float(x[i]));
        all[2 * pair + 1] += double(float(x[i])) * double(float(x[i]));
        by_shift[pair] += double(lane.through_leak(at, float(seen[i])));
        total[std::size_t(c)] += g(at);
      }
    Sink<T> sink;
    sink.grid[0] = grid, sink.out[0] = out.data();
    TeamedHost::apply(reader, static_cast<const Reader<T>*>(nullptr), y.data(), nullptr);
    TeamedHost::spread(lane, seen.data(), raw.data(), nullptr, slopes.data(), nullptr);
    TeamedHost::deposit(g, sink);
    TeamedHost::total(g, totals.data());
    TeamedHost::moments(lane, sums.data());
    CHECK(same_bits(y, expected[0]));
    CHECK(same_bits(out, expected[2]));
    CHECK(distance(sums, all) < 1e-11);
    CHECK(distance(slopes, by_shift) < 1e-11);
    CHECK(distance(totals, total) < 1e-5);
    // Rounded once after an fma, or twice.
    for (std::size_t i = 0; i < raw.size(); ++i)
      CHECK(std::abs(float(raw[i]) - float(expected[1][i])) <= 0.01f * std::abs(expected[1][i]));
  }
}

TEST_CASE_TEMPLATE("spread carries gradients through a view", T, float, double) {
  for (const Grid& grid : grids())
    for (int mode = 0; mode < 6; ++mode) {
      CAPTURE(grid);
      CAPTURE(mode);
      const View<T> view(grid, 1, mode % 2 == 0, mode == 4);
      const std::vector<T> seen = random<T>(grid.size(), 20), start = random<T>(grid.size(), 21);
      std::vector<T> expected = start;
      std::vector<double> totals[3];
      for (auto& s : totals) s.assign(std::size_t(grid.pairs()), 0.5);
      const auto run = [&](auto device, std::vector<T>& raw, std::vector<double>(&sums)[3]) {
        using D = decltype(device);
        D::spread(view.lane, seen.data(), mode == 5 ? nullptr : raw.data(),
                  mode < 3 ? sums[0].data() : nullptr, mode < 4 ? sums[1].data() : nullptr,
                  mode < 2 ? sums[2].data() : nullptr);
      };
      run(Cpu{}, expected, totals);
      const auto got = both_ways([&] {
        std::vector<T> raw = start;
        std::vector<double> sums[3];
        for (auto& s : sums) s.assign(std::size_t(grid.pairs()), 0.5);
        run(TeamedHost{}, raw, sums);
        return std::tuple(raw, sums[0], sums[1], sums[2]);
      });
      CHECK(std::get<0>(got) == expected);
      CHECK(distance(std::get<1>(got), totals[0]) < as_sums<T>);
      CHECK(distance(std::get<2>(got), totals[1]) < as_sums<T>);
      CHECK(distance(std::get<3>(got), totals[2]) < as_sums<T>);
    }
}

TEST_CASE_TEMPLATE("an incoming gradient is summed, and added to both parts", T, float, double) {
  for (const Grid& grid : grids())
    for (int mode = 0; mode < 8; ++mode) {
      CAPTURE(grid);
      CAPTURE(mode);
      const View<T> view(grid, 1, mode % 2 == 0, mode == 6);
      const std::vector<T> direct = random<T>(grid.size(), 20), seen = random<T>(grid.size(), 21);
      const std::vector<double> moments = random<double>(2 * grid.pairs(), 22);
      Incoming<T> g;
      g.view = view.lane;
      if (mode != 3) g.direct = direct.data();
      if (mode != 5) g.seen = seen.data();
      if (mode != 7) g.moments = moments.data();
      Sink<T> sink;
      sink.add[0] = mode < 6, sink.add[1] = mode < 4;
      std::vector<T> start[2], expected[2];
      for (int i = 0; i < 2; ++i) {
        const Index first =
            grid.channels % 16 == 0 ? grid.channels / 2 : (2 * grid.channels + 2) / 3;
        sink.grid[i] = grid.with_channels(i ? grid.channels - first : first);
        expected[i] = start[i] = random<T>(sink.grid[i].size(), 30);
        sink.out[i] = i == 1 && mode == 1 ? nullptr : expected[i].data();
      }
      Cpu::deposit(g, sink);
      const auto got = both_ways([&] {
        std::pair<std::vector<T>, std::vector<T>> out(start[0], start[1]);
        sink.out[0] = out.first.data();
        if (sink.out[1]) sink.out[1] = out.second.data();
        TeamedHost::deposit(g, sink);
        return out;
      });
      CHECK(got.first == expected[0]);
      CHECK(got.second == expected[1]);
      const std::vector<T> before = random<T>(grid.channels, 40);
      std::vector<T> totals = before;
      Cpu::total(g, totals.data());
      CHECK(distance(both_ways([&] {
                       std::vector<T> sums = before;
                       TeamedHost::total(g, sums.data());
                       return sums;
                     }),
                     totals) < (sizeof(T) == 4 ? 2e-5 : 1e-11));
    }
}

TEST_SUITE_END();
