// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <segmed/core/annotated_set.hpp>
#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>
#include <segmed/image/volume.hpp>
#include <segmed/train/surface.hpp>

namespace segmed {

/// A result that is not defined: null in JSON, an empty field in CSV.
inline constexpr double undefined = std::numeric_limits<double>::quiet_NaN();

/// What a case holds of a class, which decides what its scores are.
enum class Presence : std::uint8_t {
  not_annotated,  // nobody looked for it: every score is undefined, whatever was predicted
  absent,         // neither in the truth nor predicted: every score is undefined
  missed,         // in the truth, not predicted: Dice and IoU 0, distances undefined
  invented,       // predicted, not in the truth: Dice and IoU 0, distances undefined
  found,          // in both
};

/// The scores of one class in one case.
///
///   units    hd95, assd in mm
///   source   Dice = 2 TP / (2 TP + FP + FN), IoU = TP / (TP + FP + FN); nothing is smoothed
struct ClassScore {
  Presence presence = Presence::not_annotated;
  double dice = undefined, iou = undefined, hd95 = undefined, assd = undefined;
  Index predicted = 0, truth = 0, shared = 0;  // voxels
};

/// The mean of the values that are defined, and how many those are.
struct DefinedMean {
  double sum = 0;
  Index count = 0;

  void add(double value) {
    if (std::isnan(value)) return;
    sum += value;
    ++count;
  }
  /// NaN when no value was defined.
  double value() const { return count > 0 ? sum / double(count) : undefined; }
};

/// The scores of one case, by class number; background stays not_annotated.
struct CaseScore {
  std::string id;
  std::vector<ClassScore> classes;

  /// Mean over the annotated classes that are present or predicted; NaN when there is none.
  double mean(double ClassScore::*score) const {
    DefinedMean over;
    for (const ClassScore& one : classes) over.add(one.*score);
    return over.value();
  }
  double mean_dice() const { return mean(&ClassScore::dice); }
};

/// What is measured, and how strictly grids must agree.
struct ScoreOptions {
  bool surfaces = true;          // HD95 and ASSD, which cost most of the time
  double grid_tolerance = 0.01;  // mm
};

/// Compares a prediction with the truth, for each annotated class. Voxels whose truth is `ignored`
/// count nowhere.
///
///   shapes   both on one grid, one channel, labels below `classes`
///   throws   ShapeError when extents differ; DataError when the grids lie elsewhere or a label
///            names no class
inline CaseScore score_case(const Volume<std::uint8_t>& prediction,
                            const Volume<std::uint8_t>& truth, const AnnotatedSet& annotated,
                            Index classes, const ScoreOptions& options = {}) {
  check_filled(prediction, "score");
  check_filled(truth, "score");
  require<ConfigError>(classes >= 1 && classes <= 255, "score", classes, " classes; give 1 to 255");
  require(prediction.extent == truth.extent && prediction.channels == 1 && truth.channels == 1,
          "score", "a prediction of ", prediction.extent[0], "x", prediction.extent[1], "x",
          prediction.extent[2], " does not fit a truth of ", truth.extent[0], "x", truth.extent[1],
          "x", truth.extent[2]);
  require<DataError>(same_grid(prediction, truth, options.grid_tolerance), "score",
                     "prediction and truth lie up to ",
                     prediction.geometry.distance(truth.geometry, truth.extent),
                     " mm apart; resample one onto the other's grid");
  std::array<Index, 256> predicted{}, present{}, shared{}, unseen{};
  for (std::size_t i = 0; i < truth.voxels.size(); ++i) {
    const std::uint8_t p = prediction.voxels[i], t = truth.voxels[i];
    if (t == ignored) {
      ++unseen[p];
      continue;
    }
    ++predicted[p], ++present[t];
    if (p == t) ++shared[t];
  }
  for (std::size_t c = std::size_t(classes); c < 256; ++c) {
    require<DataError>(present[c] == 0, "score", "the truth has label ", c, " in ", present[c],
                       " voxels, but there are ", classes, " classes");
    require<DataError>(predicted[c] + unseen[c] == 0, "score", "the prediction has label ", c,
                       " in ", predicted[c] + unseen[c], " voxels, but there are ", classes,
                       " classes");
  }
  CaseScore result;
  result.classes.resize(std::size_t(classes));
  for (std::size_t c = 1; c < std::size_t(classes); ++c) {
    ClassScore& score = result.classes[c];
    score.predicted = predicted[c], score.truth = present[c], score.shared = shared[c];
    if (!annotated.has(Index(c))) continue;
    if (score.predicted + score.truth == 0) {
      score.presence = Presence::absent;
      continue;
    }
    const double both = double(score.shared), sum = double(score.predicted + score.truth);
    score.dice = 2 * both / sum;
    score.iou = both / (sum - both);
    score.presence = score.predicted == 0 ? Presence::missed
                     : score.truth == 0   ? Presence::invented
                                          : Presence::found;
    if (!options.surfaces || score.presence != Presence::found) continue;
    const SurfaceDistances distances = surface_distances(prediction, truth, std::uint8_t(c));
    score.hd95 = distances.hd95();
    score.assd = distances.assd();
  }
  return result;
}

/// The scores of one class over many cases.
struct ClassSummary {
  DefinedMean dice, iou, hd95, assd;
  Index annotated = 0, absent = 0, missed = 0, invented = 0, found = 0;  // cases
};

/// The scores of many cases. A case counts once, by its mean over its classes.
struct ScoreSummary {
  std::vector<ClassSummary> classes;
  DefinedMean dice, iou, hd95, assd;  // over cases

  static ScoreSummary of(const std::vector<CaseScore>& cases) {
    ScoreSummary all;
    for (const CaseScore& one : cases) {
      all.dice.add(one.mean(&ClassScore::dice));
      all.iou.add(one.mean(&ClassScore::iou));
      all.hd95.add(one.mean(&ClassScore::hd95));
      all.assd.add(one.mean(&ClassScore::assd));
      if (all.classes.size() < one.classes.size()) all.classes.resize(one.classes.size());
      for (std::size_t c = 0; c < one.classes.size(); ++c) {
        const ClassScore& score = one.classes[c];
        ClassSummary& sum = all.classes[c];
        sum.dice.add(score.dice), sum.iou.add(score.iou);
        sum.hd95.add(score.hd95), sum.assd.add(score.assd);
        sum.annotated += score.presence != Presence::not_annotated;
        sum.absent += score.presence == Presence::absent;
        sum.missed += score.presence == Presence::missed;
        sum.invented += score.presence == Presence::invented;
        sum.found += score.presence == Presence::found;
      }
    }
    return all;
  }
};

/// The rules above in one sentence each, as reports print them.
inline const char* score_rules() {
  return "A case's Dice is the mean over its annotated classes; the mean Dice is the mean over "
         "cases. A class that is absent and not predicted has no score (null) and is left out of "
         "every mean; one that is missed, or predicted where there is none, scores 0 and has no "
         "surface distance. HD95 is the larger of the two directed 95th percentiles, ASSD the mean "
         "of all surface distances both ways, in mm between voxel centers.";
}

}  // namespace segmed
