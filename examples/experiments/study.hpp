// SPDX-License-Identifier: Apache-2.0
// What train and gain have in common: opening the data, drawing cases, planning, evaluating.
#pragma once
#include "model.hpp"
#include "policies.hpp"
#include <segmed/data/hide.hpp>
#include <segmed/data/inspect.hpp>
#include <segmed/data/split.hpp>
#include <segmed/experiment/results.hpp>

namespace experiments {

/// What the command line says about data and training; zero or empty leaves it to the data.
struct StudyOptions {
  std::string data;
  segmed::FolderOptions folder;
  std::string d0, d1, val;  // a count, a file of ids, or a folder; d1 may be a list of counts
  std::vector<std::string> hide = {"nothing"};  // one way, or several of a sweep
  segmed::PlanOptions plan;
  std::string normalization;  // z_score, percentile, window:LOW:HIGH, none
  std::string network, loss, optimizer, flip;
  float rate = 0, average = -1;
  float elastic = 0, blur = 0, low_resolution = 0;
  bool deep_supervision = false, recompute = false, strict = false, quiet = false;
  bool balance_sources = false;
  segmed::Index inner = 0;  // cases of D_0 that evaluate in place of D_val; 0: D_val does
  std::uint64_t seed = 1;
};

/// A set of cases as the command line gives it: so many, or these.
struct CaseSet {
  segmed::Index count = -1;      // to draw
  std::vector<std::string> ids;  // given
  bool given() const { return count < 0 && !ids.empty(); }
};

/// An opened data set without its quarantined cases.
class Study {
 public:
  /// Reads and judges every case. Throws DataError in strict mode for the first that is broken.
  explicit Study(const StudyOptions& options);

  /// What evaluates, the same for every seed: D_val, or the inner part of D_0.
  const std::vector<std::string>& validation() const { return inner_ ? evaluated_ : validation_; }
  /// In one sentence which cases evaluate, where it is not D_val.
  std::string about_inner() const;
  /// D_0, D_1 (the `d1` first ones) and D_val of a seed.
  segmed::Split split(std::uint64_t seed, segmed::Index d1) const;
  /// Likewise, for training one model: without a number for D_0 it holds every case with all
  /// classes annotated that is not held out.
  segmed::Split training_split() const;
  /// Cases by id, with all that was annotated.
  std::vector<segmed::LoaderCase> cases(const std::vector<std::string>& ids) const;
  /// Likewise, with what the k-th way of hiding leaves of their labels for a seed.
  std::vector<segmed::LoaderCase> hidden(const std::vector<std::string>& ids, std::size_t k,
                                         std::uint64_t seed) const;
  /// The part of their annotations that is hidden then.
  double hidden_part(const std::vector<std::string>& ids, std::size_t k, std::uint64_t seed) const;
  /// The ways of hiding that were asked for.
  const std::vector<std::string>& hides() const { return options_.hide; }
  /// Chosen from D_0 of a seed, for a short or a long training; options override it.
  Recipe recipe(const std::vector<std::string>& training, bool long_training) const;
  /// Predicts and scores cases; predictions go to `folder` as label files.
  std::vector<segmed::CaseResult> evaluate(const Model& model, const std::vector<std::string>& ids,
                                           const std::string& folder) const;

  const segmed::FolderCohort& cohort() const { return cohort_; }
  const std::vector<segmed::CaseReport>& reports() const { return reports_; }
  segmed::Index quarantined() const;
  /// The sizes of D_1 that were asked for.
  const std::vector<segmed::Index>& d1_sizes() const { return d1_sizes_; }
  segmed::Index d0_size() const {
    return d0_.given() ? segmed::Index(d0_.ids.size() - evaluated_.size()) : d0_.count;
  }
  /// A number that changes with the files' names, sizes and voxels.
  std::string data_hash() const;

 private:
  CaseSet case_set(const std::string& text, const char* option);
  segmed::Index index_of(const std::string& id) const;
  /// The cases without the patients of some that were given by id.
  std::vector<segmed::CaseInfo> infos_without(
      const std::vector<const std::vector<std::string>*>& given) const;
  /// Throws DataError for a case that does not annotate every class.
  void check_whole(const std::vector<std::string>& ids, const char* option) const;

  StudyOptions options_;
  segmed::FolderCohort cohort_;
  std::vector<segmed::CaseReport> reports_;
  std::vector<segmed::CaseInfo> infos_;
  std::vector<segmed::Hide> hides_;
  CaseSet d0_, d1_, val_;
  std::vector<segmed::Index> d1_sizes_;
  std::vector<std::string> validation_, evaluated_;
  bool inner_ = false;  // D_0 is given then, and `evaluated_` is a part of it
};

/// Bytes that a training step is likely to take, for the estimate before work starts.
segmed::Index estimated_bytes(const Recipe& recipe, bool with_d1);

}  // namespace experiments
