// SPDX-License-Identifier: Apache-2.0
// The folder that a command writes into, and what it says of the run in manifest.json.
#pragma once
#include <string>

#include "study.hpp"

namespace experiments {

/// Where a comparison keeps one model: policy, sizes and seed, below its runs/; and how labels were
/// hidden, where it compares several ways.
std::string run_name(const std::string& policy, segmed::Index d0, segmed::Index d1,
                     segmed::Index seed, const std::string& hide = {});

/// Makes `out`, or checks that it holds this very run: `settings` are compared with those in
/// out/settings.json. A results.json alone is no obstacle: who reads it looks whether it fits.
///
///   throws   ConfigError naming the first setting that differs; FileError when it cannot be made
void claim_folder(const std::string& out, const segmed::Json& settings);
/// Throws ConfigError naming the first setting in which the runs at `where` differ.
void check_settings(const std::string& where, const segmed::Json& before,
                    const segmed::Json& settings);

/// Version, commit, compiler, instruction set and time of this program.
segmed::Json environment();
/// This program as a run's results name it: what its bits and its pace depend on.
std::string program_text();

/// The training options that follow from a recipe.
segmed::RunOptions run_options(const Recipe& recipe, std::uint64_t seed);

/// Has the device compute convolutions as the checkpoint in `options.out` says that its run did; a
/// run that starts takes the table of `file`, unless that is empty, and keeps it in its
/// checkpoints.
///
///   throws   ConfigError for a table of another GPU architecture or version of cuDNN
void take_tuning(segmed::RunOptions& options, const std::string& file);

/// What a user should know of how a training was computed: whether steps were replayed, and which
/// convolutions no engine of cuDNN did.
std::vector<std::string> remarks_on(const segmed::RunReport& report, bool replay);

/// "9 min 20 s of training in 4 runs, about 240 MiB": said before work starts.
std::string estimate(const Recipe& recipe, segmed::Index runs, double minutes, segmed::Index steps,
                     segmed::Index cases_to_predict, bool with_d1);

}  // namespace experiments
