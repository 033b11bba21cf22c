// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/autograd/gradient_check.hpp>
#include <segmed/autograd/group.hpp>
#include <segmed/backend/cpu.hpp>
#include <segmed/losses/consistency.hpp>

using namespace segmed;

namespace {

using Map3 = Features<3, double, Cpu>;
using Map2 = Features<2, double, Cpu>;
using Single = Features<3, float, Cpu>;
const Grid grid{2, 2, 3, 5, 3};

std::vector<double> numbers(Index size, std::uint32_t stream, double scale = 2) {
  std::vector<double> out;
  for (Index i = 0; i < size; ++i)
    out.push_back(scale * double(Philox{4, Purpose::sample, stream}.normal(i)));
  return out;
}
template <class F>
F map_of(const Grid& on, const std::vector<double>& values, bool tracked = false) {
  std::vector<typename F::value_type> cast(values.begin(), values.end());
  return F(on, Storage<typename F::value_type, Cpu>(cast), tracked);
}
/// Probabilities of one voxel, from logits times a factor.
std::vector<double> softmax_at(const std::vector<double>& z, Index row, Index classes,
                               double factor = 1) {
  std::vector<double> p;
  double sum = 0;
  for (Index c = 0; c < classes; ++c)
    sum += p.emplace_back(std::exp(factor * z[std::size_t(row * classes + c)]));
  for (double& x : p) x /= sum;
  return p;
}

double divergence(const std::vector<std::vector<double>>& z, const Grid& on) {
  double sum = 0;
  for (Index row = 0; row < on.rows(); ++row) {
    const auto p = softmax_at(z[0], row, on.channels), q = softmax_at(z[1], row, on.channels);
    for (std::size_t c = 0; c < p.size(); ++c)
      sum += 0.5 * (p[c] * std::log(p[c] / q[c]) + q[c] * std::log(q[c] / p[c]));
  }
  return sum / double(on.rows());
}
double sharpened(const std::vector<std::vector<double>>& z, const Grid& on, double temperature) {
  double sum = 0;
  for (Index row = 0; row < on.rows(); ++row)
    for (std::size_t i = 0; i < z.size(); ++i)
      for (std::size_t j = 0; j < z.size(); ++j) {
        if (i == j) continue;
        const auto p = softmax_at(z[i], row, on.channels);
        auto q = softmax_at(z[j], row, on.channels);
        double total = 0;
        for (double& x : q) total += x = std::pow(x, 1 / temperature);
        for (std::size_t c = 0; c < p.size(); ++c)
          sum += (p[c] - q[c] / total) * (p[c] - q[c] / total);
      }
  return sum / double(on.size());
}
double rectified(const std::vector<std::vector<double>>& z, const Grid& on) {
  double value = 0;
  for (std::size_t s = 0; s < z.size(); ++s) {
    double distance = 0, sure = 0, divergences = 0;
    for (Index row = 0; row < on.rows(); ++row) {
      std::vector<double> mean(std::size_t(on.channels), 0);
      for (const auto& one : z)
        for (std::size_t c = 0; c < mean.size(); ++c)
          mean[c] += softmax_at(one, row, on.channels)[c] / double(z.size());
      const auto p = softmax_at(z[s], row, on.channels);
      double v = 0, square = 0;
      for (std::size_t c = 0; c < mean.size(); ++c) {
        v += mean[c] * (std::log(mean[c]) - std::log(p[c]));
        square += (mean[c] - p[c]) * (mean[c] - p[c]) / double(on.channels);
      }
      distance += square * std::exp(-v), sure += std::exp(-v), divergences += v;
    }
    const double rows = double(on.rows());
    value += distance / rows / (sure / rows + 1e-8) + divergences / rows;
  }
  return value / double(z.size());
}

template <class F, class A>
double worst_error(const A& how, const Grid& on, std::size_t maps) {
  double worst = 0;
  for (std::size_t at = 0; at < maps; ++at) {
    Tape::current()->clear();
    worst = std::max(
        worst, gradient_error<F>(on, numbers(on.size(), 9), [&](const F& x) {
          std::vector<F> all;
          for (std::size_t s = 0; s < maps; ++s)
            all.push_back(s == at ? x : map_of<F>(on, numbers(on.size(), std::uint32_t(s))));
          return agreement(how, all);
        }));
  }
  return worst;
}
template <class A>
bool same_bits(const A& how, std::size_t maps) {
  const Grid large{2, 9, 21, 17, 4};
  const int before = threads();
  std::vector<std::vector<float>> runs;
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    std::vector<Single> all;
    for (std::size_t s = 0; s < maps; ++s)
      all.push_back(map_of<Single>(large, numbers(large.size(), std::uint32_t(s)), true));
    const auto loss = agreement(how, all);
    backward(loss);
    std::vector<float> bits{float(loss.host())};
    for (const auto& one : all) {
      const auto g = one.gradient().host();
      bits.insert(bits.end(), g.begin(), g.end());
    }
    runs.push_back(bits);
  }
  set_threads(before);
  return runs[0] == runs[1] && runs[0] == runs[2];
}

}  // namespace

