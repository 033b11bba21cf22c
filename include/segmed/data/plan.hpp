// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include <segmed/core/json.hpp>
#include <segmed/data/prepare.hpp>

namespace segmed {

/// What the user wants otherwise than the data suggest; zero or empty leaves it to the data.
struct PlanOptions {
  std::array<double, 3> spacing_mm = {0, 0, 0};  // along R, A and S
  Extent3 patch = {0, 0, 0};
  Index batch = 0;
  std::vector<Index> widths = {};                 // channels of the network's levels, finest first
  Index first_width = 8;                          // of the finest level, where widths are chosen
  Index patch_voxels = 65536;                     // the most voxels of a patch that is chosen
  std::vector<Normalization> normalization = {};  // none or one
};

/// How a data set is trained on: chosen from the training cases, printed, saved with the model.
struct Plan {
  Preparation preparation;
  Extent3 patch = {32, 32, 32};
  Index batch = 2, channels = 1;
  std::vector<Index> widths = {8, 16, 32};
  Extent3 median_extent = {0, 0, 0};  // of the training scans at the plan's spacing
  friend bool operator==(const Plan&, const Plan&) = default;

  /// The largest step between voxels of the network's coarsest level.
  Index stride() const { return Index{1} << (widths.size() - 1); }
  /// One line for people.
  std::string text() const {
    char line[256];
    const auto& s = preparation.spacing_mm;
    std::snprintf(line, sizeof line,
                  "spacing %.3g x %.3g x %.3g mm, normalization %s, patch %d x %d x %d, batch %d, "
                  "widths",
                  s[0], s[1], s[2], name_of(preparation.normalization.kind), int(patch[0]),
                  int(patch[1]), int(patch[2]), int(batch));
    std::string all = line;
    for (const Index width : widths) all += ' ' + std::to_string(width);
    return all;
  }
};

/// Looks at the training cases, one by one, and then chooses the plan.
///
///   source   Isensee et al., nnU-Net, Nature Methods 2021, its rules made short: median spacing
///            (the tenth percentile along an axis that is more than three times coarser than the
///            others), the median scan cut down to the patch's budget, CT by the training
///            foreground's percentiles and anything else scan by scan
class Survey {
 public:
  void add(const Example& example) {
    const Volume<float>& image = example.image;
    const AxisMap turn = image.geometry.turn_to("RAS");
    const Extent3 extent = turn.extent(image.extent);
    const Eigen::Vector3d spacing = image.geometry.turned(turn, image.extent).spacing();
    require<DataError>(extents_.empty() || image.channels == channels_, "plan", "case ", example.id,
                       " has ", image.channels, " channels, the cases before it ", channels_);
    extents_.push_back(extent);
    spacings_.push_back({spacing[0], spacing[1], spacing[2]});
    channels_ = image.channels;
    float least = 0;
    for (const float value : image.voxels)
      if (value < least) least = value;
    dark_ += least < -500 ? 1 : 0;
    intensities_.add(example);
  }
  Index cases() const { return Index(extents_.size()); }

  /// The plan for what was added.
  ///
  ///   throws   DataError when nothing was added, ConfigError for options that do not fit each
  ///   other
  Plan plan(const PlanOptions& options = {}) const {
    require<DataError>(!extents_.empty(), "plan", "no training case to look at");
    Plan chosen;
    chosen.channels = channels_;
    chosen.preparation.spacing_mm = spacing(options);
    if (!options.normalization.empty())
      chosen.preparation.normalization = options.normalization.front();
    else if (Index(dark_) * 2 > cases())  // Hounsfield units: air is far below zero
      chosen.preparation.normalization = intensities_.percentile();
    for (std::size_t k = 0; k < 3; ++k) {
      std::vector<double> sizes;
      for (std::size_t i = 0; i < extents_.size(); ++i)
        sizes.push_back(double(extents_[i][k]) * spacings_[i][k] /
                        chosen.preparation.spacing_mm[k]);
      chosen.median_extent[k] = std::max<Index>(1, Index(std::lround(quantile(sizes, 0.5))));
    }
    choose_network(options, chosen);
    return chosen;
  }

