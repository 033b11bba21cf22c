// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <filesystem>

#include "commands.hpp"
#include "gain_report.hpp"
#include "session_folder.hpp"
#include <segmed/experiment/progress.hpp>

namespace experiments {

using namespace segmed;
namespace fs = std::filesystem;

namespace {

/// One model that a comparison needs.
struct PlannedRun {
  std::string policy;
  std::uint64_t seed = 1;
  Index d1 = 0;
};

std::vector<PlannedRun> planned_runs(const GainOptions& options, const Study& study) {
  std::vector<PlannedRun> runs;
  for (Index k = 0; k < options.seeds; ++k) {
    const std::uint64_t seed = options.study.seed + std::uint64_t(k);
    for (const auto& name : options.policies) {
      if (policy_named(name).baseline) {
        runs.push_back({name, seed, 0});
        continue;
      }
      for (const Index d1 : study.d1_sizes())
        if (d1 > 0) runs.push_back({name, seed, d1});
    }
  }
  return runs;
}

Json settings_of(const GainOptions& options, const Study& study) {
  Json json;
  json["command"] = "gain";
  json["data"] = study.data_hash();
  json["classes"] = Json::list(study.cohort().classes.names);
  json["seed"] = options.study.seed;
  json["d0"] = options.study.d0;
  json["val"] = options.study.val;
  json["hide"] = options.study.hide;
  json["steps"] = options.budget.steps;
  json["minutes"] = options.budget.minutes;
  json["equal"] = options.equal;
  for (const auto& [name, value] : {std::pair{"network", options.study.network},
                                    {"loss", options.study.loss},
                                    {"optimizer", options.study.optimizer},
                                    {"normalization", options.study.normalization},
                                    {"flip", options.study.flip}})
    json[name] = value;
  json["rate"] = double(options.study.rate);
  json["average"] = double(options.study.average);
  json["batch"] = options.study.plan.batch;
  json["patch"] = Json::list(options.study.plan.patch);
  json["spacing"] = Json::list(options.study.plan.spacing_mm);
  json["widths"] = Json::list(options.study.plan.widths);
  json["deep_supervision"] = options.study.deep_supervision;
  return json;
}

}  // namespace

int gain(const GainOptions& options) {
  require<ConfigError>(options.equal == "steps" || options.equal == "minutes", "--equal", "\"",
                       options.equal, "\" is neither steps nor minutes");
  for (const auto& name : options.policies) policy_named(name);
  Study study(options.study);
  require<ConfigError>(study.d0_size() > 0, "gain", "give --d0 the number of cases in D_0");
  require<ConfigError>(!study.validation().empty(), "gain",
                       "give --val the number of cases in D_val");
  const std::string& out = options.budget.out;
  claim_folder(out, settings_of(options, study));
  const std::string path = out + "/results.json";
  Results results;
  results.classes.assign(study.cohort().classes.names.begin() + 1,
                         study.cohort().classes.names.end());
  if (fs::exists(path)) results = read_results(path);

  const auto runs = planned_runs(options, study);
  const Index d0 = study.d0_size();
  Index left = 0;
  for (const PlannedRun& run : runs)
    left += results.find(run.policy, Index(run.seed), d0, run.d1) == nullptr;
  const bool long_training = options.budget.is_long();
  const Recipe first = study.recipe(study.split(options.study.seed, 0).full, long_training);
  std::printf("%s\n%s\n", first.text().c_str(),
              estimate(first, left, options.budget.minutes, options.budget.steps,
                       left * Index(study.validation().size()), true)
                  .c_str());
  if (left < Index(runs.size()))
    std::printf("%d of %d runs are finished; going on\n", int(Index(runs.size()) - left),
                int(runs.size()));

  GainReport report(options, study, environment());
  for (const PlannedRun& run : runs) {
    if (results.find(run.policy, Index(run.seed), d0, run.d1)) continue;
    const Split split = study.split(run.seed, run.d1);
    const Recipe recipe = study.recipe(split.full, long_training);
    const std::string name = run_name(run.policy, d0, run.d1, Index(run.seed));
    const std::string folder = out + "/runs/" + name;
    RunOptions how = run_options(recipe, run.seed);
    how.name = name;
    how.steps = options.budget.steps, how.minutes = options.budget.minutes;
    if (const RunResult* base = results.find("supervised", Index(run.seed), d0, 0);
        base && options.equal == "steps" && options.budget.minutes > 0) {
      how.steps = base->steps, how.minutes = 0;
    }
    how.out = folder, how.quiet = options.study.quiet;
    how.full = study.cases(split.full, false, run.seed);
    how.partial = study.cases(split.partial, true, run.seed);
    const RunReport trained = train(run.policy, {{study.cohort(), how}, recipe, how});
    if (trained.interrupted) {
      std::printf("stopped; the same command goes on here\n");
      return interrupted;
    }
    RunResult result{
        run.policy,
        Index(run.seed),
        d0,
        run.d1,
        trained.seconds / 60,
        trained.steps,
        study.evaluate(Model::load(folder), study.validation(), folder + "/predictions")};
    std::printf("%-20s d0 %d  d1 %-3d seed %d  %6d steps  %5.1f min  Dice %s\n", run.policy.c_str(),
                int(d0), int(run.d1), int(run.seed), int(trained.steps), trained.seconds / 60,
                fixed(result.mean_dice(), 4).c_str());
    std::fflush(stdout);
    results.runs.push_back(std::move(result));
    compare_runs(results);
    write_results(out, results);
    report.add_curve(run.policy, run.seed, run.d1, trained);
    report.write(results);
  }
  compare_runs(results);
  report.write(results);
  for (const GainResult& gained : results.gains)
    std::printf("gain of %s with %d cases more: %s (%s to %s), p %s\n", gained.policy.c_str(),
                int(gained.d1), fixed(gained.gain, 4, true).c_str(),
                fixed(gained.low, 4, true).c_str(), fixed(gained.high, 4, true).c_str(),
                p_text(gained.p).c_str());
  std::printf("report: %s\n", fs::absolute(out + "/report.html").lexically_normal().c_str());
  return study.quarantined() > 0 ? cases_skipped : done;
}

}  // namespace experiments
