// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <tuple>

#include "commands.hpp"
#include "gain_report.hpp"
#include "session_folder.hpp"
#include <segmed/experiment/comparison.hpp>
#include <segmed/experiment/progress.hpp>
#include <segmed/experiment/tables.hpp>

namespace experiments {

using namespace segmed;
namespace fs = std::filesystem;

namespace {

/// One model that a comparison needs.
struct PlannedRun {
  std::string policy;
  std::uint64_t seed = 1;
  Index d1 = 0;
  std::size_t hide = 0;  // which way of hiding
};

/// All models, each M_0 before what is compared with it.
std::vector<PlannedRun> planned_runs(const GainOptions& options, const Study& study) {
  std::vector<PlannedRun> runs;
  for (Index k = 0; k < options.seeds; ++k)
    for (const auto& name : options.policies) {
      if (is_baseline(name)) {
        runs.push_back({name, options.seed(k), 0, 0});
        continue;
      }
      for (std::size_t hide = 0; hide < study.hides().size(); ++hide)
        for (const Index d1 : study.d1_sizes())
          if (d1 > 0) runs.push_back({name, options.seed(k), d1, hide});
    }
  return runs;
}

/// The policies that are compared, each once and M_0 first.
std::vector<std::string> compared(const std::vector<std::string>& asked) {
  std::vector<std::string> names;
  for (const PolicyEntry* entry : policies())
    if (entry->baseline) names.push_back(entry->name);
  for (const auto& name : asked) {
    policies_asked(name);  // complains
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  require<ConfigError>(names.size() > 1, "--policies",
                       "gain compares M_0 with another policy; see --list-policies");
  return names;
}

/// Throws ConfigError for one that the others cannot be compared with.
void check_against(const GainOptions& options) {
  const std::vector<std::string> may(options.policies.begin() + 1, options.policies.end());
  std::string names;
  for (const auto& name : may) names += (names.empty() ? "" : ", ") + name;
  for (const auto& other : options.against)
    require<ConfigError>(std::count(may.begin(), may.end(), other) > 0, "--against", other,
                         " is not among those that are compared with M_0; give one of ", names);
}

/// Everything that can be wrong with the cases, before the first run starts.
void check_cases(const GainOptions& options, const Study& study) {
  require<ConfigError>(study.d0_size() > 0, "gain",
                       "give --d0 the number of cases in D_0, a file of ids, or a folder");
  require<ConfigError>(*std::max_element(study.d1_sizes().begin(), study.d1_sizes().end()) > 0,
                       "gain", "give --d1 the number of cases in D_1, a file of ids, or a folder");
  require<ConfigError>(!study.validation().empty(), "gain",
                       "give --val the number of cases in D_val, a file of ids, or a folder");
  for (const PlannedRun& run : planned_runs(options, study))
    study.hidden(study.split(run.seed, run.d1).partial, run.hide, run.seed);
}

/// What a run may use, so that M_0 and M_1 have as much.
void set_budget(RunOptions& how, const GainOptions& options, const RunResult* baseline) {
  how.steps = options.budget.steps, how.minutes = options.budget.minutes;
  if (baseline == nullptr) return;
  if (options.equal == "steps") how.steps = baseline->steps, how.minutes = 0;
  if (options.equal == "minutes" && options.budget.steps > 0)
    how.minutes = baseline->minutes, how.steps = 0;
}

Json settings_of(const GainOptions& options, const Study& study) {
  Json json;
  json["command"] = "gain";
  json["data"] = study.data_hash();
  json["classes"] = Json::list(study.cohort().classes.names);
  json["seed"] = options.study.seed;
  json["d0"] = options.study.d0;
  json["val"] = options.study.val;
  std::string hides;
  for (const auto& text : options.study.hide) hides += (hides.empty() ? "" : ",") + text;
  json["hide"] = hides;
  if (options.study.inner > 0) json["inner"] = options.study.inner;
  json["steps"] = options.budget.steps;
  json["minutes"] = options.budget.minutes;
  json["equal"] = !options.equal.empty()     ? options.equal
                  : options.budget.steps > 0 ? "steps"
                                             : "minutes";
  if (!options.equal.empty() && options.budget.steps > 0) json["equal_to_m0"] = options.equal;
  if (options.warm_start) json["start"] = "M_0";
  if (!options.budget.tuning.empty()) json["tuning"] = options.budget.tuning;
  if (options.budget.augment_on_host) json["augment_on_host"] = true;
  for (const auto& [name, value] : {std::pair{"network", options.study.network},
                                    {"loss", options.study.loss},
                                    {"optimizer", options.study.optimizer},
                                    {"normalization", options.study.normalization},
                                    {"flip", options.study.flip}})
    json[name] = value;
  for (const auto& [name, chance] : {std::pair{"elastic", options.study.elastic},
                                     {"blur", options.study.blur},
                                     {"low_resolution", options.study.low_resolution}})
    if (chance > 0) json[name] = double(chance);
  if (options.study.balance_sources) json["balance_sources"] = true;
  json["rate"] = double(options.study.rate);
  json["average"] = double(options.study.average);
  json["batch"] = options.study.plan.batch;
  json["patch"] = Json::list(options.study.plan.patch);
  json["spacing"] = Json::list(options.study.plan.spacing_mm);
  json["widths"] = Json::list(options.study.plan.widths);
  json["deep_supervision"] = options.study.deep_supervision;
  return json;
}

/// Results that were made with this command, here or elsewhere, or a ConfigError.
Results results_to_go_on_with(const std::string& path, const GainOptions& options,
                              const Study& study) {
  Results results = read_results(path);
  if (!results.settings.is_null())
    check_settings(path, results.settings, settings_of(options, study));
  const Index steps = options.budget.steps;
  const double minutes = options.budget.minutes;
  for (RunResult& run : results.runs) {
    const auto fits = [&](bool well, const auto&... what) {
      require<ConfigError>(well, "--out", path, ": ", run.policy, " of seed ", run.seed, ' ',
                           what..., "; give an empty folder, or the options it was made with");
    };
    if (run.d1 > 0 && run.hide.empty()) {  // older ones do not say
      fits(study.hides().size() == 1, "does not say what of D_1 was hidden");
      run.hide = study.hides().front();
    }
    const auto& validation = study.validation();
    fits(std::equal(run.cases.begin(), run.cases.end(), validation.begin(), validation.end(),
                    [](const CaseResult& one, const std::string& id) { return one.id == id; }),
         "was evaluated on other cases");
    if (run.d1 > 0)
      fits(run.warm == options.warm_start, run.warm ? "began" : "did not begin",
           " with the weights of M_0");
    if (run.d1 > 0 && !options.equal.empty()) continue;
    fits(steps == 0 || run.steps == steps, "took ", run.steps, " steps, not ", steps);
    fits(minutes == 0 || std::abs(run.minutes - minutes) < 0.1 * minutes, "took ",
         fixed(run.minutes, 2), " minutes, not ", fixed(minutes, 2));
  }
  return results;
}

/// A number that other cases change, and other annotations of them.
std::string number_of(const Study& study, const std::vector<LoaderCase>& full,
                      const std::vector<LoaderCase>& partial) {
  std::string text;
  for (const auto* cases : {&full, &partial}) {
    for (const LoaderCase& one : *cases) {
      text += study.cohort().info(one.index).id + '\n';
      for (const std::uint64_t word : one.left.words) text += std::to_string(word) + '\n';
    }
    text += '\n';
  }
  char hex[17];
  std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(hash_of(text)));
  return hex;
}

/// What can only be wrong with a policy and the network it gets, before the first run starts.
void check_policies(const GainOptions& options, const Recipe& first) {
  const Recipe of_m0 = recipe_for(options.policies.front(), first);
  for (const auto& policy : options.policies) {
    const Recipe recipe = recipe_for(policy, first);
    require<ConfigError>(
        !options.warm_start ||
            (recipe.network == of_m0.network && recipe.deep_supervision == of_m0.deep_supervision),
        "--warm-start", policy, " trains another network than M_0; leave it out, or start afresh");
  }
}

/// The results of all runs: of this process, of other ranks, of earlier times. Each run's stand in
/// its folder as well, so that nothing is lost with a process.
class Finished {
 public:
  Finished(Results& results, GainReport& report, std::vector<std::string> folders)
      : results_(results), report_(report), folders_(std::move(folders)) {}

