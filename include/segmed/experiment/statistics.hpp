// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>
#include <segmed/core/random.hpp>
#include <segmed/train/metrics.hpp>

namespace segmed {

/// Mean of the values that are not NaN; NaN when there is none.
inline double mean_of(const std::vector<double>& values) {
  DefinedMean mean;
  for (const double value : values) mean.add(value);
  return mean.value();
}

/// Median of the values that are not NaN; NaN when there is none.
inline double median_of(std::vector<double> values) {
  values.erase(std::remove_if(values.begin(), values.end(), [](double v) { return std::isnan(v); }),
               values.end());
  return percentile(std::move(values), 50);
}

/// Ranks from 1, equal values sharing the mean of their ranks.
///
///   throws   DataError for a NaN
inline std::vector<double> ranks_of(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (const double value : values)
    require<DataError>(!std::isnan(value), "ranks", "a value is NaN");
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t begin = 0, end; begin < order.size(); begin = end) {
    for (end = begin; end < order.size() && values[order[end]] == values[order[begin]];) ++end;
    for (std::size_t i = begin; i < end; ++i) ranks[order[i]] = double(begin + 1 + end) / 2;
  }
  return ranks;
}

/// The mean rank of each method over cases, the best of a case having rank 1; cases in which a
/// method has no score are left out.
///
///   shapes   scores[method][case], higher is better
///   throws   ShapeError when methods have different numbers of cases
inline std::vector<double> mean_ranks(const std::vector<std::vector<double>>& scores) {
  std::vector<DefinedMean> means(scores.size());
  for (std::size_t k = 0; !scores.empty() && k < scores[0].size(); ++k) {
    std::vector<double> column;
    for (const auto& method : scores) {
      require(method.size() == scores[0].size(), "ranks", "methods have ", scores[0].size(),
              " and ", method.size(), " cases");
      column.push_back(-method[k]);
    }
    if (std::any_of(column.begin(), column.end(), [](double v) { return std::isnan(v); })) continue;
    const auto ranks = ranks_of(column);
    for (std::size_t m = 0; m < means.size(); ++m) means[m].add(ranks[m]);
  }
  std::vector<double> ranks;
  for (const DefinedMean& mean : means) ranks.push_back(mean.value());
  return ranks;
}

/// The result of a signed-rank test.
struct SignedRank {
  double statistic = 0;  // the smaller of the two rank sums
  double p = 1;          // two-sided
  Index count = 0;       // differences that are neither 0 nor NaN
  bool exact = true;
};

/// Wilcoxon's signed-rank test: are the differences centered at 0? Zeros and NaN are left out. Up
/// to 50 differences the p-value is exact, also with ties; beyond, it is the normal approximation
/// with the correction for ties and none for continuity.
///
///   source   Wilcoxon, Individual comparisons by ranking methods, Biometrics 1, 1945; the exact
///            distribution counts sign patterns by the sum of their (doubled) ranks
inline SignedRank signed_rank(const std::vector<double>& differences) {
  std::vector<double> sizes, kept;
  for (const double d : differences)
    if (d < 0 || d > 0) kept.push_back(d), sizes.push_back(std::abs(d));
  SignedRank test;
  test.count = Index(kept.size());
  if (kept.empty()) return test;
  const auto ranks = ranks_of(sizes);
  double above = 0, below = 0, squares = 0;
  for (std::size_t i = 0; i < kept.size(); ++i)
    (kept[i] > 0 ? above : below) += ranks[i], squares += ranks[i] * ranks[i];
  test.statistic = std::min(above, below);
  test.exact = test.count <= 50;
  if (!test.exact) {
    const double z = (test.statistic - (above + below) / 2) / std::sqrt(squares / 4);
    test.p = std::min(1.0, std::erfc(-z / std::sqrt(2.0)));
    return test;
  }
  std::vector<double> share(std::size_t(2 * (above + below)) + 1);  // of all sign patterns
  share[0] = 1;
  std::size_t reached = 0;
  for (const double rank : ranks) {
    const auto doubled = std::size_t(2 * rank);
    reached += doubled;
    for (std::size_t sum = reached; sum + 1 > 0; --sum)
      share[sum] = (share[sum] + (sum >= doubled ? share[sum - doubled] : 0)) / 2;
  }
  const auto last = share.begin() + Index(2 * test.statistic) + 1;
  test.p = std::min(1.0, 2 * std::accumulate(share.begin(), last, 0.0));
  return test;
}

