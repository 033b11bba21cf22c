// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include <doctest/doctest.h>

#include <segmed/experiment/comparison.hpp>
#include <segmed/experiment/ranking.hpp>

using namespace segmed;

namespace {

RunResult run(const std::string& policy, Index seed, Index d1, const std::vector<double>& dice) {
  RunResult made{policy, seed, 10, d1, 2.0, 240, {}};
  for (std::size_t k = 0; k < dice.size(); ++k)
    made.cases.push_back({std::to_string(k), AnnotatedSet::all(2), {dice[k]}, {1}});
  return made;
}

}  // namespace

TEST_SUITE("experiment/ranking") {
  TEST_CASE("the chi-square tail has the values of the tables") {
    const std::pair<Index, double> critical[] = {{1, 3.841458821},
                                                 {2, 5.991464547},
                                                 {3, 7.814727903},
                                                 {9, 16.918977605},
                                                 {20, 31.410432844}};
    for (const auto& [degrees, x] : critical)
      CHECK(chi_square_tail(x, degrees) == doctest::Approx(0.05).epsilon(1e-7));
    CHECK(chi_square_tail(0, 3) == 1);
    CHECK(chi_square_tail(undefined, 3) == 1);
  }
  TEST_CASE("the studentized range has the values of Nemenyi's table") {
    const std::pair<Index, double> critical[] = {{2, 1.960}, {3, 2.343}, {5, 2.728}, {10, 3.164}};
    for (const auto& [count, q] : critical)
      CHECK(std::abs(normal_range(count) / std::sqrt(2.0) - q) < 1e-3);
  }
  TEST_CASE("policies are ranked over seeds and cases, equal scores sharing their ranks") {
    Results results;
    results.runs = {run("supervised", 1, 0, {0.5, 0.5, undefined}),
                    run("a", 1, 20, {0.6, 0.5, 0.9}), run("b", 1, 20, {0.7, 0.4, 0.9}),
                    run("supervised", 2, 0, {0.5, 0.5, 0.5}),
                    run("a", 2, 20, {0.6, 0.6, 0.6})};  // b has not finished seed 2
    compare_runs(results);
    const Ranking ranking = Ranking::of(results);
    REQUIRE(ranking.policies.size() == 3);
    CHECK(ranking.blocks == 2);
    CHECK(ranking.cases == 2);
    CHECK(ranking.policies == std::vector<std::string>{"a", "b", "supervised"});
    CHECK(ranking.ranks == std::vector<double>{1.75, 2, 2.25});
    // Friedman: 12 * 2 / (3 * 4) * (0.25^2 + 0 + 0.25^2) = 0.25
    CHECK(ranking.p == doctest::Approx(std::exp(-0.125)));
    CHECK(std::abs(ranking.difference - 2.343 * std::sqrt(12.0 / 12)) < 1e-3);
  }
  TEST_CASE("without a comparison there is no ranking") {
    Results results;
    CHECK(Ranking::of(results).policies.empty());
    results.runs = {run("supervised", 1, 0, {0.5})};
    compare_runs(results);
    CHECK(Ranking::of(results).policies.empty());
  }
}
