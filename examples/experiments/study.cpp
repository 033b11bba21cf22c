// SPDX-License-Identifier: Apache-2.0
#include "study.hpp"

#include <filesystem>
#include <numeric>
#include <set>

#include <segmed/data/layout.hpp>
#include <segmed/experiment/progress.hpp>
#include <segmed/image/nifti.hpp>

namespace experiments {

using namespace segmed;
namespace fs = std::filesystem;

namespace {

bool is_count(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789,") == std::string::npos;
}
std::vector<Index> counts_of(const std::string& text, const char* option) {
  std::vector<Index> counts;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    require<ConfigError>(!part.empty() && part.size() < 8, option, "\"", text,
                         "\" is no list of counts such as 0,20,60");
    if (const Index n = std::stoll(part); !std::count(counts.begin(), counts.end(), n))
      counts.push_back(n);
  }
  return counts;
}
Normalization normalization_named(const std::string& text) {
  if (text == "z_score") return {};
  if (text == "none") return {Normalization::Kind::none, false, {}};
  std::istringstream parts(text);
  std::string word;
  float low = 0, high = 0;
  char colon = 0;
  std::getline(parts, word, ':');
  parts >> low >> colon >> high;
  require<ConfigError>(word == "window" && colon == ':' && !parts.fail(), "--normalization", "\"",
                       text, "\" is none of z_score, percentile, window:LOW:HIGH, none");
  return Normalization::window(low, high);
}

}  // namespace

Study::Study(const StudyOptions& options)
    : options_(options), cohort_(open_folder(options.data, options.folder)) {
  d0_ = case_set(options.d0, "--d0");
  d1_ = case_set(options.d1, "--d1");
  val_ = case_set(options.val, "--val");
  {
    Progress progress("reading " + std::to_string(cohort_.size()) + " cases", options.quiet);
    reports_ = inspect(cohort_);
    progress.done(std::to_string(quarantined()) + " quarantined");
  }
  for (const CaseReport& report : reports_)
    require<DataError>(!options.strict || report.verdict != Verdict::quarantined, "strict",
                       report.id, ": ", report.reasons.empty() ? "" : report.reasons.front());
  cohort_ = usable(std::move(cohort_), reports_);
  infos_ = infos_of(cohort_);
  options_.hide.clear();
  for (const std::string& text : options.hide) {
    if (std::count(options_.hide.begin(), options_.hide.end(), text)) continue;
    options_.hide.push_back(text), hides_.push_back(Hide::parse(text, cohort_.classes));
  }
  d1_sizes_ = d1_.given() ? std::vector<Index>{Index(d1_.ids.size())}
                          : counts_of(options.d1.empty() ? "0" : options.d1, "--d1");
  validation_ = val_.given()
                    ? val_.ids
                    : draw_validation(infos_without({&d0_.ids, &d1_.ids}), cohort_.classes.size(),
                                      std::max<Index>(0, val_.count), options.seed);
  check_whole(validation_, "--val");
  check_whole(d0_.ids, "--d0");
  if (options.inner == 0) return;
  require<ConfigError>(d0_size() > 0 && !validation_.empty(), "--inner",
                       "give --d0, of which a part evaluates, and --val, which is put aside");
  // Of the first D_0, for all seeds: their models are compared on the same cases.
  d0_ = {-1, split(options.seed, 0).full};
  inner_ = true;
  evaluated_ = split(options.seed, 0).validation;
}

void Study::check_whole(const std::vector<std::string>& ids, const char* option) const {
  for (const auto& id : ids) {
    const CaseInfo& info = infos_[std::size_t(index_of(id))];
    segmed::check_whole(option, id, info.has_labels ? info.annotated : AnnotatedSet{},
                        cohort_.classes, "give --classes those that it annotates");
  }
}

std::vector<CaseInfo> Study::infos_without(
    const std::vector<const std::vector<std::string>*>& given) const {
  std::set<std::string> patients;
  for (const auto* ids : given)
    for (const auto& id : *ids) patients.insert(infos_[std::size_t(index_of(id))].patient);
  std::vector<CaseInfo> left;
  for (const CaseInfo& info : infos_)
    if (!patients.count(info.patient)) left.push_back(info);
  return left;
}

