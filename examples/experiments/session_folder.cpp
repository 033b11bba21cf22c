// SPDX-License-Identifier: Apache-2.0
#include "session_folder.hpp"

#include <cctype>
#include <ctime>
#include <filesystem>

#include "commands.hpp"
#include "device.hpp"
#include <segmed/backend/convolution_mode.hpp>
#include <segmed/backend/targets.hpp>
#include <segmed/experiment/progress.hpp>

namespace experiments {

using namespace segmed;
namespace fs = std::filesystem;

std::string run_name(const std::string& policy, Index d0, Index d1, Index seed,
                     const std::string& hide) {
  const auto plain = [](std::string text) {
    const std::uint64_t number = hash_of(text);
    for (char& c : text)
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_' && c != '+') c = '-';
    if (text.size() <= 160) return text;
    return text.substr(0, 140) + '-' + std::to_string(number);  // a file's name has 255 bytes
  };
  const std::string name = plain(policy) + "_d0-" + std::to_string(d0) + "_d1-" +
                           std::to_string(d1) + "_seed-" + std::to_string(seed);
  return hide.empty() ? name : name + "_hide-" + plain(hide);
}

namespace {

#if defined(SEGMED_REVISION)
constexpr char revision[] = SEGMED_REVISION;
#else
constexpr char revision[] = "";  // not built from a repository
#endif

/// Nothing at all, or published results, to which runs are added.
bool may_be_claimed(const std::string& out) {
  for (const auto& entry : fs::directory_iterator(out))
    if (entry.path().filename() != "results.json") return false;
  return true;
}

}  // namespace

void claim_folder(const std::string& out, const Json& settings) {
  const std::string path = out + "/settings.json";
  std::error_code failed;
  fs::create_directories(out, failed);
  require<FileError>(!failed, "--out", out, ": cannot be made: ", failed.message());
  if (!fs::exists(path)) {
    require<ConfigError>(may_be_claimed(out), "--out", out,
                         ": holds files that are not of a run; give an empty folder");
    write_text(path, settings.dump(1) + "\n");
    return;
  }
  remove_unfinished(out);
  check_settings(out, parse_json(read_bytes(path), path), settings);
}

void check_settings(const std::string& where, const Json& before, const Json& settings) {
  for (const auto& [name, value] : before.as_object())
    require<ConfigError>(settings.has(name), "--out", where, ": holds another run, with ", name,
                         ' ', value.dump(),
                         "; give another folder, or the same options to go on with it");
  for (const auto& [name, value] : settings.as_object()) {
    const Json* old = before.find(name);
    require<ConfigError>(old != nullptr && *old == value, "--out", where,
                         ": holds another run, with ", name, ' ', old ? old->dump() : "unset",
                         " instead of ", value.dump(),
                         "; give another folder, or the same options to go on with it");
  }
}

Json environment() {
  char now[32];
  const std::time_t time = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&time, &utc);
  std::strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &utc);
  Json json;
  json["segmed"] = std::to_string(SEGMED_VERSION_MAJOR) + "." +
                   std::to_string(SEGMED_VERSION_MINOR) + "." +
                   std::to_string(SEGMED_VERSION_PATCH);
  if (revision[0] != 0) json["revision"] = std::string(revision);
  json["compiler"] = __VERSION__;
  json["instruction_set"] = kernels<float>().set;
  json["device"] = device_in_use();
  json["convolutions"] = name_of(convolution_mode());
  json["arithmetic"] = units().arithmetic();
  json["threads"] = Index(threads());
  json["time"] = now;
  return json;
}

std::string program_text() {
  const Json about = environment();
  const Index on = about.at("threads").as_index();
  const std::string commit = revision[0] != 0 ? std::string(" at ") + revision : std::string();
  return "segmed " + about.at("segmed").as_string() + commit + " (" +
         about.at("arithmetic").as_string() + ", compiler " + about.at("compiler").as_string() +
         ", " + std::to_string(on) + (on == 1 ? " thread)" : " threads)");
}

RunOptions run_options(const Recipe& recipe, std::uint64_t seed) {
  RunOptions options;
  options.seed = seed;
  options.patch = recipe.plan.patch;
  options.batch = recipe.plan.batch;
  options.preparation = recipe.plan.preparation;
  options.average = recipe.average;
  options.balance_sources = recipe.balance_sources;
  for (std::size_t axis = 0; axis < 3; ++axis)
    options.augment.flip[axis] = recipe.flip.find("xyz"[axis]) != recipe.flip.npos ? 0.5f : 0.0f;
  options.augment.elastic_chance = recipe.elastic;
  options.augment.weak.blur_chance = recipe.blur;
  options.augment.weak.low_resolution_chance = recipe.low_resolution;
  options.schedule = WarmUp<Poly>{0.02f, {}};
  options.stop = &stop_requested;
  options.resume = true;
  options.ranks = ranks();
  options.card.network = recipe.network;
  options.card.options = to_json(recipe).dump();
  options.card.classes = recipe.classes.names;
  options.card.spacing.assign(recipe.plan.preparation.spacing_mm.begin(),
                              recipe.plan.preparation.spacing_mm.end());
  options.card.normalization = to_json(recipe.plan.preparation.normalization).dump();
  options.card.arithmetic = units().arithmetic();
  return options;
}

void take_tuning(RunOptions& options, const std::string& file) {
  std::string table;
  const std::string path = options.out + "/last.safetensors";
  if (!options.out.empty() && fs::exists(path)) {
    const Checkpoint point = Checkpoint::read(path);
    // Made elsewhere, which the run will say.
    if (point.card.arithmetic != options.card.arithmetic) return;
    const auto kept = point.texts.find("tuning");
    if (kept != point.texts.end()) table = kept->second;
  } else if (!file.empty()) {
    table = read_bytes(file);
  }
  static std::string in_use;
  if (table != in_use) units().use_tuning(table);
  in_use = table;
  if (!table.empty()) options.metadata["tuning"] = table;
}

std::vector<std::string> remarks_on(const RunReport& report, bool replay) {
  std::vector<std::string> lines;
  if (report.skipped > 0)
    lines.push_back(std::to_string(report.skipped) + " of " + std::to_string(report.steps) +
                    " steps had no finite gradient and moved nothing");
  if (replay)
    lines.push_back(std::to_string(report.replayed) + " of " + std::to_string(report.steps) +
                    " steps were replayed" +
                    (report.replay_refusal.empty() ? "" : ": " + report.replay_refusal));
  const auto plans = units().plans(false), plain = units().plans(true);
  if (!plans.empty())
    lines.push_back(
        std::to_string(plans.size()) + " graphs of convolutions, " +
        (plain.empty() ? "all by cuDNN" : std::to_string(plain.size()) + " by plain kernels:"));
  lines.insert(lines.end(), plain.begin(), plain.end());
  return lines;
}

std::string estimate(const Recipe& recipe, Index runs, double minutes, Index steps,
                     Index cases_to_predict, bool with_d1) {
  std::string text = std::to_string(runs) + (runs == 1 ? " run of " : " runs of ");
  text += minutes > 0 ? duration_text(60 * minutes) : std::to_string(steps) + " steps";
  if (minutes > 0)
    text += ", " + duration_text(60 * minutes * double(runs)) + " of training in all";
  if (cases_to_predict > 0) text += ", " + std::to_string(cases_to_predict) + " predictions";
  return text + ", about " + std::to_string(estimated_bytes(recipe, with_d1) >> 20) +
         " MiB beside the scans";
}

}  // namespace experiments
