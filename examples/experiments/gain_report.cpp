// SPDX-License-Identifier: Apache-2.0
#include "gain_report.hpp"

#include <filesystem>

#include "session_folder.hpp"
#include <segmed/data/layout.hpp>
#include <segmed/experiment/overlay.hpp>
#include <segmed/experiment/report.hpp>
#include <segmed/image/nifti.hpp>

namespace experiments {

using namespace segmed;
namespace fs = std::filesystem;

namespace {

/// The best, the median and the worst case of the last policy's first run, M_0 and M_1 side by
/// side.
std::vector<ShownCase> shown_cases(const std::string& out, const FolderCohort& cohort,
                                   const Results& results) {
  if (results.gains.empty()) return {};
  const GainResult& gain = results.gains.back();
  const auto runs = results.runs_of(gain.policy, gain.d0, gain.d1);
  const RunResult* after = runs.empty() ? nullptr : runs.front();
  const RunResult* before = after ? results.find("supervised", after->seed, gain.d0, 0) : nullptr;
  if (!before) return {};
  const RankedCases ranked = RankedCases::of(*after);
  std::vector<ShownCase> shown;
  for (const auto& [name, at] :
       {std::pair{"Best", ranked.best}, {"Median", ranked.median}, {"Worst", ranked.worst}}) {
    const std::string& id = after->cases[at].id;
    for (Index i = 0; i < cohort.size(); ++i) {
      if (cohort.info(i).id != id) continue;
      const Example example = cohort.load(i);
      const auto prediction = [&](const RunResult& run) {
        return read_labels(out + "/runs/" + run_name(run.policy, run.d0, run.d1, run.seed) +
                           "/predictions/" + id + ".nii.gz");
      };
      const auto m0 = prediction(*before), m1 = prediction(*after);
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

ReportInput input_of(const std::string& out, const FolderCohort& cohort, const Results& results,
                     const Json& json) {
  ReportInput input;
  input.title = json.at("title").as_string();
  input.data = json.at("data").as_string();
  input.command = json.at("command").as_string();
  input.created = json.at("environment").at("time").as_string();
  input.hiding = json.at("hiding").as_string();
  input.results = results;
  for (const Json& use : json.at("uses").as_array())
    input.uses.push_back(
        {use.at("d0").as_index(), use.at("d1").as_index(), use.at("validation").as_index()});
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
  json_["data"] = options.study.data;
  json_["classes"] = Json::list(options.study.folder.classes);
  json_["class_names"] = Json::list(options.study.folder.class_names);
  json_["command"] = options.command_line;
  json_["hiding"] = options.study.hide;
  json_["environment"] = environment;
  json_["settings"] = parse_json(read_bytes(options.budget.out + "/settings.json"), "settings");
  if (!json_.has("curves")) json_["curves"] = Json::Array{};
  // How many cases annotate each class, for the first seed and the largest D_1.
  const auto d1 = *std::max_element(study.d1_sizes().begin(), study.d1_sizes().end());
  const Split split = study.split(options.study.seed, d1);
  Json uses = Json::Array{};
  for (Index c = 1; c < study.cohort().classes.size(); ++c) {
    const auto count = [&](const std::vector<std::string>& ids, bool hidden) {
      Index n = 0;
      for (const LoaderCase& one : study.cases(ids, hidden, options.study.seed))
        n += one.left.has(c);
      return n;
    };
    uses.push_back(Json::Object{{"d0", count(split.full, false)},
                                {"d1", count(split.partial, true)},
                                {"validation", count(split.validation, false)}});
  }
  json_["uses"] = std::move(uses);
}

void GainReport::add_curve(const std::string& policy, std::uint64_t seed, Index d1,
                           const RunReport& trained) {
  std::vector<double> minutes, loss;
  for (const CurvePoint& point : trained.curve) {
    minutes.push_back(point.seconds / 60);
    loss.push_back(point.labelled);
  }
  json_["curves"].push_back(Json::Object{{"policy", policy},
                                         {"seed", seed},
                                         {"d1", d1},
                                         {"minutes", Json::list(minutes)},
                                         {"loss", Json::list(loss)},
                                         {"hooks", Json::list(trained.hooks)}});
}

void GainReport::write(const Results& results) {
  const std::string& out = options_.budget.out;
  write_text(out + "/report.json", json_.dump(1) + "\n");
  Json manifest = json_.at("environment");
  manifest["settings"] = json_.at("settings");
  manifest["command"] = json_.at("command");
  Json hooks;
  for (const Json& curve : json_.at("curves").as_array())
    hooks[curve.at("policy").as_string()] = curve.at("hooks");
  manifest["hooks"] = hooks;
  write_text(out + "/manifest.json", manifest.dump(1) + "\n");
  write_report(out + "/report.html", input_of(out, study_.cohort(), results, json_));
}

void redraw_report(const std::string& folder) {
  const Results results = read_results(folder + "/results.json");
  const std::string path = folder + "/report.json";
  require<FileError>(fs::exists(path), "report", path,
                     ": is not there; this folder holds no comparison");
  const Json json = parse_json(read_bytes(path), path);
  FolderOptions options;
  for (const Json& name : json.at("classes").as_array())
    options.classes.push_back(name.as_string());
  for (const Json& name : json.at("class_names").as_array())
    options.class_names.push_back(name.as_string());
  const std::string data = json.at("data").as_string();
  const FolderCohort cohort = fs::is_directory(data) ? open_folder(data, options) : FolderCohort{};
  write_report(folder + "/report.html", input_of(folder, cohort, results, json));
}

int report(const ReportOptions& options) {
  redraw_report(options.folder);
  std::printf("report: %s\n",
              fs::absolute(options.folder + "/report.html").lexically_normal().c_str());
  return done;
}

}  // namespace experiments
