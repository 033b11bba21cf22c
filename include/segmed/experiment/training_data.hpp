// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <set>
#include <string>

#include <segmed/data/split.hpp>
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

  /// Throws ConfigError where a case or a patient is in both, DataError where a case of D_0 does
  /// not annotate every class.
  template <Cohort C>
  TrainingData(const C& cohort, const RunOptions& options)
      : classes(cohort.class_table()),
        full(options.full ? *options.full : training_cases(cohort, true)),
        partial(options.partial ? *options.partial : training_cases(cohort, false)),
        load([&cohort](Index i) -> Example { return cohort.load(i); }) {
    std::set<Index> annotated;
    std::set<std::string> patients;
    const auto there = [&](const LoaderCase& one) {  // others are among the faults of the run
      return one.index >= 0 && one.index < cohort.size();
    };
    for (const LoaderCase& one : full) {
      if (!there(one)) continue;
      const CaseInfo info = cohort.info(one.index);
      check_whole("D_0", info.id, AnnotatedSet::both(info.annotated, one.left), classes);
      annotated.insert(one.index);
      if (!info.patient.empty()) patients.insert(info.patient);
    }
    std::vector<AnnotatedSet> sources(partial.size());
    for (std::size_t i = 0; i < partial.size(); ++i) {
      const LoaderCase& one = partial[i];
      if (!there(one)) continue;
      const CaseInfo info = cohort.info(one.index);
      require<ConfigError>(!annotated.count(one.index), "run", "case ", info.id,
                           " is in D_0 and in D_1, which would count it twice; take it out of one");
      require<ConfigError>(!patients.count(info.patient), "run", "patient ", info.patient,
                           " is in D_0 and in D_1 (case ", info.id,
                           "); keep all cases of a patient in one of them");
      sources[i] = info.annotated;
    }
    if (options.balance_sources) balance_sources(partial, sources);
  }
};

}  // namespace segmed
