// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <segmed/core/annotated_set.hpp>
#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>
#include <segmed/core/json.hpp>
#include <segmed/experiment/statistics.hpp>
#include <segmed/train/metrics.hpp>
#include <segmed/train/safetensors.hpp>

namespace segmed {

/// A case's scores by foreground class: NaN where the class has none. Class c of a label map stands
/// at c - 1.
struct CaseResult {
  std::string id;
  AnnotatedSet annotated;
  std::vector<double> dice, hd95;

  static CaseResult of(const CaseScore& score) {
    CaseResult result{score.id, {}, {}, {}};
    for (std::size_t c = 1; c < score.classes.size(); ++c) {
      const ClassScore& one = score.classes[c];
      if (one.presence != Presence::not_annotated)
        result.annotated = result.annotated.with(Index(c));
      result.dice.push_back(one.dice);
      result.hd95.push_back(one.hd95);
    }
    return result;
  }
};

/// One trained model: how it was trained, and its scores on D_val.
struct RunResult {
  std::string policy;
  Index seed = 0, d0 = 0, d1 = 0;
  double minutes = 0;
  Index steps = 0;
  std::vector<CaseResult> cases;
  std::string hide = {};         // how D_1's labels were hidden, as --hide takes it; M_0: empty
  double hidden = undefined;     // the part of D_1's annotations that was hidden
  bool warm = false;             // began with the weights of M_0
  std::string learnt_from = {};  // tells other cases or other annotations; empty: not known
  std::vector<std::string> left_out = {};  // cases that could not be loaded, and why
  Index skipped = 0;                       // steps without a finite gradient
  std::string made_by = {};                // the program, as it computed; empty: not known

  /// Each case's mean over its classes.
  std::vector<double> case_means() const {
    std::vector<double> means;
    for (const CaseResult& one : cases) means.push_back(mean_of(one.dice));
    return means;
  }
  double mean_dice() const { return mean_of(case_means()); }
  double mean_hd95() const {
    std::vector<double> means;
    for (const CaseResult& one : cases) means.push_back(mean_of(one.hd95));
    return mean_of(means);
  }
  /// The mean of one class (by its place in the list of foreground classes) over cases.
  double class_mean(std::vector<double> CaseResult::*score, std::size_t c) const {
    DefinedMean mean;
    for (const CaseResult& one : cases)
      if (c < (one.*score).size()) mean.add((one.*score)[c]);
    return mean.value();
  }
};

/// M_1 minus M_0 of the same seeds and sizes, or minus another policy's M_1: the mean Dice, its
/// interval, Wilcoxon's p over cases.
struct GainResult {
  std::string policy;
  Index d0 = 0, d1 = 0;
  double gain = undefined, low = undefined, high = undefined, p = undefined;
  std::vector<double> seeds = {};
  std::string hide = {};
  double hidden = undefined;
  std::string against = {};  // the other policy; empty: M_0
  bool together = false;     // of several sizes and ways of hiding: d1 and hide say nothing
  bool of(const RunResult& run) const {
    return policy == run.policy && d0 == run.d0 && d1 == run.d1 && hide == run.hide;
  }
};

/// Everything that a comparison has found so far.
struct Results {
  std::vector<std::string> classes;  // foreground
  std::vector<RunResult> runs;
  std::vector<GainResult> gains;
  std::vector<GainResult> differences;  // to other policies, as far as that was asked for
  Json settings = {};                   // what all runs have in common, if their program said so