  void add(const RunResult& result, const Json& curve, const std::string& folder) {
    Results one;
    one.classes = results_.classes, one.runs = {result};
    const Json record = Json::Object{{"result", to_json(one)}, {"curve", curve}};
    write_text(folder + "/result.json", record.dump(1) + "\n");
    take(record);
  }
  /// Takes what has been finished by others.
  void collect() {
    for (const auto& folder : folders_)
      if (const std::string path = folder + "/result.json"; fs::exists(path))
        take(parse_json(read_bytes(path), path));
  }
  /// Every rank learns what the others have added, whatever its file system shows of it; whether
  /// one of them was stopped.
  bool share(bool stopped) {
    if (ranks().alone()) return stopped;
    const auto all = ranks().texts(Json(mine_).dump());
    for (const auto& theirs : all) {
      const Json records = parse_json(theirs, "the results of another rank");
      for (const Json& record : records.as_array()) take(record);
    }
    mine_.clear();
    return ranks().any(stopped);
  }

 private:
  void take(const Json& record) {
    const Results taken = results_of(record.at("result"));
    for (const RunResult& run : taken.runs) {
      if (results_.find(run.policy, run.seed, run.d0, run.d1, run.hide)) return;
      results_.runs.push_back(run);
    }
    report_.add_curve(record.at("curve"));
    mine_.push_back(record);
  }

