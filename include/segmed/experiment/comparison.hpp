// SPDX-License-Identifier: Apache-2.0
// What the runs of a comparison say of each other: M_1 beside M_0, and policies beside one another.
#pragma once
#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <segmed/core/error.hpp>
#include <segmed/experiment/results.hpp>
#include <segmed/experiment/statistics.hpp>

namespace segmed {

/// Adds the scores of two runs of one seed.
///
///   throws   DataError when they were not evaluated on the same cases
inline void add_pair(PairedScores& scores, const RunResult& before, const RunResult& after) {
  const bool same =
      std::equal(before.cases.begin(), before.cases.end(), after.cases.begin(), after.cases.end(),
                 [](const CaseResult& one, const CaseResult& other) { return one.id == other.id; });
  require<DataError>(same, "compare", after.policy, " and ", before.policy, " of seed ", after.seed,
                     " were evaluated on different cases");
  scores.before.push_back(before.case_means());
  scores.after.push_back(after.case_means());
}

/// Fills in what the scores say.
inline void judge(GainResult& gain, const PairedScores& scores, const BootstrapOptions& options) {
  const Interval interval = bootstrap_gain(scores, options);
  gain.gain = interval.value, gain.low = interval.low, gain.high = interval.high;
  gain.p = signed_rank(scores.case_differences()).p;
  gain.seeds = scores.gains();
}

/// By policy as they first appear among the runs, then by size and by what is hidden; what is of
/// all of them together stands behind.
inline void put_in_order(std::vector<GainResult>& gains, const std::vector<RunResult>& runs) {
  const auto first = [&](const std::string& policy) {
    return std::find_if(runs.begin(), runs.end(),
                        [&](const RunResult& run) { return run.policy == policy; });
  };
  const auto key = [&](const GainResult& gain) {
    return std::tuple(first(gain.policy), gain.d0, gain.together, gain.d1, gain.hidden);
  };
  std::stable_sort(gains.begin(), gains.end(),
                   [&](const GainResult& a, const GainResult& b) { return key(a) < key(b); });
}

/// What every policy that used D_1 has more than `partner(run)`, a run of the same seed or nullptr:
/// one for each of its sizes and ways of hiding that has a pair.
///
///   throws   DataError when two paired runs were not evaluated on the same cases
template <class Partner>
std::vector<GainResult> paired_gains(const Results& results, const Partner& partner,
                                     const BootstrapOptions& options) {
  std::vector<GainResult> gains;
  for (const RunResult& first : results.runs) {
    const auto known = [&](const GainResult& gain) { return gain.of(first); };
    if (first.d1 == 0 || std::any_of(gains.begin(), gains.end(), known)) continue;
    PairedScores scores;
    DefinedMean hidden;
    for (const RunResult* after : results.runs_of(first.policy, first.d0, first.d1, first.hide)) {
      hidden.add(after->hidden);
      if (const RunResult* before = partner(*after)) add_pair(scores, *before, *after);
    }
    if (scores.before.empty() || scores.before[0].empty()) continue;
    GainResult gain{first.policy, first.d0, first.d1};
    gain.hide = first.hide, gain.hidden = hidden.value();
    judge(gain, scores, options);
    gains.push_back(std::move(gain));
  }
  put_in_order(gains, results.runs);
  return gains;
}

/// Pairs every run that used D_1 with the baseline (d1 = 0) of its seed and d0, case by case, and
/// fills `gains`. Runs whose partner is not finished wait for it.
///
///   throws   DataError when two paired runs were not evaluated on the same cases
inline void compare_runs(Results& results, const std::string& baseline = "supervised",
                         const BootstrapOptions& options = {}) {
  const auto partner = [&](const RunResult& after) {
    return results.find(baseline, after.seed, after.d0, 0);
  };
  results.gains = paired_gains(results, partner, options);
}

/// Every policy beside the policy `other`: pairs their runs of the same seed, sizes and way of
/// hiding, and fills in `differences` what each has more. A policy that was beside the other in
/// several sizes or ways of hiding is compared over all of them together, too: each case of a seed
/// counts once, with its mean over them; of the seeds that finished them all.
///
///   throws   DataError when two paired runs were not evaluated on the same cases
inline void compare_with(Results& results, const std::string& other,
                         const BootstrapOptions& options = {}) {
  auto& found = results.differences;
  found.erase(std::remove_if(found.begin(), found.end(),
                             [&](const GainResult& gain) { return gain.against == other; }),
              found.end());
  const auto before_of = [&](const RunResult& after) {
    return after.policy == other ? nullptr
                                 : results.find(other, after.seed, after.d0, after.d1, after.hide);
  };
  std::vector<GainResult> fresh = paired_gains(results, before_of, options);
  for (GainResult& gain : fresh) gain.against = other;
  std::vector<GainResult> together;
  for (const GainResult& first : fresh) {
    const auto alike = [&](const GainResult& gain) {
      return gain.policy == first.policy && gain.d0 == first.d0;
    };
    if (std::any_of(together.begin(), together.end(), alike)) continue;
    std::vector<const GainResult*> parts;
    for (const GainResult& gain : fresh)
      if (alike(gain)) parts.push_back(&gain);
    if (parts.size() < 2) continue;
    PairedScores means;
    for (const RunResult* run : results.runs_of(first)) {
      PairedScores all;
      for (const GainResult* part : parts) {
        const RunResult* after =
            results.find(part->policy, run->seed, part->d0, part->d1, part->hide);
        if (after == nullptr || before_of(*after) == nullptr) break;
        add_pair(all, *before_of(*after), *after);
      }
      if (all.before.size() < parts.size()) continue;
      const auto over_parts = [](const std::vector<std::vector<double>>& scores) {
        std::vector<double> sums(scores[0].size(), 0);
        for (const auto& part : scores)
          for (std::size_t k = 0; k < sums.size(); ++k) sums[k] += part[k] / double(scores.size());
        return sums;
      };
      means.before.push_back(over_parts(all.before)), means.after.push_back(over_parts(all.after));
    }
    if (means.before.empty()) continue;
    GainResult one{first.policy, first.d0};
    one.against = other, one.together = true;
    judge(one, means, options);
    together.push_back(std::move(one));
  }
  fresh.insert(fresh.end(), together.begin(), together.end());
  put_in_order(fresh, results.runs);
  found.insert(found.end(), fresh.begin(), fresh.end());
}

/// The other policies that differences were asked for, in that order.
inline std::vector<std::string> compared_with(const Results& results) {
  std::vector<std::string> all;
  for (const GainResult& gain : results.differences)
    if (std::find(all.begin(), all.end(), gain.against) == all.end()) all.push_back(gain.against);
  return all;
}

/// Everything that the runs say now: gains, and the differences that were asked for, before or now.
///
///   throws   DataError when two paired runs were not evaluated on the same cases
inline void compare_all(Results& results, const std::vector<std::string>& against = {}) {
  compare_runs(results);
  std::vector<std::string> others = compared_with(results);
  others.insert(others.end(), against.begin(), against.end());
  for (const std::string& other : others) compare_with(results, other);
}

/// The programs that made the runs, and how many each; runs that do not say so are left out.
inline std::vector<std::pair<std::string, Index>> programs_of(const Results& results) {
  std::vector<std::pair<std::string, Index>> all;
  for (const RunResult& run : results.runs) {
    if (run.made_by.empty()) continue;
    const auto at = std::find_if(all.begin(), all.end(),
                                 [&](const auto& one) { return one.first == run.made_by; });
    if (at == all.end())
      all.emplace_back(run.made_by, 1);
    else
      ++at->second;
  }
  return all;
}

/// In one sentence that runs were made by several programs; empty: they were not, as far as is
/// known.
inline std::string mixture(const Results& results) {
  const auto programs = programs_of(results);
  if (programs.size() < 2) return {};
  std::string text =
      "The runs were made by several programs, which round differently and take "
      "different time for a step: ";
  for (const auto& [program, runs] : programs)
    text += (&program == &programs.front().first ? "" : "; ") + std::to_string(runs) +
            (runs == 1 ? " run by " : " runs by ") + program;
  return text + ".";
}

}  // namespace segmed