std::string Study::about_inner() const {
  if (!inner_) return {};
  const auto cases = [](std::size_t n) {
    return std::to_string(n) + (n == 1 ? " case" : " cases");
  };
  return "Tuning on an inner split of D_0: " + std::to_string(evaluated_.size()) +
         " to evaluate, " + std::to_string(d0_size()) + " to train. D_val, " +
         cases(validation_.size()) +
         ", was put aside: no model learnt from it, predicted it or was scored on it.";
}

CaseSet Study::case_set(const std::string& text, const char* option) {
  CaseSet set;
  if (text.empty()) return set;
  if (is_count(text)) {
    const auto counts = counts_of(text, option);
    require<ConfigError>(counts.size() == 1 || std::string(option) == "--d1", option, "\"", text,
                         "\" is a list; only --d1 takes several counts");
    set.count = *std::max_element(counts.begin(), counts.end());
    return set;
  }
  if (fs::is_directory(text)) {
    FolderCohort more = open_folder(text, options_.folder);
    require<DataError>(more.classes == cohort_.classes, option, text, " has other classes than ",
                       cohort_.folder);
    for (CaseFiles& files : more.files) {
      set.ids.push_back(files.info.id);
      for (const CaseFiles& own : cohort_.files)
        require<DataError>(own.info.id != files.info.id, option, "case ", files.info.id, " is in ",
                           text, " and in ", cohort_.folder);
      cohort_.files.push_back(std::move(files));
    }
    return set;
  }
  require<ConfigError>(fs::exists(text), option, "\"", text,
                       "\" is neither a count, nor a file of ids, nor a folder");
  set.ids = read_ids(text);
  return set;
}

Index Study::index_of(const std::string& id) const {
  for (std::size_t i = 0; i < infos_.size(); ++i)
    if (infos_[i].id == id) return Index(i);
  fail<DataError>("cases", "case ", id, " is not in ", cohort_.folder,
                  " or was quarantined; see `experiments inspect`");
}

Index Study::quarantined() const {
  return std::count_if(reports_.begin(), reports_.end(), [](const CaseReport& report) {
    return report.verdict == Verdict::quarantined;
  });
}

Split Study::split(std::uint64_t seed, Index d1) const {
  const Index largest = d1_.given() ? 0 : *std::max_element(d1_sizes_.begin(), d1_sizes_.end());
  Split split = draw_split(infos_without({&d0_.ids, &d1_.ids}), cohort_.classes.size(), validation_,
                           d0_.given() ? 0 : d0_.count, largest, seed);
  if (d0_.given()) split.full = d0_.ids;
  if (d1_.given()) split.partial = d1_.ids;
  if (Index(split.partial.size()) > d1) split.partial.resize(std::size_t(d1));
  check_split(split, infos_);
  if (!inner_) return split;
  split = inner_split(split, infos_, options_.inner, options_.seed);
  check_split(split, infos_);
  return split;
}

Split Study::training_split() const {
  Split split = this->split(options_.seed, d1_sizes_.back());
  if (d0_size() >= 0) return split;
  split.full.clear();
  for (const CaseInfo& info : infos_of(cohort_)) {
    const bool held_out =
        std::count(split.validation.begin(), split.validation.end(), info.id) > 0 ||
        std::count(split.partial.begin(), split.partial.end(), info.id) > 0 ||
        info.part == Part::test || info.part == Part::validation;
    if (!held_out && info.annotated == cohort_.classes.all()) split.full.push_back(info.id);
  }
  return split;
}

std::vector<LoaderCase> Study::cases(const std::vector<std::string>& ids) const {
  std::vector<LoaderCase> cases;
  for (const auto& id : ids) {
    const Index i = index_of(id);
    cases.push_back({i, infos_[std::size_t(i)].annotated});
  }
  return cases;
}