TEST_SUITE("losses/consistency") {
  TEST_CASE("the terms are those of their formulas, for few classes and for many") {
    Index classes = 3;
    SUBCASE("few") {}
    SUBCASE("many") { classes = 19; }
    const Grid on{2, 2, 3, 5, classes};  // not a multiple of the voxels that are seen together
    std::vector<std::vector<double>> z;
    std::vector<Map3> maps;
    std::vector<Single> single;
    for (std::uint32_t s = 0; s < 4; ++s) {
      z.push_back(numbers(on.size(), s));
      maps.push_back(map_of<Map3>(on, z.back()));
      single.push_back(map_of<Single>(on, z.back()));
    }
    CHECK(agreement(RectifiedDistance{}, maps).host() ==
          doctest::Approx(rectified(z, on)).epsilon(1e-9));
    CHECK(agreement(RectifiedDistance{}, single).host() ==
          doctest::Approx(rectified(z, on)).epsilon(1e-5));
    CHECK(agreement(SharpenedDistance{}, maps).host() ==
          doctest::Approx(sharpened(z, on, 0.1)).epsilon(1e-6));
    CHECK(agreement(SharpenedDistance{}, single).host() ==
          doctest::Approx(sharpened(z, on, 0.1)).epsilon(1e-5));
    z.resize(2), maps.resize(2), single.resize(2);
    CHECK(agreement(SymmetricDivergence{}, maps).host() ==
          doctest::Approx(divergence(z, on)).epsilon(1e-9));
    CHECK(agreement(SymmetricDivergence{}, single).host() ==
          doctest::Approx(divergence(z, on)).epsilon(1e-5));
  }
  TEST_CASE("the gradients are those of central differences, in every map") {
    CHECK(worst_error<Map3>(SymmetricDivergence{}, grid, 2) < 1e-5);
    CHECK(worst_error<Map2>(SymmetricDivergence{}, {2, 1, 3, 4, 2}, 2) < 1e-5);
    CHECK(worst_error<Map3>(RectifiedDistance{}, grid, 4) < 1e-5);
    CHECK(worst_error<Map2>(SymmetricDivergence{}, {1, 1, 2, 2, 19}, 2) < 1e-5);
    CHECK(worst_error<Map2>(RectifiedDistance{}, {1, 1, 2, 2, 19}, 3) < 1e-5);
    CHECK(worst_error<Map2>(RectifiedDistance{}, {2, 1, 3, 4, 2}, 2) < 1e-5);
  }
  TEST_CASE("a sharpened prediction is given: the gradient is that of the distance to it") {
    // Central differences would move the sharpened prediction as well.
    const auto a = numbers(grid.size(), 1), b = numbers(grid.size(), 2);
    const Map3 x = map_of<Map3>(grid, a, true), y = map_of<Map3>(grid, b, true);
    backward(agreement(SharpenedDistance{0.5f}, std::vector<Map3>{x, y}));
    const auto g = x.gradient().host();
    const std::size_t classes = std::size_t(grid.channels);
    double worst = 0;
    for (Index row = 0; row < grid.rows(); ++row) {
      const auto p = softmax_at(a, row, grid.channels), q = softmax_at(b, row, grid.channels, 2);
      for (std::size_t k = 0; k < classes; ++k) {
        double expected = 0;
        for (std::size_t c = 0; c < classes; ++c)
          expected += 2 * (p[c] - q[c]) * p[c] * ((c == k) - p[k]) / double(grid.size());
        worst = std::max(worst, std::abs(expected - g[std::size_t(row) * classes + k]));
      }
    }
    CHECK(worst < 1e-12);
  }
  TEST_CASE("for two classes, sharpening is the published formula") {
    const Grid one{1, 1, 1, 1, 2};
    const double p = 0.6, q = 0.55, t = 0.1;
    const auto logits = [&](double x) { return map_of<Map3>(one, {0, std::log(x / (1 - x))}); };
    const auto sharp = [&](double x) {
      return std::pow(x, 1 / t) / (std::pow(x, 1 / t) + std::pow(1 - x, 1 / t));
    };
    const double expected =
        (p - sharp(q)) * (p - sharp(q)) + (q - sharp(p)) * (q - sharp(p));  // both classes alike
    CHECK(agreement(SharpenedDistance{}, std::vector<Map3>{logits(p), logits(q)}).host() ==
          doctest::Approx(expected).epsilon(1e-6));
  }
  TEST_CASE("the number of threads changes no bit") {
    CHECK(same_bits(SymmetricDivergence{}, 2));
    CHECK(same_bits(SharpenedDistance{}, 3));
    CHECK(same_bits(RectifiedDistance{}, 4));
  }
  TEST_CASE("predictions that agree cost nothing, hopeless classes stay finite") {
    const auto z = numbers(grid.size(), 1);
    const auto twice = [&](double scale) {
      std::vector<double> far(z);
      for (double& x : far) x *= scale;
      return std::vector<Single>{map_of<Single>(grid, far, true), map_of<Single>(grid, z, true)};
    };
    CHECK(agreement(SymmetricDivergence{}, twice(1)).host() == 0);
    CHECK(agreement(RectifiedDistance{}, twice(1)).host() < 1e-6);
    const auto check = [&](const auto& how) {
      auto maps = twice(1000);
      Tape::current()->clear();
      const auto loss = agreement(how, maps);
      backward(loss);
      CHECK(std::isfinite(loss.host()));
      for (const auto& one : maps)
        for (const float g : one.gradient().host()) REQUIRE(std::isfinite(g));
    };
    check(SymmetricDivergence{}), check(SharpenedDistance{}), check(RectifiedDistance{});
  }
  TEST_CASE("what cannot be compared is refused") {
    const Map3 x = map_of<Map3>(grid, numbers(grid.size(), 1));
    CHECK_THROWS_WITH_AS(agreement(SymmetricDivergence{}, std::vector<Map3>{x}),
                         "segmed: agreement: 1 predictions; give 2 to 8", ShapeError);
    const Map3 y = map_of<Map3>({1, 2, 3, 4, 3}, numbers(72, 1));
    CHECK_THROWS_AS(agreement(SymmetricDivergence{}, std::vector<Map3>{x, y}), ShapeError);
  }
}