  /// The run of that kind, or nullptr.
  const RunResult* find(const std::string& policy, Index seed, Index d0, Index d1,
                        const std::string& hide = {}) const {
    for (const RunResult& run : runs)
      if (run.policy == policy && run.seed == seed && run.d0 == d0 && run.d1 == d1 &&
          run.hide == hide)
        return &run;
    return nullptr;
  }
  /// All runs of a policy at one size and one way of hiding.
  std::vector<const RunResult*> runs_of(const std::string& policy, Index d0, Index d1,
                                        const std::string& hide = {}) const {
    std::vector<const RunResult*> all;
    for (const RunResult& run : runs)
      if (run.policy == policy && run.d0 == d0 && run.d1 == d1 && run.hide == hide)
        all.push_back(&run);
    return all;
  }
  std::vector<const RunResult*> runs_of(const GainResult& gain) const {
    return runs_of(gain.policy, gain.d0, gain.d1, gain.hide);
  }
  /// The M_0 of each run that has one: what its gain is counted from.
  std::vector<const RunResult*> partners_of(const std::vector<const RunResult*>& made,
                                            const std::string& baseline = "supervised") const {
    std::vector<const RunResult*> all;
    for (const RunResult* run : made)
      if (const RunResult* partner = find(baseline, run->seed, run->d0, 0)) all.push_back(partner);
    return all;
  }
  /// The order to show gains in: the largest first, those that lack seeds behind.
  static bool leads(const GainResult& a, const GainResult& b) {
    return a.seeds.size() != b.seeds.size() ? a.seeds.size() > b.seeds.size() : a.gain > b.gain;
  }
  /// The first in that order, or nullptr.
  const GainResult* best() const {
    const GainResult* found = nullptr;
    for (const GainResult& gain : gains)
      if (found == nullptr || leads(gain, *found)) found = &gain;
    return found;
  }
  /// Whether D_1's labels were hidden in several ways.
  bool hides_differ() const {
    return std::any_of(gains.begin(), gains.end(),
                       [&](const GainResult& gain) { return gain.hide != gains[0].hide; });
  }
};

/// {class: score} of a case: null where the class is absent and not predicted; a class that is not
/// annotated does not stand there.
inline Json class_scores(const std::vector<std::string>& classes, const CaseResult& one,
                         const std::vector<double>& scores) {
  Json::Object members;
  for (std::size_t c = 0; c < classes.size() && c < scores.size(); ++c)
    if (one.annotated.has(Index(c) + 1)) members.push_back({classes[c], scores[c]});
  return members;
}

inline Json to_json(const Results& results) {
  Json json = Json::Object{
      {"classes", Json::list(results.classes)}, {"runs", Json::Array{}}, {"gains", Json::Array{}}};
  const auto summary = [&](const RunResult& run, double mean,
                           std::vector<double> CaseResult::*score) {
    Json::Object per_class;
    for (std::size_t c = 0; c < results.classes.size(); ++c)
      per_class.push_back({results.classes[c], run.class_mean(score, c)});
    return Json(Json::Object{{"mean", mean}, {"per_class", std::move(per_class)}});
  };
  if (!results.settings.is_null()) json["settings"] = results.settings;
  for (const RunResult& run : results.runs) {
    Json::Array cases;
    for (const CaseResult& one : run.cases)
      cases.push_back(Json::Object{{"id", one.id},
                                   {"dice", class_scores(results.classes, one, one.dice)},
                                   {"hd95", class_scores(results.classes, one, one.hd95)}});
    json["runs"].push_back(Json::Object{{"policy", run.policy},
                                        {"seed", run.seed},
                                        {"d0", run.d0},
                                        {"d1", run.d1},
                                        {"minutes", run.minutes},
                                        {"steps", run.steps},
                                        {"hide", run.hide},
                                        {"hidden", run.hidden},
                                        {"warm", run.warm},
                                        {"learnt_from", run.learnt_from},
                                        {"left_out", Json::list(run.left_out)},
                                        {"skipped", run.skipped},
                                        {"made_by", run.made_by},
                                        {"dice", summary(run, run.mean_dice(), &CaseResult::dice)},
                                        {"hd95", summary(run, run.mean_hd95(), &CaseResult::hd95)},
                                        {"cases", std::move(cases)}});
  }
  const auto all = [](const GainResult& gain) {
    Json::Object members{{"policy", gain.policy}, {"d0", gain.d0},
                         {"d1", gain.d1},         {"hide", gain.hide},
                         {"hidden", gain.hidden}, {"gain", gain.gain},
                         {"low", gain.low},       {"high", gain.high},
                         {"p", gain.p},           {"seeds", Json::list(gain.seeds)}};
    if (!gain.against.empty()) members.push_back({"against", gain.against});
    if (gain.together) members.push_back({"together", true});
    return members;
  };
  for (const GainResult& gain : results.gains) json["gains"].push_back(all(gain));
  if (!results.differences.empty()) json["differences"] = Json::Array{};
  for (const GainResult& gain : results.differences) json["differences"].push_back(all(gain));
  return json;
}

/// What `evaluate --json` prints: means over cases, of each class, and each case's scores.
inline Json evaluation_json(const std::vector<std::string>& classes,
                            const std::vector<CaseScore>& cases) {
  const ScoreSummary all = ScoreSummary::of(cases);
  Json json;
  json["mean"] = Json::Object{{"dice", all.dice.value()},
                              {"iou", all.iou.value()},
                              {"hd95", all.hd95.value()},
                              {"assd", all.assd.value()}};
  json["per_class"] = Json::Object{};
  for (std::size_t c = 0; c < classes.size(); ++c) {
    const ClassSummary sum = c + 1 < all.classes.size() ? all.classes[c + 1] : ClassSummary{};
    json["per_class"][classes[c]] = Json::Object{
        {"dice", sum.dice.value()}, {"iou", sum.iou.value()},   {"hd95", sum.hd95.value()},
        {"assd", sum.assd.value()}, {"cases", sum.annotated},   {"absent", sum.absent},
        {"missed", sum.missed},     {"invented", sum.invented}, {"found", sum.found}};
  }
  json["cases"] = Json::Array{};
  for (const CaseScore& score : cases) {
    const CaseResult one = CaseResult::of(score);
    json["cases"].push_back(Json::Object{{"id", one.id},
                                         {"dice", class_scores(classes, one, one.dice)},
                                         {"hd95", class_scores(classes, one, one.hd95)}});
  }
  return json;
}

/// Throws DataError where a member is missing, of another kind, or names an unknown class.
inline Results results_of(const Json& json) {
  const auto number = [](const Json& value) {
    return value.is_null() ? undefined : value.as_number();
  };
  const auto about_hiding = [&](const Json& from, auto& to) {  // older files do not say it
    if (const Json* hide = from.find("hide")) to.hide = hide->as_string();
    if (const Json* hidden = from.find("hidden")) to.hidden = number(*hidden);
  };
  Results results;
  if (const Json* settings = json.find("settings")) results.settings = *settings;
  for (const Json& name : json.at("classes").as_array())
    results.classes.push_back(name.as_string());
  const auto place = [&](const std::string& name) {
    const auto at = std::find(results.classes.begin(), results.classes.end(), name);
    require<DataError>(at != results.classes.end(), "results", "class ", name,
                       " is not in the list");
    return std::size_t(at - results.classes.begin());
  };
  for (const Json& from : json.at("runs").as_array()) {
    RunResult run{from.at("policy").as_string(),
                  from.at("seed").as_index(),
                  from.at("d0").as_index(),
                  from.at("d1").as_index(),
                  number(from.at("minutes")),
                  from.at("steps").as_index(),
                  {}};
    about_hiding(from, run);
    if (const Json* warm = from.find("warm")) run.warm = warm->as_bool();
    if (const Json* cases = from.find("learnt_from")) run.learnt_from = cases->as_string();
    if (const Json* skipped = from.find("skipped")) run.skipped = skipped->as_index();
    if (const Json* program = from.find("made_by")) run.made_by = program->as_string();
    if (const Json* left_out = from.find("left_out"))
      for (const Json& one : left_out->as_array()) run.left_out.push_back(one.as_string());
    for (const Json& item : from.at("cases").as_array()) {
      CaseResult one{item.at("id").as_string(), {}, {}, {}};
      one.dice.assign(results.classes.size(), undefined);
      one.hd95 = one.dice;
      for (const auto& [name, score] : item.at("dice").as_object()) {
        one.annotated = one.annotated.with(Index(place(name)) + 1);
        one.dice[place(name)] = number(score);
      }
      if (const Json* hd95 = item.find("hd95"))
        for (const auto& [name, score] : hd95->as_object()) one.hd95[place(name)] = number(score);
      run.cases.push_back(std::move(one));
    }
    results.runs.push_back(std::move(run));
  }
  const auto gain_of = [&](const Json& from) {
    GainResult gain{from.at("policy").as_string(), from.at("d0").as_index(),
                    from.at("d1").as_index(),      number(from.at("gain")),
                    number(from.at("low")),        number(from.at("high")),
                    number(from.at("p")),          {}};
    about_hiding(from, gain);
    for (const Json& seed : from.at("seeds").as_array()) gain.seeds.push_back(number(seed));
    if (const Json* other = from.find("against")) gain.against = other->as_string();
    if (const Json* together = from.find("together")) gain.together = together->as_bool();
    return gain;
  };
  for (const Json& from : json.at("gains").as_array()) results.gains.push_back(gain_of(from));
  if (const Json* differences = json.find("differences"))
    for (const Json& from : differences->as_array()) results.differences.push_back(gain_of(from));
  return results;
}

/// Writes text as a file that is whole or not there.
///
///   throws   FileError when a folder or the space for it is missing
inline void write_text(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

/// Reads a results.json.
///
///   throws   FileError when it cannot be read or is no JSON; DataError when it holds something
///   else
inline Results read_results(const std::string& path) {
  return results_of(parse_json(read_bytes(path), path));
}

}  // namespace segmed
