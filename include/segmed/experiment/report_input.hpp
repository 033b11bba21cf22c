// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <segmed/core/config.hpp>
#include <segmed/core/json.hpp>
#include <segmed/experiment/png.hpp>
#include <segmed/experiment/results.hpp>
#include <segmed/train/metrics.hpp>

namespace segmed {

/// How many cases annotate a class.
struct ClassUse {
  Index d0 = 0, d1 = 0, validation = 0;
};

/// The loss of one run over its training.
struct TrainingCurve {
  std::string policy;
  Index seed = 0, d1 = 0;
  std::vector<double> minutes, loss;
};

/// A case that the report shows.
struct ShownCase {
  std::string rank, id;  // "Best", "Median", "Worst"
  double before = undefined, after = undefined;
  std::vector<std::pair<std::string, Picture>> panels;  // caption and picture
  std::vector<Index> classes;                           // for the legend
};

/// Everything that a report says. What is empty is left out.
struct ReportInput {
  std::string title = "segmed experiment";
  std::string data, command, created;
  std::string hiding;  // how labels of D_1 were hidden, in words
  std::string baseline = "supervised";
  std::string evaluated = "D_val";  // the cases that the results are of
  Results results;
  std::vector<ClassUse> uses;  // by foreground class
  std::vector<TrainingCurve> curves;
  std::vector<ShownCase> cases;
  std::vector<std::string> rules;  // beside those that always hold
  Json manifest;
};

/// What every report says of its numbers.
inline std::vector<std::string> rules_of(bool compared) {
  std::vector<std::string> all = {score_rules()};
  if (compared) {
    all.push_back(
        "The gain is the mean Dice of M_1 minus that of M_0 of the same seed and size, "
        "averaged over seeds.");
    all.push_back(
        "Its 95 % interval is a paired bootstrap: seeds and cases are drawn again with "
        "replacement, 10 000 times, the same cases for both models. Where Student's interval from "
        "the variances between seeds and between cases reaches further, as with few seeds that "
        "differ, it ends there. Of one seed it says nothing of other seeds.");
    all.push_back(
        "p over cases is Wilcoxon's signed-rank test, two-sided, on each case's difference "
        "averaged over seeds. It takes the trainings as they are: it says whether these models "
        "differ on other cases, not whether training again would find that, and is not corrected "
        "for several comparisons.");
  }
  return all;
}

/// The cases of a run with the highest, the middle and the lowest mean Dice.
struct RankedCases {
  std::size_t best = 0, median = 0, worst = 0;

  /// Throws DataError for a run without any score.
  static RankedCases of(const RunResult& run) {
    const auto means = run.case_means();
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < means.size(); ++i)
      if (!std::isnan(means[i])) order.push_back(i);
    require<DataError>(!order.empty(), "report", "no case of ", run.policy, " has a score");
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return means[a] > means[b]; });
    return {order.front(), order[(order.size() - 1) / 2], order.back()};
  }
};

}  // namespace segmed
