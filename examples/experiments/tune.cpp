// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "commands.hpp"
#include "device.hpp"
#include "session_folder.hpp"

namespace experiments {

using namespace segmed;

int tune(const TuneOptions& options) {
  units().tune(options.engines);
  const Study study(options.study);
  const Split split = study.training_split();
  const Recipe recipe =
      recipe_for(options.policy, study.recipe(split.full, options.budget.is_long()));
  std::printf("%s\n", recipe.text().c_str());
  // One step of training meets every convolution, forward and backward; a prediction those of one
  // case at a time.
  RunOptions how = run_options(recipe, options.study.seed);
  how.name = "tune", how.steps = 1, how.quiet = options.study.quiet;
  how.full = study.cases(split.full);
  const bool alone = is_baseline(options.policy);
  how.partial =
      study.hidden(alone ? std::vector<std::string>{} : split.partial, 0, options.study.seed);
  train(options.policy, {{study.cohort(), how}, {recipe, options.study.seed}, how});
  units().label_blank_patch(recipe);
  for (const std::string& plan : units().plans(false)) std::printf("%s\n", plan.c_str());
  units().tune(0);
  write_text(options.budget.out, units().tuning() + "\n");
  return done;
}

}  // namespace experiments
