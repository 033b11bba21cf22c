// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "commands.hpp"
#include <segmed/experiment/report_input.hpp>

namespace experiments {

/// Collects what a comparison's report says beside its results; keeps it in out/report.json, so
/// that a comparison that was interrupted, or `experiments report`, finds it again.
class GainReport {
 public:
  GainReport(const GainOptions& options, const Study& study, const segmed::Json& environment);

  /// What a report keeps of a run beside its results.
  static segmed::Json curve_of(const std::string& policy, std::uint64_t seed, segmed::Index d1,
                               const segmed::RunReport& trained);
  void add_curve(const segmed::Json& curve);
  /// Writes report.html, report.json and manifest.json.
  void write(const segmed::Results& results);

 private:
  const GainOptions& options_;
  const Study& study_;
  segmed::Json json_;
};

/// All gains and differences, a line each.
std::vector<std::string> lines_of(const segmed::Results& results);

}  // namespace experiments
