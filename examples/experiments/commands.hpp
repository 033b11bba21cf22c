// SPDX-License-Identifier: Apache-2.0
// The commands, each in a .cpp of its own; main.cpp fills their options from the command line. A
// command returns the program's exit code.
#pragma once
#include <atomic>
#include <functional>

#include "study.hpp"

namespace experiments {

/// Exit codes of the program.
enum Exit : int {
  done = 0,
  failed = 1,
  usage = 2,
  bad_input = 3,
  out_of_memory = 4,
  disk = 5,
  interrupted = 6,
  cases_skipped = 7,
};

/// Set by Ctrl-C.
extern std::atomic<bool> stop_requested;

/// Who works on this command together: those that mpirun started with --distributed, else nobody.
/// The first of them prints and writes.
const segmed::Ranks& ranks();
/// Runs a command together with the others. A rank that waits longer than `patience` seconds for
/// them, unless that is 0, ends all.
int together(double patience, const std::function<int()>& command);
/// The number of this process among those of its machine that work together.
int local_rank();
/// Trains with ranks that add their gradients on the GPUs, where those were chosen: each has one.
/// After `choose_device`.
int adding_on_device(const std::function<int()>& training);
/// Prints an error; where several ranks work together, ends all of them with that exit code.
void end_with(const std::string& error, int code);

/// Budget and place of training runs.
struct BudgetOptions {
  segmed::Index steps = 0;
  double minutes = 0;
  std::string out;
  std::string tuning;
  bool replay = false, augment_on_host = false;
  /// Whether a larger network pays: docs/results.md, "Which network for how long".
  bool is_long() const { return minutes >= 5 || steps >= 2500; }
};

struct PhantomOptions {
  segmed::Index cases = 24, organs = 10;
  segmed::Extent3 extent = {96, 96, 96};
  double spacing_mm = 4;
  std::uint64_t seed = 1;
  std::string out;
};
int phantom(const PhantomOptions& options);

struct InspectOptions {
  std::string data;
  segmed::FolderOptions folder;
  bool json = false;
};
int inspect(const InspectOptions& options);

struct ConvertCommand {
  std::string in, out, orient, interpolation;
  std::vector<double> spacing;
};
int convert(const ConvertCommand& options);

struct TrainOptions {
  StudyOptions study;
  BudgetOptions budget;
  std::string policy = "supervised", resume;
  std::string command_line;
};
int train(const TrainOptions& options);

struct TuneOptions {
  StudyOptions study;
  BudgetOptions budget;  // of the training to come; `out` is a file
  std::string policy = "supervised";
  int engines = 8;
};
int tune(const TuneOptions& options);

struct GainOptions {
  StudyOptions study;
  BudgetOptions budget;
  std::vector<std::string> policies = {"supervised", "partial_completion"};
  std::vector<std::string> against;  // those of them that the others are compared with, beside M_0
  segmed::Index seeds = 3, first_seed = -1;  // -1: that of the study
  std::string equal;                         // steps or minutes; empty: what the budget is given in
  bool warm_start = false;
  std::uint64_t seed(segmed::Index k) const {
    return (first_seed < 0 ? study.seed : std::uint64_t(first_seed)) + std::uint64_t(k);
  }
  std::string command_line;
};
int gain(const GainOptions& options);

struct PredictOptions {
  std::string model, in, out;
  bool mirror = false, quiet = false;
};
int predict(const PredictOptions& options);

struct EvaluateOptions {
  std::string prediction, truth;
  std::vector<std::string> class_names;
  bool json = false;
};
int evaluate(const EvaluateOptions& options);

struct ReportOptions {
  std::string folder;
  std::vector<std::string> against;
};
int report(const ReportOptions& options);

}  // namespace experiments
