// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/core/random.hpp>
#include <segmed/experiment/statistics.hpp>

using namespace segmed;

namespace {

// p by counting all 2^n sign patterns whose smaller rank sum is no larger.
double p_by_enumeration(const std::vector<double>& differences) {
  std::vector<double> sizes;
  for (const double d : differences) sizes.push_back(std::abs(d));
  const auto ranks = ranks_of(sizes);
  double total = 0, above = 0;
  for (std::size_t i = 0; i < ranks.size(); ++i)
    total += ranks[i], above += differences[i] > 0 ? ranks[i] : 0;
  const double smaller = std::min(above, total - above);
  double count = 0;
  const std::size_t patterns = std::size_t{1} << ranks.size();
  for (std::size_t pattern = 0; pattern < patterns; ++pattern) {
    double sum = 0;
    for (std::size_t i = 0; i < ranks.size(); ++i) sum += pattern >> i & 1 ? ranks[i] : 0;
    if (sum <= smaller) ++count;
  }
  return std::min(1.0, 2 * count / double(patterns));
}

}  // namespace

TEST_SUITE("experiment/statistics") {
  TEST_CASE("mean and median leave out what is not defined") {
    CHECK(mean_of({1, undefined, 3}) == 2);
    CHECK(median_of({5, undefined, 1, 2}) == 2);
    CHECK(median_of({4, 1, 2, 3}) == 2.5);
    CHECK(std::isnan(mean_of({undefined})));
    CHECK(std::isnan(median_of({})));
  }
  TEST_CASE("equal values share the mean of their ranks") {
    CHECK(ranks_of({10, 20, 10, 5, 20, 20}) == std::vector<double>{2.5, 5, 2.5, 1, 5, 5});
    CHECK(mean_ranks({{0.9, 0.8, undefined}, {0.8, 0.8, 0.9}}) == std::vector<double>{1.25, 1.75});
    CHECK_THROWS_WITH_AS(ranks_of({1, undefined}), "segmed: ranks: a value is NaN", DataError);
  }
  TEST_CASE("the signed-rank test gives scipy's values") {
    // scipy.stats.wilcoxon([6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]):
    // statistic 24, p 0.041259765625
    const auto darwin = signed_rank({6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75});
    CHECK(darwin.statistic == 24);
    CHECK(darwin.p == doctest::Approx(0.041259765625).epsilon(1e-12));
    CHECK(darwin.count == 15);
    CHECK(darwin.exact);
    // scipy.stats.wilcoxon([0.1, 0.25, -0.05, 0.4, 0.3]): statistic 1, p 0.125
    CHECK(signed_rank({0.1, 0.25, -0.05, 0.4, 0.3}).p == doctest::Approx(0.125));
    // scipy.stats.wilcoxon([(i * 37 % 101 - 45) / 10 for i in range(1, 81)], correction=False,
    // mode="approx"), one zero and ties: statistic 1257, p 0.11443133917365832
    std::vector<double> many;
    for (int i = 1; i <= 80; ++i) many.push_back((i * 37 % 101 - 45) / 10.0);
    const auto approximate = signed_rank(many);
    CHECK_FALSE(approximate.exact);
    CHECK(approximate.statistic == doctest::Approx(1257.0));
    CHECK(approximate.p == doctest::Approx(0.11443133917365832).epsilon(1e-9));
  }
  TEST_CASE("the exact p-value counts sign patterns, also with ties") {
    const Philox random{2, Purpose::noise};
    Index draw = 0;
    for (int trial = 0; trial < 200; ++trial) {
      std::vector<double> differences;
      const Index n = 1 + random.below(draw++, 10);
      for (Index i = 0; i < n; ++i) {
        const double size = double(1 + random.below(draw++, 5));
        differences.push_back(random.uniform(draw++) < 0.3f ? -size : size);
      }
      REQUIRE(signed_rank(differences).p == doctest::Approx(p_by_enumeration(differences)));
    }
  }
  TEST_CASE("without a difference nothing is significant") {
    CHECK(signed_rank({0, 0, undefined}).p == 1);
    CHECK(signed_rank({0, 0, undefined}).count == 0);
    CHECK(signed_rank({}).p == 1);
    CHECK(signed_rank({0.5}).p == 1);
    CHECK(signed_rank({1, -1}).p == 1);
  }
  TEST_CASE("the bootstrap's value is the mean gain, and the same seed gives the same interval") {
    PairedScores scores;
    const Philox random{7, Purpose::noise};
    for (Index s = 0; s < 3; ++s) {
      scores.before.emplace_back();
      scores.after.emplace_back();
      for (Index k = 0; k < 40; ++k) {
        const double score = 0.8 + 0.05 * random.normal(s * 100 + k);
        scores.before.back().push_back(score);
        scores.after.back().push_back(score + 0.02 + 0.01 * random.normal(s * 100 + k + 50));
      }
    }
    const Interval interval = bootstrap_gain(scores);
    CHECK(interval.value == doctest::Approx(mean_of(scores.gains())));
    CHECK(interval.low < interval.value);
    CHECK(interval.high > interval.value);
    CHECK(interval.low > 0.012);
    CHECK(interval.high < 0.028);
    const Interval again = bootstrap_gain(scores);
    CHECK(again.low == interval.low);
    CHECK(again.high == interval.high);
    CHECK(bootstrap_gain(scores, {10000, 0.95, 1}).low != interval.low);
    const Interval wide = bootstrap_gain(scores, {10000, 0.99, 0});
    CHECK(wide.low < interval.low);
    CHECK(wide.high > interval.high);
  }
  TEST_CASE("with one seed and many cases the interval is the normal one") {
    PairedScores scores{{{}}, {{}}};
    const Philox random{9, Purpose::noise};
    DefinedMean mean, square;
    for (Index k = 0; k < 400; ++k) {
      const double difference = random.normal(k);
      scores.before[0].push_back(0);
      scores.after[0].push_back(difference);
      mean.add(difference), square.add(difference * difference);
    }
    const double deviation = std::sqrt((square.value() - mean.value() * mean.value()) / 400);
    const Interval interval = bootstrap_gain(scores);
    CHECK(interval.low == doctest::Approx(mean.value() - 1.96 * deviation).epsilon(0.1));
    CHECK(interval.high == doctest::Approx(mean.value() + 1.96 * deviation).epsilon(0.1));
  }
  TEST_CASE("Student's quantiles are scipy's") {
    // scipy.stats.t.ppf(chance, degrees)
    const double known[][3] = {{0.975, 1, 12.706204736174694},  {0.975, 1.5, 6.016663104427929},
                               {0.975, 2, 4.302652729749462},   {0.95, 2.5, 2.5582186141359355},
                               {0.975, 39, 2.022690920036761},  {0.975, 200, 1.9718962236339088},
                               {0.975, 1e7, 1.9623390808264078}};
    for (const auto& [chance, degrees, value] : known)
      CHECK(student_quantile(chance, degrees) == doctest::Approx(value).epsilon(1e-5));
    CHECK_THROWS_WITH_AS(student_quantile(0.4, 3),
                         "segmed: student_quantile: chance 0.4 with 3 degrees of freedom",
                         ConfigError);
    CHECK_THROWS_AS(student_quantile(0.9, 0.5), ConfigError);
  }
  TEST_CASE("the standard error is that of seeds, of cases, or of both") {
    // All cases alike: what is left is the mean over seeds, 1, 2 and 6.
    const auto alike = StandardError::of(
        {{{0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}}, {{1, 1, 1, 1}, {2, 2, 2, 2}, {6, 6, 6, 6}}});
    CHECK(alike.value == doctest::Approx(std::sqrt(7.0 / 3)));
    CHECK(alike.degrees == doctest::Approx(2));
    // All seeds alike, or one alone: the mean over cases, of the same numbers.
    for (const auto& seeds : {std::vector<std::vector<double>>{{1, 2, 6}},
                              std::vector<std::vector<double>>{{1, 2, 6}, {1, 2, 6}}}) {
      const auto of_cases = StandardError::of(
          {std::vector<std::vector<double>>(seeds.size(), std::vector<double>(3, 0)), seeds});
      CHECK(of_cases.value == doctest::Approx(std::sqrt(7.0 / 3)));
      CHECK(of_cases.degrees == doctest::Approx(2));
    }
    // By hand: mean squares 12.25 between seeds, 6.25 between cases, 0.25 of what is left.
    const auto both = StandardError::of({{{0, 0}, {0, 0}}, {{0, 3}, {4, 6}}});
    CHECK(both.value == doctest::Approx(std::sqrt((12.25 + 6.25 - 0.25) / 4)));
    CHECK(both.degrees == doctest::Approx(18.25 * 18.25 / (12.25 * 12.25 + 6.25 * 6.25)));
    // A case that one seed did not score stays out; one score alone has no error.
    const auto without =
        StandardError::of({{{0, 0, 9}, {0, 0, 0}}, {{0, 3, undefined}, {4, 6, 1}}});
    CHECK(without.value == doctest::Approx(both.value));
    CHECK(std::isnan(StandardError::of({{{1}}, {{2}}}).value));
    CHECK(std::isnan(bootstrap_gain({{{1}}, {{2}}}).low));
    CHECK(bootstrap_gain({{{1}}, {{2}}}).value == 1);
  }
  TEST_CASE("intervals hold the truth about as often as they say, also with few seeds and cases") {
    struct Study {
      Index seeds, cases;
      double of_seeds, rest;  // shares of the mean's variance; cases have what is left
      double least;           // of 400 intervals, the part that must hold the truth
    };
    // Two seeds know their own scatter so badly that nine of ten is what Student's interval
    // reaches; resampling alone holds eight.
    for (const Study& study :
         {Study{1, 40, 0, 0, 0.92}, Study{1, 6, 0, 0, 0.92}, Study{2, 40, 0.2, 0.2, 0.92},
          Study{2, 40, 0.8, 0.1, 0.86}, Study{3, 40, 0.8, 0.1, 0.90}, Study{3, 8, 0.3, 0.2, 0.90},
          Study{6, 40, 0.5, 0.2, 0.92}}) {
      const double seed_effect = std::sqrt(study.of_seeds * double(study.seeds));
      const double case_effect = std::sqrt((1 - study.of_seeds - study.rest) * double(study.cases));
      const double noise = std::sqrt(study.rest * double(study.seeds * study.cases));
      int inside = 0;
      constexpr int trials = 400;
      for (int trial = 0; trial < trials; ++trial) {
        const Philox random{std::uint64_t(trial), Purpose::noise};
        PairedScores scores;
        for (Index s = 0; s < study.seeds; ++s) {
          scores.before.emplace_back(std::size_t(study.cases), 0.0);
          scores.after.emplace_back();
          for (Index k = 0; k < study.cases; ++k)
            scores.after.back().push_back(0.5 + seed_effect * double(random.normal(s)) +
                                          case_effect * double(random.normal(1000 + k)) +
                                          noise * double(random.normal(2000 + s * 100 + k)));
        }
        const Interval interval = bootstrap_gain(scores, {300, 0.95, 3});
        inside += interval.low <= 0.5 && 0.5 <= interval.high;
      }
      CAPTURE(study.seeds);
      CAPTURE(study.cases);
      CHECK(inside >= int(study.least * trials));
      CHECK(inside <= int(0.995 * trials));
    }
  }
  TEST_CASE("cases without a score stay out, and what cannot be paired is refused") {
    const PairedScores scores{{{0.5, undefined, 0.7, 0.6}}, {{0.6, 0.9, undefined, 0.6}}};
    CHECK(scores.gain(0) == doctest::Approx(0.7 - 0.6));
    const auto differences = scores.case_differences();
    CHECK(differences[0] == doctest::Approx(0.1));
    CHECK(std::isnan(differences[1]));
    CHECK(std::isfinite(bootstrap_gain(scores).low));
    CHECK_THROWS_WITH_AS(bootstrap_gain({{{1.0}}, {}}),
                         "segmed: bootstrap: 1 and 0 seeds are compared", ShapeError);
    CHECK_THROWS_WITH_AS(bootstrap_gain({{{1.0}}, {{1.0, 2.0}}}),
                         "segmed: bootstrap: seed 0 has 1 and 2 cases, the first has 1",
                         ShapeError);
  }
}
