// SPDX-License-Identifier: Apache-2.0
#include "gain_report.hpp"

#include <algorithm>
#include <filesystem>

#include "session_folder.hpp"
#include <segmed/data/layout.hpp>
#include <segmed/experiment/comparison.hpp>
#include <segmed/experiment/overlay.hpp>
#include <segmed/experiment/report.hpp>
#include <segmed/image/nifti.hpp>

namespace experiments {

using namespace segmed;
namespace fs = std::filesystem;

namespace {

/// Where a run's files are; where ways of hiding are compared, its name says which.
std::string folder_of(const std::string& out, const RunResult& run) {
  const std::string own = out + "/runs/" + run_name(run.policy, run.d0, run.d1, run.seed, run.hide);
  return fs::exists(own) ? own : out + "/runs/" + run_name(run.policy, run.d0, run.d1, run.seed);
}

/// The best, the median and the worst case of the first run of the largest gain, M_0 and M_1 side
/// by side; of published results, none where nothing has been predicted in this folder.
std::vector<ShownCase> shown_cases(const std::string& out, const FolderCohort& cohort,
                                   const Results& results) {
  if (results.gains.empty()) return {};
  const GainResult& gain = *results.best();
  const auto baseline = [&](const RunResult& run) {
    return results.find("supervised", run.seed, gain.d0, 0);
  };
  const auto prediction_of = [&](const RunResult& run, const std::string& id) {
    return folder_of(out, run) + "/predictions/" + id + ".nii.gz";
  };
  const auto can_be_shown = [&](const RunResult* run) {
    const RunResult* const partner = baseline(*run);
    return partner != nullptr && std::all_of(run->cases.begin(), run->cases.end(), [&](auto& one) {
             return fs::exists(prediction_of(*run, one.id)) &&
                    fs::exists(prediction_of(*partner, one.id));
           });
  };
  const auto runs = results.runs_of(gain);
  const auto first = std::find_if(runs.begin(), runs.end(), can_be_shown);
  if (first == runs.end()) return {};
  const RunResult *const after = *first, *const before = baseline(*after);
  const RankedCases ranked = RankedCases::of(*after);
  std::vector<ShownCase> shown;
  for (const auto& [name, at] :
       {std::pair{"Best", ranked.best}, {"Median", ranked.median}, {"Worst", ranked.worst}}) {
    const std::string& id = after->cases[at].id;
    for (Index i = 0; i < cohort.size(); ++i) {
      if (cohort.info(i).id != id) continue;
      const Example example = cohort.load(i);
      const auto m0 = read_labels(prediction_of(*before, id));
      const auto m1 = read_labels(prediction_of(*after, id));
      const OverlayRow row = draw_overlays(example.image, {&example.labels, &m0, &m1});
      ShownCase one{
          name, id,         mean_of(before->cases[at].dice), mean_of(after->cases[at].dice),
          {},   row.classes};
      const char* captions[] = {"Truth", "M_0: supervised", "M_1"};
      for (std::size_t k = 0; k < 3; ++k)
        one.panels.push_back({k == 2 ? "M_1: " + gain.policy : captions[k], row.pictures[k]});
      shown.push_back(std::move(one));
    }
  }
  return shown;
}

/// Writes classes.csv and classes.tex: how many cases annotate each class, and its Dice in the
/// largest gain.
void write_classes(const std::string& out, const ReportInput& input) {
  const GainResult* gain = input.results.best();
  if (gain == nullptr || input.uses.size() != input.results.classes.size()) return;
  const auto dice = [&](const std::vector<const RunResult*>& runs, std::size_t c) {
    DefinedMean mean;
    for (const RunResult* run : runs) mean.add(run->class_mean(&CaseResult::dice, c));
    return mean.value();
  };
  std::string csv = "class,annotated_in_d0,annotated_in_d1,annotated_in_val,dice_m0,dice_m1,gain\n";
  std::string tex = "% \\usepackage{booktabs}; M_1 is " + gain->policy +
                    " with |D_1| = " + std::to_string(gain->d1) +
                    "\n\\begin{tabular}{lrrrrrr}\n\\toprule\nclass & in $D_0$ & in $D_1$ & in "
                    "$D_{\\mathrm{val}}$ & $M_0$ & $M_1$ & gain \\\\\n\\midrule\n";
  for (std::size_t c = 0; c < input.uses.size(); ++c) {
    const auto after = input.results.runs_of(*gain);
    const double m0 = dice(input.results.partners_of(after, input.baseline), c);
    const double m1 = dice(after, c);
    csv += csv_field(input.results.classes[c]);
    tex += tex_text(input.results.classes[c]);
    for (const Index n : {input.uses[c].d0, input.uses[c].d1, input.uses[c].validation})
      csv += ',' + std::to_string(n), tex += " & " + std::to_string(n);
    csv += ',' + csv_number(m0) + ',' + csv_number(m1) + ',' + csv_number(m1 - m0) + '\n';
    tex +=
        " & " + fixed(m0, 4) + " & " + fixed(m1, 4) + " & $" + fixed(m1 - m0, 4, true) + "$ \\\\\n";
  }
  write_text(out + "/classes.csv", csv);
  write_text(out + "/classes.tex", tex + "\\bottomrule\n\\end{tabular}\n");
}

/// Whether this is how many cases annotate each class with such a D_1.
bool is_about(const Json& uses, Index d1, const std::string& hide) {
  return uses.at("d1").as_index() == d1 && uses.at("hide").as_string() == hide;
}

/// What `read` makes of the report in `path`, which another version may have left there.
template <class Read>
auto reading(const std::string& path, const Read& read) {
  try {
    return read();
  } catch (const DataError& error) {
    throw FileError(std::string(error.what()) + " in " + path +
                    "; remove it: the finished runs stand in results.json, only their curves of "
                    "training are lost");
  }
}

ReportInput input_of(const std::string& out, const FolderCohort& cohort, const Results& results,
                     const Json& json) {
  ReportInput input;
  input.title = json.at("title").as_string();
  input.data = json.at("data").as_string();
  input.command = json.at("command").as_string();
  input.created = json.at("environment").at("time").as_string();
  input.hiding = json.at("hiding").as_string();
  if (const Json* inner = json.find("inner")) {
    input.evaluated = "the inner split";
    input.rules.push_back(inner->as_string());
  }
  input.results = results;
  const GainResult* best = results.best();
  for (const Json& one : json.at("uses").as_array()) {
    if (best == nullptr || !is_about(one, best->d1, best->hide)) continue;
    for (const Json& use : one.at("classes").as_array())
      input.uses.push_back(
          {use.at("d0").as_index(), use.at("d1").as_index(), use.at("validation").as_index()});
  }
  for (const Json& from : json.at("curves").as_array()) {
    TrainingCurve curve{from.at("policy").as_string(),
                        from.at("seed").as_index(),
                        from.at("d1").as_index(),
                        {},
                        {}};
    for (const Json& x : from.at("minutes").as_array()) curve.minutes.push_back(x.as_number());
    for (const Json& y : from.at("loss").as_array())
      curve.loss.push_back(y.is_null() ? undefined : y.as_number());
    input.curves.push_back(std::move(curve));
  }
  input.cases = shown_cases(out, cohort, results);
  input.manifest = json.at("environment");
  input.manifest["settings"] = json.at("settings");
  return input;
}

}  // namespace

GainReport::GainReport(const GainOptions& options, const Study& study, const Json& environment)
    : options_(options), study_(study) {
  const std::string path = options.budget.out + "/report.json";
  json_ = fs::exists(path) ? parse_json(read_bytes(path), path) : Json(Json::Object{});
  json_["title"] = "Does D_1 help?";
  if (const std::string inner = study.about_inner(); !inner.empty()) {
    json_["title"] = "Does D_1 help? Tuning on an inner split";
    json_["inner"] = inner;
  }
  json_["data"] = options.study.data;
  json_["classes"] = Json::list(options.study.folder.classes);
  json_["class_names"] = Json::list(options.study.folder.class_names);
  json_["command"] = options.command_line;
  std::string hiding;
  for (const auto& text : study.hides()) hiding += (hiding.empty() ? "" : ", ") + text;
  json_["hiding"] = "hidden in D_1: " + hiding;
  json_["environment"] = environment;
  json_["settings"] = parse_json(read_bytes(options.budget.out + "/settings.json"), "settings");
  if (!json_.has("curves")) json_["curves"] = Json::Array{};
  // How many cases annotate each class, for the first seed; what was found with other options in
  // this folder stays.
  const auto uses_of = [&](Index d1, std::size_t hide) {
    const std::uint64_t seed = options.seed(0);
    const Split split = study.split(seed, d1);
    const auto full = study.cases(split.full), validation = study.cases(split.validation);
    const auto partial = study.hidden(split.partial, hide, seed);
    Json uses = Json::Array{};
    for (Index c = 1; c < study.cohort().classes.size(); ++c) {
      const auto count = [&](const std::vector<LoaderCase>& cases) {
        return Index(std::count_if(cases.begin(), cases.end(),
                                   [&](const LoaderCase& one) { return one.left.has(c); }));
      };
      uses.push_back(Json::Object{
          {"d0", count(full)}, {"d1", count(partial)}, {"validation", count(validation)}});
    }
    return uses;
  };
  Json uses = Json::Array{};
  for (std::size_t hide = 0; hide < study.hides().size(); ++hide)
    for (const Index d1 : study.d1_sizes())
      uses.push_back(
          Json::Object{{"d1", d1}, {"hide", study.hides()[hide]}, {"classes", uses_of(d1, hide)}});
  const auto keep = [&](const Json& one) {
    const auto& fresh = uses.as_array();
    if (std::none_of(fresh.begin(), fresh.end(), [&](const Json& now) {
          return is_about(one, now.at("d1").as_index(), now.at("hide").as_string());
        }))
      uses.push_back(one);
  };
  if (const Json* before = json_.find("uses"))
    reading(path, [&] {
      for (const Json& one : before->as_array()) keep(one);
    });
  json_["uses"] = uses;
}

void GainReport::add_curve(const Json& curve) { json_["curves"].push_back(curve); }

Json GainReport::curve_of(const std::string& policy, std::uint64_t seed, Index d1,
                          const RunReport& trained) {
  std::vector<double> minutes, loss;
  for (const CurvePoint& point : trained.curve) {
    minutes.push_back(point.seconds / 60);
    loss.push_back(point.labelled);
  }
  return Json::Object{{"policy", policy},
                      {"seed", seed},
                      {"d1", d1},
                      {"minutes", Json::list(minutes)},
                      {"loss", Json::list(loss)},
                      {"hooks", Json::list(trained.hooks)}};
}

void GainReport::write(const Results& results) {
  const std::string& out = options_.budget.out;
  write_text(out + "/report.json", json_.dump(1) + "\n");
  Json manifest = json_.at("environment");
  manifest["settings"] = json_.at("settings");
  manifest["command"] = json_.at("command");
  if (const Json* inner = json_.find("inner")) manifest["evaluated"] = *inner;
  Json hooks;
  for (const Json& curve : json_.at("curves").as_array())
    hooks[curve.at("policy").as_string()] = curve.at("hooks");
  manifest["hooks"] = hooks;
  write_text(out + "/manifest.json", manifest.dump(1) + "\n");
  const ReportInput input =
      reading(out + "/report.json", [&] { return input_of(out, study_.cohort(), results, json_); });
  write_classes(out, input);
  write_report(out + "/report.html", input);
}

std::vector<std::string> lines_of(const Results& results) {
  std::vector<std::string> lines;
  const auto evidence = [](const GainResult& gain) {
    return fixed(gain.gain, 4, true) + " (" + fixed(gain.low, 4, true) + " to " +
           fixed(gain.high, 4, true) + "), p over cases " + p_text(gain.p);
  };
  const auto cases = [](const GainResult& gain) {
    return std::to_string(gain.d1) + (gain.d1 == 1 ? " case" : " cases");
  };
  for (const GainResult& gain : results.gains)
    lines.push_back("gain of " + gain.policy + " with " + cases(gain) + " more (" + gain.hide +
                    " hidden): " + evidence(gain));
  for (const GainResult& gain : results.differences)
    lines.push_back(gain.policy + " beside " + gain.against + " with " +
                    (gain.together ? "all of these together"
                                   : cases(gain) + " more (" + gain.hide + " hidden)") +
                    ": " + evidence(gain));
  return lines;
}

int report(const ReportOptions& options) {
  const std::string& folder = options.folder;
  Results results = read_results(folder + "/results.json");
  const std::string path = folder + "/report.json";
  require<FileError>(fs::exists(path), "report", path,
                     ": is not there; this folder holds no comparison");
  for (const std::string& other : options.against)
    require<ConfigError>(
        std::any_of(results.runs.begin(), results.runs.end(),
                    [&](const RunResult& run) { return run.policy == other && run.d1 > 0; }),
        "--against", folder, " holds no run of ", other, " with D_1");
  const Json json = parse_json(read_bytes(path), path);
  FolderOptions how;
  const std::string data = reading(path, [&] {
    for (const Json& name : json.at("classes").as_array()) how.classes.push_back(name.as_string());
    for (const Json& name : json.at("class_names").as_array())
      how.class_names.push_back(name.as_string());
    return json.at("data").as_string();
  });
  const FolderCohort cohort = fs::is_directory(data) ? open_folder(data, how) : FolderCohort{};
  compare_all(results, options.against);
  const ReportInput input = reading(path, [&] { return input_of(folder, cohort, results, json); });
  write_results(folder, results);
  write_classes(folder, input);
  write_report(folder + "/report.html", input);
  for (const std::string& line : lines_of(results)) std::printf("%s\n", line.c_str());
  std::printf("%s\nreport: %s\n", segmed::reading(results).c_str(),
              fs::absolute(folder + "/report.html").lexically_normal().c_str());
  return done;
}

}  // namespace experiments