/// A value with the interval that it lies in at the given level.
struct Interval {
  double value = undefined, low = undefined, high = undefined;
};

/// Scores of two models per seed and case, on the same cases in the same order; NaN where a case
/// has no score.
///
///   shapes   before[seed][case], after[seed][case]
struct PairedScores {
  std::vector<std::vector<double>> before, after;

  /// Throws ShapeError unless both have the same seeds and cases.
  void check() const {
    require(!before.empty() && before.size() == after.size(), "bootstrap", before.size(), " and ",
            after.size(), " seeds are compared");
    for (std::size_t s = 0; s < before.size(); ++s)
      require(!before[0].empty() && before[s].size() == before[0].size() &&
                  after[s].size() == before[0].size(),
              "bootstrap", "seed ", s, " has ", before[s].size(), " and ", after[s].size(),
              " cases, the first has ", before[0].size());
  }
  /// Mean score after minus mean score before, of one seed.
  double gain(std::size_t seed) const { return mean_of(after[seed]) - mean_of(before[seed]); }
  /// The gains of all seeds.
  std::vector<double> gains() const {
    std::vector<double> all;
    for (std::size_t s = 0; s < before.size(); ++s) all.push_back(gain(s));
    return all;
  }
  /// Each case's difference, averaged over the seeds in which both models have a score.
  std::vector<double> case_differences() const {
    std::vector<double> all;
    for (std::size_t k = 0; k < before[0].size(); ++k) {
      DefinedMean mean;
      for (std::size_t s = 0; s < before.size(); ++s) mean.add(after[s][k] - before[s][k]);
      all.push_back(mean.value());
    }
    return all;
  }
};

/// How an interval is drawn.
struct BootstrapOptions {
  Index resamples = 10000;
  double level = 0.95;
  std::uint64_t seed = 0;
};

/// The mean gain and its percentile interval: each resample draws seeds and cases with replacement,
/// the same cases for all its seeds and for both models.
///
///   throws   ShapeError when seeds or cases differ; ConfigError for a level outside of 0 to 1
///   source   Efron, Tibshirani, An introduction to the bootstrap, 1993, chapter 13
inline Interval bootstrap_gain(const PairedScores& scores, const BootstrapOptions& options = {}) {
  scores.check();
  require<ConfigError>(options.level > 0 && options.level < 1 && options.resamples >= 1,
                       "bootstrap", "level ", options.level, " with ", options.resamples,
                       " resamples");
  const Index seeds = Index(scores.before.size()), cases = Index(scores.before[0].size());
  std::vector<double> found;
  std::vector<std::size_t> drawn(static_cast<std::size_t>(cases));
  for (Index r = 0; r < options.resamples; ++r) {
    const Philox random{options.seed, Purpose::statistics, 0, std::uint32_t(r)};
    for (Index k = 0; k < cases; ++k) drawn[std::size_t(k)] = std::size_t(random.below(k, cases));
    DefinedMean gain;
    for (Index i = 0; i < seeds; ++i) {
      const std::size_t s = std::size_t(random.below(cases + i, seeds));
      DefinedMean before, after;
      for (const std::size_t k : drawn)
        before.add(scores.before[s][k]), after.add(scores.after[s][k]);
      gain.add(after.value() - before.value());
    }
    if (gain.count > 0) found.push_back(gain.value());
  }
  const double tail = 50 * (1 - options.level);
  return {mean_of(scores.gains()), percentile(found, tail), percentile(found, 100 - tail)};
}

/// A number with a fixed count of decimals; "-" where it is not defined.
inline std::string fixed(double value, int decimals, bool sign = false) {
  if (!std::isfinite(value)) return "-";
  char text[64];
  const int length = std::snprintf(text, sizeof text, sign ? "%+.*f" : "%.*f", decimals, value);
  return {text, std::size_t(std::min(length, int(sizeof text) - 1))};
}
/// A p-value as one reads it: "0.031", "< 0.001".
inline std::string p_text(double p) {
  return std::isnan(p) ? "-" : p < 0.001 ? "< 0.001" : fixed(p, 3);
}

}  // namespace segmed
