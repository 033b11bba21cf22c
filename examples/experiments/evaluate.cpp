// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <filesystem>
#include <map>

#include "commands.hpp"
#include <segmed/data/folder.hpp>
#include <segmed/experiment/results.hpp>
#include <segmed/image/nifti.hpp>

namespace experiments {

using namespace segmed;

namespace {

/// The files of a folder by name, or one file.
std::map<std::string, std::string> label_files(const std::string& path) {
  require<FileError>(std::filesystem::exists(path), "evaluate", path, ": is not there");
  std::map<std::string, std::string> files;
  if (!std::filesystem::is_directory(path))
    files[""] = path;
  else
    for (const auto& file : nifti_files(path)) files[stem_of(file)] = file;
  require<FileError>(!files.empty(), "evaluate", path, ": holds no NIfTI label map");
  return files;
}
/// The names of the values in a truth: as the user says, as the file says, or class_1, class_2.
std::vector<std::string> class_names(const EvaluateOptions& options, const std::string& file,
                                     Index highest) {
  if (!options.class_names.empty()) return options.class_names;
  const LabelNames own = label_names(read_nifti_header(file));
  for (const auto& [label, name] : own) highest = std::max(highest, Index(label));
  std::vector<std::string> names;
  for (Index c = 1; c <= highest; ++c) names.push_back("class_" + std::to_string(c));
  for (const auto& [label, name] : own)
    if (label > 0) names[std::size_t(label - 1)] = name;
  return names;
}

Json summary(const std::vector<std::string>& classes, const RunResult& run) {
  Json json =
      Json::Object{{"mean", Json::Object{{"dice", run.mean_dice()}, {"hd95", run.mean_hd95()}}},
                   {"per_class", Json::Object{}},
                   {"cases", Json::Array{}}};
  for (std::size_t c = 0; c < classes.size(); ++c)
    json["per_class"][classes[c]] = Json::Object{{"dice", run.class_mean(&CaseResult::dice, c)},
                                                 {"hd95", run.class_mean(&CaseResult::hd95, c)}};
  for (const CaseResult& one : run.cases)
    json["cases"].push_back(Json::Object{{"id", one.id},
                                         {"dice", class_scores(classes, one, one.dice)},
                                         {"hd95", class_scores(classes, one, one.hd95)}});
  json["rules"] = score_rules();
  return json;
}
void print(const std::vector<std::string>& classes, const RunResult& run) {
  const auto line = [](const std::string& name, double dice, double hd95) {
    std::printf("%-28s %8s %10s\n", name.c_str(), fixed(dice, 4).c_str(), fixed(hd95, 2).c_str());
  };
  std::printf("%-28s %8s %10s\n", "case", "Dice", "HD95 mm");
  for (const CaseResult& one : run.cases) line(one.id, mean_of(one.dice), mean_of(one.hd95));
  std::puts("");
  for (std::size_t c = 0; c < classes.size(); ++c)
    line(classes[c], run.class_mean(&CaseResult::dice, c), run.class_mean(&CaseResult::hd95, c));
  line("mean", run.mean_dice(), run.mean_hd95());
  std::printf("\n%s\n", score_rules());
}

}  // namespace

int evaluate(const EvaluateOptions& options) {
  const auto truths = label_files(options.truth), predictions = label_files(options.prediction);
  const bool single = truths.begin()->first.empty() || predictions.begin()->first.empty();
  Index highest = 1, skipped = 0;
  std::string missing;
  std::vector<std::pair<std::string, std::pair<std::string, std::string>>> pairs;
  if (single) {
    require<ConfigError>(truths.size() == 1 && predictions.size() == 1, "evaluate",
                         "give two files or two folders, not one of each");
    pairs.push_back(
        {stem_of(truths.begin()->second), {predictions.begin()->second, truths.begin()->second}});
  }
  for (const auto& [id, file] : truths) {
    if (single) break;
    const auto found = predictions.find(id);
    if (found == predictions.end()) {
      if (skipped++ == 0) missing = id;
    } else {
      pairs.push_back({id, {found->second, file}});
    }
  }
  if (skipped > 0)
    std::fprintf(stderr, "%d of %d truths have no prediction in %s, %s for one\n", int(skipped),
                 int(truths.size()), options.prediction.c_str(), missing.c_str());
  require<DataError>(!pairs.empty(), "evaluate", "no file of ", options.prediction,
                     " has the name of one in ", options.truth);
  std::vector<std::pair<Volume<std::uint8_t>, Volume<std::uint8_t>>> volumes;
  for (const auto& [id, files] : pairs) {
    volumes.push_back({read_labels(files.first), read_labels(files.second)});
    for (const auto* v : {&volumes.back().first, &volumes.back().second})
      for (const std::uint8_t label : v->voxels)
        if (label != ignored) highest = std::max(highest, Index(label));
  }
  const auto names = class_names(options, pairs.front().second.second, highest);
  const Index classes = std::max(highest, Index(names.size())) + 1;
  Results results;
  results.classes = names;
  for (Index c = Index(names.size()) + 1; c < classes; ++c)
    results.classes.push_back("class_" + std::to_string(c));
  RunResult run;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    CaseScore score =
        score_case(volumes[i].first, volumes[i].second, AnnotatedSet::all(classes), classes);
    score.id = pairs[i].first;
    run.cases.push_back(CaseResult::of(score));
  }
  if (options.json)
    std::puts(summary(results.classes, run).dump(1).c_str());
  else
    print(results.classes, run);
  return skipped > 0 ? cases_skipped : done;
}

}  // namespace experiments
