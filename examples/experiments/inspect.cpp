// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "commands.hpp"
#include <segmed/data/inspect.hpp>
#include <segmed/data/layout.hpp>

namespace experiments {

using namespace segmed;

int inspect(const InspectOptions& options) {
  const FolderCohort cohort = open_folder(options.data, options.folder);
  const auto reports = segmed::inspect(cohort);
  Index quarantined = 0, warned = 0;
  for (const CaseReport& report : reports) {
    quarantined += report.verdict == Verdict::quarantined;
    warned += report.verdict == Verdict::warn;
  }
  if (options.json) {
    std::puts(to_json(reports, cohort.layout).dump(1).c_str());
    return quarantined > 0 ? cases_skipped : done;
  }
  std::printf("%s: layout %s, %d cases, %d classes\n", options.data.c_str(), name_of(cohort.layout),
              int(cohort.size()), int(cohort.classes.size() - 1));
  std::vector<Index> annotated(std::size_t(cohort.classes.size()));
  Index unlabelled = 0;
  for (const CaseInfo& info : infos_of(cohort)) {
    unlabelled += !info.has_labels;
    for (Index c = 1; info.has_labels && c < cohort.classes.size(); ++c)
      annotated[std::size_t(c)] += info.annotated.has(c);
  }
  for (Index c = 1; c < cohort.classes.size(); ++c)
    std::printf("  %-24s annotated in %d cases\n", cohort.classes.names[std::size_t(c)].c_str(),
                int(annotated[std::size_t(c)]));
  if (unlabelled > 0) std::printf("  %d cases without any label\n", int(unlabelled));
  for (const CaseReport& report : reports)
    for (const auto& reason : report.reasons)
      std::printf("  %s %s: %s\n", name_of(report.verdict), report.id.c_str(), reason.c_str());
  std::printf("%d ok, %d with a warning, %d quarantined\n",
              int(cohort.size() - quarantined - warned), int(warned), int(quarantined));
  return quarantined > 0 ? cases_skipped : done;
}

}  // namespace experiments