 private:
  static double quantile(std::vector<double> values, double part) {
    std::sort(values.begin(), values.end());
    const double at = part * double(values.size() - 1);
    const auto low = std::size_t(at), high = std::min(low + 1, values.size() - 1);
    return values[low] + (at - double(low)) * (values[high] - values[low]);
  }
  std::array<double, 3> spacing(const PlanOptions& options) const {
    std::array<std::vector<double>, 3> along;
    for (const auto& one : spacings_)
      for (std::size_t k = 0; k < 3; ++k) along[k].push_back(one[k]);
    std::array<double, 3> target{};
    for (std::size_t k = 0; k < 3; ++k) target[k] = quantile(along[k], 0.5);
    const auto worst = std::size_t(std::max_element(target.begin(), target.end()) - target.begin());
    const double others = std::max(target[(worst + 1) % 3], target[(worst + 2) % 3]);
    if (target[worst] > 3 * others)
      target[worst] = std::max(quantile(along[worst], 0.1), others + 1e-5);
    for (std::size_t k = 0; k < 3; ++k)
      if (options.spacing_mm[k] > 0)
        target[k] = options.spacing_mm[k];
      else  // 1.0000001 mm is 1 mm
        target[k] = std::round(target[k] * 1e4) / 1e4;
    return target;
  }
  static void choose_network(const PlanOptions& options, Plan& chosen) {
    const Extent3& scan = chosen.median_extent;
    // One slice to a patch, or to a scan, makes the network 2-D.
    const bool flat = options.patch[2] == 1 || (options.patch[2] <= 0 && scan[2] == 1);
    const std::size_t axes = flat ? 2 : 3;
    if (!options.widths.empty()) {
      chosen.widths = options.widths;
    } else {
      chosen.widths = {options.first_width};
      // A level more as long as the coarsest one keeps four voxels along every axis.
      const Index narrow = *std::min_element(scan.begin(), scan.begin() + axes);
      while (chosen.widths.size() < 4 && narrow >= 4 * 2 * chosen.stride())
        chosen.widths.push_back(2 * chosen.widths.back());
    }
    const Index stride = chosen.stride();
    chosen.patch[2] = 1;
    for (std::size_t k = 0; k < axes; ++k)
      chosen.patch[k] = stride * std::max<Index>(1, scan[k] / stride);
    const auto voxels = [&] { return chosen.patch[0] * chosen.patch[1] * chosen.patch[2]; };
    while (voxels() > options.patch_voxels) {
      std::size_t longest = 3;
      double length = 0;
      for (std::size_t k = 0; k < axes; ++k) {
        const double mm = double(chosen.patch[k]) * chosen.preparation.spacing_mm[k];
        if (chosen.patch[k] > stride && mm > length) longest = k, length = mm;
      }
      if (longest == 3) break;
      chosen.patch[longest] -= stride;
    }
    for (std::size_t k = 0; k < axes; ++k) {
      if (options.patch[k] <= 0) continue;
      require<ConfigError>(options.patch[k] % stride == 0, "plan", "a patch of ", options.patch[0],
                           "x", options.patch[1], "x", options.patch[2], " with ",
                           chosen.widths.size(), " levels; each extent must be a multiple of ",
                           stride);
      chosen.patch[k] = options.patch[k];
    }
    const Index fitting = 2 * options.patch_voxels / voxels();
    chosen.batch = options.batch > 0 ? options.batch : std::clamp<Index>(fitting, 2, flat ? 16 : 4);
  }

  std::vector<Extent3> extents_;
  std::vector<std::array<double, 3>> spacings_;
  Index channels_ = 1, dark_ = 0;
  IntensityFit intensities_;
};

/// {"spacing_mm", "normalization", "patch", "batch", "channels", "widths", "median_extent"}.
inline Json to_json(const Plan& plan) {
  Json json;
  json["spacing_mm"] = Json::list(plan.preparation.spacing_mm);
  json["normalization"] = to_json(plan.preparation.normalization);
  json["patch"] = Json::list(plan.patch);
  json["batch"] = plan.batch;
  json["channels"] = plan.channels;
  json["widths"] = Json::list(plan.widths);
  json["median_extent"] = Json::list(plan.median_extent);
  return json;
}
/// Throws DataError for a plan that lacks something or has a number that makes no sense.
inline Plan plan_of(const Json& json) {
  Plan plan;
  const auto three = [&](const char* name) -> const Json::Array& {
    const auto& values = json.at(name).as_array();
    require<DataError>(values.size() == 3, "plan", name, " has ", values.size(),
                       " numbers; it needs 3");
    return values;
  };
  for (std::size_t k = 0; k < 3; ++k) {
    plan.preparation.spacing_mm[k] = three("spacing_mm")[k].as_number();
    plan.patch[k] = three("patch")[k].as_index();
    plan.median_extent[k] = three("median_extent")[k].as_index();
    require<DataError>(plan.patch[k] >= 1, "plan", "the patch has an extent of ", plan.patch[k]);
  }
  plan.preparation.normalization = normalization_of(json.at("normalization"));
  plan.batch = json.at("batch").as_index();
  plan.channels = json.at("channels").as_index();
  plan.widths.clear();
  for (const Json& width : json.at("widths").as_array()) plan.widths.push_back(width.as_index());
  require<DataError>(!plan.widths.empty() && plan.batch >= 1 && plan.channels >= 1, "plan",
                     "no widths, or a batch of ", plan.batch, " with ", plan.channels, " channels");
  return plan;
}

}  // namespace segmed