  Results& results_;
  GainReport& report_;
  std::vector<std::string> folders_;
  Json::Array mine_;  // what the others may not know
};

}  // namespace

int gain(const GainOptions& asked) {
  GainOptions options = asked;
  require<ConfigError>(
      options.equal.empty() || options.equal == "steps" || options.equal == "minutes", "--equal",
      "\"", options.equal, "\" is neither steps nor minutes");
  require<ConfigError>(options.seeds > 0, "--seeds", "give 1 or more");
  options.policies = compared(options.policies);
  check_against(options);
  const std::string m0 = options.policies.front();
  Study study(options.study);
  check_cases(options, study);
  const bool long_training = options.budget.is_long();
  const Recipe first = study.recipe(study.split(options.seed(0), 0).full, long_training);
  check_policies(options, first);
  const std::string& out = options.budget.out;
  const std::string path = out + "/results.json";
  Results results;
  if (fs::exists(path)) results = results_to_go_on_with(path, options, study);
  results.classes.assign(study.cohort().classes.names.begin() + 1,
                         study.cohort().classes.names.end());
  results.settings = settings_of(options, study);
  if (ranks().first()) claim_folder(out, results.settings);
  ranks().any(false);  // the folder is there

  auto runs = planned_runs(options, study);
  if (!ranks().alone())  // ranks take turns, and every M_1 needs its M_0
    std::stable_partition(runs.begin(), runs.end(), [](const auto& run) { return run.d1 == 0; });
  const Index d0 = study.d0_size();
  const auto folder_of = [&](const PlannedRun& run) {
    const bool several = study.hides().size() > 1 && run.d1 > 0;
    return out + "/runs/" +
           run_name(run.policy, d0, run.d1, Index(run.seed),
                    several ? study.hides()[run.hide] : "");
  };
  // What a run learns from.
  const auto cases_of = [&](const PlannedRun& run) {
    const Split split = study.split(run.seed, run.d1);
    return std::pair{study.cases(split.full), study.hidden(split.partial, run.hide, run.seed)};
  };
  const auto finished = [&](const PlannedRun& run) {
    const RunResult* const found = results.find(run.policy, Index(run.seed), d0, run.d1,
                                                run.d1 > 0 ? study.hides()[run.hide] : "");
    if (found == nullptr) return false;
    const auto [full, partial] = cases_of(run);
    require<ConfigError>(
        found->learnt_from.empty() || found->learnt_from == number_of(study, full, partial),
        "--out", out, ": holds ", run.policy, " of seed ", run.seed,
        ", which learnt from other cases; give another folder, or the same D_0 and D_1");
    return true;
  };
  GainReport report(options, study, environment());
  std::vector<std::string> folders;
  for (const PlannedRun& run : runs) folders.push_back(folder_of(run));
  Finished all(results, report, std::move(folders));
  all.collect();
  // One list for all ranks, made before the first of them goes on.
  std::vector<PlannedRun> left;
  std::copy_if(runs.begin(), runs.end(), std::back_inserter(left),
               [&](const PlannedRun& run) { return !finished(run); });
  ranks().any(false);
  Index done_runs = Index(runs.size() - left.size());
  std::printf("%s\n%s\n", first.text().c_str(),
              estimate(first, Index(left.size()), options.budget.minutes, options.budget.steps,
                       Index(left.size() * study.validation().size()), true)
                  .c_str());
  if (done_runs > 0)
    std::printf("%d of %d runs are finished; going on\n", int(done_runs), int(runs.size()));

  const auto write = [&] {
    // Ranks finish runs in turn; the plan's order makes tables that read alike.
    const auto place = [&](const RunResult& run) {
      return std::find_if(runs.begin(), runs.end(), [&](const PlannedRun& one) {
        return one.policy == run.policy && Index(one.seed) == run.seed && one.d1 == run.d1 &&
               (run.d1 == 0 || study.hides()[one.hide] == run.hide);
      });
    };
    std::stable_sort(results.runs.begin(), results.runs.end(),
                     [&](const auto& a, const auto& b) { return place(a) < place(b); });
    compare_all(results, options.against);
    write_results(out, results);
    report.write(results);
  };
  bool stopped = false, of_m0 = !ranks().alone();
  Index turn = 0;
  for (const PlannedRun& run : left) {
    if (of_m0 && run.d1 > 0) stopped = all.share(stopped), of_m0 = false;
    if (stopped || turn++ % ranks().size() != ranks().rank()) continue;
    const RunResult* base = run.d1 > 0 ? results.find(m0, Index(run.seed), d0, 0) : nullptr;
    const Split split = study.split(run.seed, run.d1);
    const Recipe recipe = recipe_for(run.policy, study.recipe(split.full, long_training));
    const std::string& hide = study.hides()[run.hide];
    const std::string folder = folder_of(run);
    RunOptions how = run_options(recipe, run.seed);
    how.name = fs::path(folder).filename(), how.ranks = {};
    set_budget(how, options, base);
    how.out = folder, how.quiet = options.study.quiet, how.replay = options.budget.replay;
    how.augment_on_host = options.budget.augment_on_host;
    std::tie(how.full, how.partial) = cases_of(run);
    const std::string learnt_from = number_of(study, *how.full, *how.partial);
    take_tuning(how, options.budget.tuning);
    TrainJob job{{study.cohort(), how}, {recipe, run.seed}, how};
    if (base != nullptr && options.warm_start)
      job.start.weights = folder_of({m0, run.seed}) + "/last.safetensors";
    const RunReport trained = train(run.policy, std::move(job));
    stopped = trained.interrupted;
    if (stopped) continue;
    RunResult result{
        run.policy,
        Index(run.seed),
        d0,
        run.d1,
        trained.seconds / 60,
        trained.steps,
        study.evaluate(Model::load(folder), study.validation(), folder + "/predictions")};
    result.learnt_from = learnt_from, result.skipped = trained.skipped;
    result.made_by = program_text();
    for (const CaseFault& fault : trained.faults)
      result.left_out.push_back(study.cohort().info(fault.index).id + ": " + fault.reason);
    if (run.d1 > 0) {
      result.hide = hide, result.warm = options.warm_start;
      result.hidden = study.hidden_part(split.partial, run.hide, run.seed);
    }
    std::printf("%3d/%d  %-20s d0 %d  d1 %-3d ", int(++done_runs), int(runs.size()),
                run.policy.c_str(), int(d0), int(run.d1));
    if (study.hides().size() > 1) std::printf("hide %-12s ", run.d1 > 0 ? hide.c_str() : "");
    std::printf("seed %d  %6d steps  %5.1f min  Dice %s", int(run.seed), int(trained.steps),
                trained.seconds / 60, fixed(result.mean_dice(), 4).c_str());
    if (base != nullptr)
      std::printf("  gain %s", fixed(result.mean_dice() - base->mean_dice(), 4, true).c_str());
    std::printf("\n");
    for (const auto& line : remarks_on(trained, how.replay)) std::printf("  %s\n", line.c_str());
    for (const auto& line : result.left_out)
      std::fprintf(stderr, "  case was left out: %s\n", line.c_str());
    all.add(result, GainReport::curve_of(run.policy, run.seed, run.d1, trained), folder);
    if (!ranks().first()) continue;
    all.collect();
    write();
  }
  stopped = all.share(stopped);
  if (!ranks().first()) return stopped ? interrupted : done;
  write();
  if (stopped) {
    std::printf("stopped; the same command goes on here\n");
    return interrupted;
  }
  for (const std::string& line : lines_of(results)) std::printf("%s\n", line.c_str());
  if (options.study.inner > 0) std::printf("%s\n", study.about_inner().c_str());
  std::printf("%s\nreport: %s\n", reading(results).c_str(),
              fs::absolute(out + "/report.html").lexically_normal().c_str());
  if (const std::string mixed = mixture(results); !mixed.empty())
    std::fprintf(stderr, "%s\n", mixed.c_str());
  const bool whole = std::all_of(results.runs.begin(), results.runs.end(),
                                 [](const RunResult& run) { return run.left_out.empty(); });
  if (!whole)
    std::printf("some runs could not load all of their cases; see left_out in %s\n", path.c_str());
  return study.quarantined() > 0 || !whole ? cases_skipped : done;
}

}  // namespace experiments
