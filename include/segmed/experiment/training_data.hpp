// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <set>

#include <segmed/experiment/run_options.hpp>

namespace segmed {

/// The training cases of a cohort: `full` ones, or those of D_1.
template <Cohort C>
std::vector<LoaderCase> training_cases(const C& cohort, bool full) {
  std::vector<LoaderCase> cases;
  for (Index i = 0; i < cohort.size(); ++i) {
    const Part part = cohort.info(i).part;
    const bool wanted =
        full ? part == Part::full : part == Part::partial || part == Part::unlabelled;
    if (wanted) cases.push_back({i});
  }
  return cases;
}

/// What a run learns from, whatever the cohort is, which must outlive it.
struct TrainingData {
  ClassTable classes;
  std::vector<LoaderCase> full, partial;
  std::function<Example(Index)> load;

  /// Throws ConfigError where a case is in both.
  template <Cohort C>
  TrainingData(const C& cohort, const RunOptions& options)
      : classes(cohort.class_table()),
        full(options.full ? *options.full : training_cases(cohort, true)),
        partial(options.partial ? *options.partial : training_cases(cohort, false)),
        load([&cohort](Index i) -> Example { return cohort.load(i); }) {
    std::set<Index> annotated;
    for (const LoaderCase& one : full) annotated.insert(one.index);
    for (const LoaderCase& one : partial)
      require<ConfigError>(!annotated.count(one.index), "run", "case ", cohort.info(one.index).id,
                           " is in D_0 and in D_1, which would count it twice; take it out of one");
  }
};

}  // namespace segmed
