// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <segmed/experiment/results.hpp>
#include <segmed/experiment/statistics.hpp>

namespace segmed {

/// The chance that a chi-square variable of so many degrees of freedom exceeds x.
///
///   source   the recurrences of the incomplete gamma function at half-integers, Abramowitz &
///            Stegun 26.4.4 and 26.4.5
inline double chi_square_tail(double x, Index degrees) {
  if (!(x > 0)) return 1;
  double tail = degrees % 2 == 0 ? std::exp(-x / 2) : std::erfc(std::sqrt(x / 2));
  double term =
      degrees % 2 == 0 ? std::exp(-x / 2) : std::sqrt(2 * x / std::acos(-1.0)) * std::exp(-x / 2);
  for (Index k = degrees % 2 == 0 ? 2 : 1; k < degrees; k += 2) {
    if (degrees % 2 == 0) term *= x / double(k);
    tail += term;
    if (degrees % 2 != 0) term *= x / double(k + 2);
  }
  return std::min(1.0, tail);
}

/// The range that `count` independent normal variables exceed with the chance `tail`.
inline double normal_range(Index count, double tail = 0.05) {
  const auto above = [&](double q) {  // Simpson's rule over the largest of them
    constexpr int steps = 400;
    constexpr double low = -8, width = 16.0 / steps;
    const auto phi = [](double z) { return std::erfc(-z / std::sqrt(2.0)) / 2; };
    double sum = 0;
    for (int i = 0; i <= steps; ++i) {
      const double z = low + i * width;
      const double weight = i == 0 || i == steps ? 1 : i % 2 == 1 ? 4 : 2;
      sum += weight * std::exp(-z * z / 2) * std::pow(phi(z) - phi(z - q), double(count - 1));
    }
    return 1 - double(count) * sum * width / 3 / std::sqrt(2 * std::acos(-1.0));
  };
  double low = 0, high = 20;
  while (high - low > 1e-9) (above((low + high) / 2) > tail ? low : high) = (low + high) / 2;
  return low;
}

/// Policies by their mean rank over seeds, sizes of D_1, ways of hiding and cases; the best of a
/// case has rank 1, and equal scores share their ranks. What not all policies have finished, and
/// cases in which one has no score, are left out.
///
///   source   Demsar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006;
///            Friedman's test and Nemenyi's critical difference count every case once, however many
///            seeds and sizes it was scored in: its ranks are averaged before
struct Ranking {
  std::vector<std::string> policies;  // the best first
  std::vector<double> ranks;
  Index blocks = 0, cases = 0;    // what was ranked, and the cases in it
  double p = undefined;           // Friedman's: all policies are alike
  double difference = undefined;  // of mean ranks, below which two are not told apart (5 %)

  static Ranking of(const Results& results, const std::string& baseline = "supervised") {
    std::vector<std::string> names;
    const auto know = [&](const std::string& name) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    };
    if (!results.gains.empty()) know(baseline);
    for (const GainResult& gain : results.gains) know(gain.policy);
    Ranking made;
    if (names.size() < 2) return made;
    std::vector<std::vector<double>> scores(names.size());
    std::vector<std::string> ids;
    for (const RunResult& first : results.runs) {
      if (first.policy != names[1]) continue;
      std::vector<std::vector<double>> block;
      for (const std::string& name : names) {
        const RunResult* run = name == baseline
                                   ? results.find(name, first.seed, first.d0, 0)
                                   : results.find(name, first.seed, first.d0, first.d1, first.hide);
        if (run != nullptr && run->cases.size() == first.cases.size())
          block.push_back(run->case_means());
      }
      if (block.size() != names.size()) continue;
      for (std::size_t k = 0; k < first.cases.size(); ++k) {
        bool scored = true;
        for (const auto& own : block) scored = scored && !std::isnan(own[k]);
        if (!scored) continue;
        for (std::size_t m = 0; m < names.size(); ++m) scores[m].push_back(block[m][k]);
        ids.push_back(first.cases[k].id);
      }
    }
    if (ids.empty()) return made;
    const std::vector<double> ranks = mean_ranks(scores);
    std::vector<std::size_t> order(names.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return ranks[a] < ranks[b]; });
    for (const std::size_t m : order)
      made.policies.push_back(names[m]), made.ranks.push_back(ranks[m]);
    made.blocks = Index(ids.size());
    std::sort(ids.begin(), ids.end());
    made.cases = std::unique(ids.begin(), ids.end()) - ids.begin();
    const double k = double(names.size()), n = double(made.cases);
    double squares = 0;
    for (const double rank : ranks) squares += (rank - (k + 1) / 2) * (rank - (k + 1) / 2);
    made.p = chi_square_tail(12 * n / (k * (k + 1)) * squares, Index(names.size()) - 1);
    made.difference =
        normal_range(Index(names.size())) / std::sqrt(2.0) * std::sqrt(k * (k + 1) / (6 * n));
    return made;
  }
};

}  // namespace segmed
