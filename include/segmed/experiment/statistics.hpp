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

/// The value that a Student variable stays below with the given chance; a normal one beyond 1,000
/// degrees of freedom. Degrees may be broken.
///
///   throws   ConfigError for a chance outside of 0.5 to 1, and for less than one degree
inline double student_quantile(double chance, double degrees) {
  require<ConfigError>(chance > 0.5 && chance < 1 && degrees >= 1, "student_quantile", "chance ",
                       chance, " with ", degrees, " degrees of freedom");
  const double right = std::acos(-1.0) / 2, power = std::min(degrees, 1000.0) - 1;
  // With t = sqrt(degrees) tan(angle) the density is cos^(degrees - 1); Simpson's rule.
  const auto below = [&](double angle) {
    constexpr int steps = 4000;
    const double width = angle / steps;
    double sum = 0;
    for (int i = 0; i <= steps; ++i)
      sum += (i == 0 || i == steps ? 1 : i % 2 == 1 ? 4 : 2) * std::pow(std::cos(i * width), power);
    return sum * width / 3;
  };
  const double half = below(right);
  double low = 0, high = right;
  while (high - low > 1e-12) {
    const double angle = (low + high) / 2;
    (below(angle) < (2 * chance - 1) * half ? low : high) = angle;
  }
  return std::sqrt(power + 1) * std::tan((low + high) / 2);
}

/// How far a mean may be off, and the degrees of freedom that this is known with.
struct StandardError {
  double value = undefined, degrees = undefined;

  /// Of the mean gain over other seeds and other cases: variances between seeds, between cases and
  /// of what is left, from the cases that all seeds scored. One seed alone says nothing of others,
  /// and its error is that over cases; with one seed and one case it is not defined.
  ///
  ///   source   two-way random effects without replicates; Satterthwaite, An approximate
  ///            distribution of estimates of variance components, Biometrics Bulletin 2, 1946.
  ///            Where the estimates contradict each other the larger of the two mean squares counts
  static StandardError of(const PairedScores& scores) {
    std::vector<std::vector<double>> gains;  // of each case, by seed
    for (std::size_t k = 0; k < scores.before[0].size(); ++k) {
      std::vector<double> one;
      for (std::size_t s = 0; s < scores.before.size(); ++s)
        one.push_back(scores.after[s][k] - scores.before[s][k]);
      if (std::none_of(one.begin(), one.end(), [](double g) { return std::isnan(g); }))
        gains.push_back(std::move(one));
    }
    const double cases = double(gains.size()), seeds = double(scores.before.size());
    if (cases < 1 || cases * seeds < 2) return {};
    std::vector<double> by_seed(scores.before.size(), 0);
    double mean = 0, of_cases = 0, of_seeds = 0, rest = 0;  // sums of squares, then mean squares
    for (const auto& one : gains)
      for (std::size_t s = 0; s < one.size(); ++s)
        by_seed[s] += one[s] / cases, mean += one[s] / (cases * seeds);
    for (const double own : by_seed) of_seeds += cases * (own - mean) * (own - mean);
    for (const auto& one : gains) {
      const double own = mean_of(one);
      of_cases += seeds * (own - mean) * (own - mean);
      for (std::size_t s = 0; s < one.size(); ++s) {
        const double left = one[s] - own - by_seed[s] + mean;
        rest += left * left;
      }
    }
    of_seeds /= std::max(1.0, seeds - 1), of_cases /= std::max(1.0, cases - 1);
    rest /= std::max(1.0, (seeds - 1) * (cases - 1));
    const double all = std::max({of_seeds + of_cases - rest, of_seeds, of_cases});
    const double doubt = of_seeds * of_seeds / std::max(1.0, seeds - 1) +
                         of_cases * of_cases / std::max(1.0, cases - 1);
    return {std::sqrt(all / (seeds * cases)), doubt > 0 ? std::max(1.0, all * all / doubt) : 1};
  }
};

/// How an interval is drawn.
struct BootstrapOptions {
  Index resamples = 10000;
  double level = 0.95;
  std::uint64_t seed = 0;
};

/// The mean gain and its interval: each resample draws seeds and cases with replacement, the same
/// cases for all its seeds and for both models. Few seeds or cases scatter less among themselves
/// than all that there could be: where Student's interval of the standard error is the wider one,
/// both ends move away from the mean until the widths agree. One seed and one case have no
/// interval.
///
///   throws   ShapeError when seeds or cases differ; ConfigError for a level outside of 0 to 1
///   source   Efron, Tibshirani, An introduction to the bootstrap, 1993, chapter 13; seeds and
///            cases drawn beside each other: Owen, The pigeonhole bootstrap, 2007,
///            arXiv:0712.1111; its width for few of them: see StandardError
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
  const double tail = 50 * (1 - options.level), value = mean_of(scores.gains());
  const double low = percentile(found, tail), high = percentile(found, 100 - tail);
  const StandardError error = StandardError::of(scores);
  if (std::isnan(error.value)) return {value, undefined, undefined};  // one seed and one case
  const double away = error.value * student_quantile((1 + options.level) / 2, error.degrees);
  return {value, std::min(low, value - away), std::max(high, value + away)};
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