std::vector<LoaderCase> Study::hidden(const std::vector<std::string>& ids, std::size_t k,
                                      std::uint64_t seed) const {
  std::vector<LoaderCase> left = cases(ids);
  Index before = 0, after = 0;
  for (LoaderCase& one : left) {
    before += one.left.count();
    one.left = hides_[k].left_of(one.left, infos_[std::size_t(one.index)].id, seed);
    after += one.left.count();
  }
  require<ConfigError>(before == 0 || after > 0 || hides_[k].mode == Hide::Mode::everything,
                       "--hide", options_.hide[k], " leaves no label in the ", ids.size(),
                       " cases of D_1; hide less, or say --hide everything");
  return left;
}

double Study::hidden_part(const std::vector<std::string>& ids, std::size_t k,
                          std::uint64_t seed) const {
  Index before = 0, after = 0;
  for (const LoaderCase& one : cases(ids)) before += one.left.count();
  for (const LoaderCase& one : hidden(ids, k, seed)) after += one.left.count();
  return before > 0 ? 1 - double(after) / double(before) : undefined;
}

Recipe Study::recipe(const std::vector<std::string>& training, bool long_training) const {
  Survey survey;
  for (const auto& id : training) survey.add(cohort_.load(index_of(id)));
  PlanOptions wishes = options_.plan;
  if (!options_.normalization.empty() && options_.normalization != "percentile")
    wishes.normalization = {normalization_named(options_.normalization)};
  Recipe recipe;
  if (long_training) wishes.first_width = 16, recipe.network = "unet";
  recipe.plan = survey.plan(wishes);
  recipe.classes = cohort_.classes;
  if (!options_.network.empty()) recipe.network = options_.network;
  if (!options_.loss.empty()) recipe.loss = options_.loss;
  if (!options_.optimizer.empty()) recipe.optimizer = options_.optimizer;
  if (options_.rate > 0) recipe.rate = options_.rate;
  if (options_.average >= 0) recipe.average = options_.average;
  recipe.deep_supervision = options_.deep_supervision;
  recipe.recompute = options_.recompute;
  recipe.flip = options_.flip;
  recipe.elastic = options_.elastic, recipe.blur = options_.blur;
  recipe.low_resolution = options_.low_resolution;
  recipe.balance_sources = options_.balance_sources;
  return recipe;
}

std::vector<CaseResult> Study::evaluate(const Model& model, const std::vector<std::string>& ids,
                                        const std::string& folder) const {
  fs::create_directories(folder);
  LabelNames names;
  for (Index c = 1; c < cohort_.classes.size(); ++c)
    names.push_back({int(c), cohort_.classes.names[std::size_t(c)]});
  std::vector<CaseResult> results;
  Progress progress("evaluating", options_.quiet);
  for (const auto& id : ids) {
    const Example example = cohort_.load(index_of(id));
    const auto labels = model.predict(example.image, false);
    NiftiWriteOptions how;
    how.labels = names;
    write_nifti(folder + "/" + id + ".nii.gz", labels, how);
    CaseScore score = score_case(labels, example.labels, example.annotated, cohort_.classes.size());
    score.id = id;
    results.push_back(CaseResult::of(score));
    progress.at(double(results.size()) / double(ids.size()), id);
  }
  progress.done(std::to_string(ids.size()) + " cases");
  return results;
}

std::string Study::data_hash() const {
  std::uint64_t hash = 0;
  for (const CaseReport& report : reports_)
    hash = hash * 0x100000001B3u ^ report.hash ^ hash_of(std::string_view(report.id));
  char text[32];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

Index estimated_bytes(const Recipe& recipe, bool with_d1) {
  const Plan& plan = recipe.plan;
  double voxels = double(plan.patch[0] * plan.patch[1] * plan.patch[2] * plan.batch), values = 0;
  for (const Index width : plan.widths) {
    values += voxels * double(width);
    voxels /= recipe.flat() ? 4 : 8;
  }
  // Six feature maps a level and as many gradients.
  return Index(values * 4 * 12 * (with_d1 ? 2 : 1)) + (Index{64} << 20);
}

}  // namespace experiments
