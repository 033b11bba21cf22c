// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <filesystem>

#include "commands.hpp"
#include "device.hpp"
#include "session_folder.hpp"
#include <segmed/experiment/tables.hpp>

namespace experiments {

using namespace segmed;

int train(const TrainOptions& options) {
  require<ConfigError>(options.study.hide.size() == 1, "--hide",
                       "train makes one model; give one way of hiding, or use experiments gain");
  Study study(options.study);
  const std::string& out = options.budget.out;
  const Index d1 = study.d1_sizes().back();
  const Split split = study.training_split();
  const Recipe recipe =
      recipe_for(options.policy, study.recipe(split.full, options.budget.is_long()));
  const bool with_d1 = !is_baseline(options.policy) && !split.partial.empty();
  std::printf("%d cases in D_0, %d in D_1, %d in D_val\n%s\n%s\n", int(split.full.size()),
              int(split.partial.size()), int(split.validation.size()), recipe.text().c_str(),
              estimate(recipe, 1, options.budget.minutes, options.budget.steps,
                       Index(split.validation.size()), with_d1)
                  .c_str());
  Json settings;
  settings["command"] = "train";
  settings["recipe"] = to_json(recipe);
  settings["policy"] = options.policy;
  settings["seed"] = options.study.seed;
  settings["steps"] = options.budget.steps;
  settings["minutes"] = options.budget.minutes;
  settings["hide"] = options.study.hide[0];
  settings["data"] = study.data_hash();
  settings["d0"] = Json::list(split.full);
  settings["d1"] = Json::list(split.partial);
  settings["validation"] = Json::list(split.validation);
  if (!options.budget.tuning.empty()) settings["tuning"] = options.budget.tuning;
  settings["arguments"] = options.command_line;
  if (ranks().first()) claim_folder(out, settings);
  ranks().any(false);  // the folder is there

  RunOptions how = run_options(recipe, options.study.seed);
  how.name = options.policy;
  how.steps = options.budget.steps, how.minutes = options.budget.minutes;
  how.out = out, how.quiet = options.study.quiet, how.replay = options.budget.replay;
  how.augment_on_host = options.budget.augment_on_host;
  how.full = study.cases(split.full);
  how.partial =
      with_d1 ? study.hidden(split.partial, 0, options.study.seed) : std::vector<LoaderCase>{};
  take_tuning(how, options.budget.tuning);
  const RunReport report =
      train(options.policy, {{study.cohort(), how}, {recipe, options.study.seed}, how});
  if (!ranks().first()) return report.interrupted ? interrupted : done;
  if (report.interrupted) {
    std::printf("stopped after %d steps; go on with: experiments train --resume %s\n",
                int(report.steps), out.c_str());
    return interrupted;
  }
  Json manifest = environment();
  manifest["settings"] = settings;
  manifest["hooks"] = Json::list(report.hooks);
  manifest["steps"] = report.steps;
  manifest["seconds"] = report.seconds;
  manifest["replayed"] = report.replayed;
  if (!report.replay_refusal.empty()) manifest["replay_refusal"] = report.replay_refusal;
  manifest["plans"] = Json::list(units().plans(false));
  write_text(out + "/manifest.json", manifest.dump(1) + "\n");
  if (!split.validation.empty()) {
    Results results;
    results.classes.assign(recipe.classes.names.begin() + 1, recipe.classes.names.end());
    results.runs.push_back(
        {options.policy, Index(options.study.seed), Index(split.full.size()), with_d1 ? d1 : 0,
         report.seconds / 60, report.steps,
         study.evaluate(Model::load(out), split.validation, out + "/predictions")});
    write_results(out, results);
    std::printf("mean Dice %s, HD95 %s mm over %d cases after %d steps in %.1f minutes\n",
                fixed(results.runs[0].mean_dice(), 4).c_str(),
                fixed(results.runs[0].mean_hd95(), 2).c_str(), int(split.validation.size()),
                int(report.steps), report.seconds / 60);
  }
  for (const auto& line : remarks_on(report, how.replay)) std::printf("%s\n", line.c_str());
  for (const CaseFault& fault : report.faults)
    std::fprintf(stderr, "case %d was left out: %s\n", int(fault.index), fault.reason.c_str());
  return study.quarantined() > 0 || !report.faults.empty() ? cases_skipped : done;
}

}  // namespace experiments
