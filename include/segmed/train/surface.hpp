// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include <segmed/core/annotated_set.hpp>
#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>
#include <segmed/image/distance.hpp>
#include <segmed/image/volume.hpp>

namespace segmed {

/// The p-th percentile (0 to 100), interpolated between the two nearest values as NumPy does; NaN
/// of nothing.
inline double percentile(std::vector<double> values, double p) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const double place = p / 100 * double(values.size() - 1);
  const auto below = values.begin() + Index(place);
  std::nth_element(values.begin(), below, values.end());
  if (below + 1 == values.end()) return *below;
  const double above = *std::min_element(below + 1, values.end());
  return *below + (above - *below) * (place - std::floor(place));
}

/// How far the surface voxels of a predicted and of a true structure are from each other's surface,
/// center to center.
///
///   units    mm
///   source   HD95 and ASSD as MONAI defines them: the larger of the two directed percentiles, and
///            the mean of both directions' distances together
struct SurfaceDistances {
  std::vector<double> to_truth;       // one per surface voxel of the prediction
  std::vector<double> to_prediction;  // one per surface voxel of the truth

  /// False where one of the two has no surface: then there is no distance, and both results are
  /// NaN.
  bool defined() const { return !to_truth.empty() && !to_prediction.empty(); }
  /// Hausdorff distance, of which the farthest 5 % on each side are left out.
  double hd95() const {
    if (!defined()) return std::numeric_limits<double>::quiet_NaN();
    return std::max(percentile(to_truth, 95), percentile(to_prediction, 95));
  }
  /// Average symmetric surface distance.
  double assd() const {
    if (!defined()) return std::numeric_limits<double>::quiet_NaN();
    const double sum = std::accumulate(to_truth.begin(), to_truth.end(), 0.0) +
                       std::accumulate(to_prediction.begin(), to_prediction.end(), 0.0);
    return sum / double(to_truth.size() + to_prediction.size());
  }
};

/// The smallest box that holds both structures: its first voxel and its extent, 0 if there is none.
struct LabelBox {
  Extent3 first{}, extent{};
};

/// The box of all voxels that have the label in one of two label maps.
inline LabelBox box_of_label(const Volume<std::uint8_t>& a, const Volume<std::uint8_t>& b,
                             std::uint8_t label) {
  Extent3 low = a.extent, high{-1, -1, -1};
  for (Index z = 0; z < a.extent[2]; ++z)
    for (Index y = 0; y < a.extent[1]; ++y) {
      const std::size_t row = std::size_t(a.index(0, y, z));
      Index first = -1, last = -1;
      for (Index x = 0; x < a.extent[0]; ++x)
        if (a.voxels[row + std::size_t(x)] == label || b.voxels[row + std::size_t(x)] == label) {
          if (first < 0) first = x;
          last = x;
        }
      if (first < 0) continue;
      low = {std::min(low[0], first), std::min(low[1], y), std::min(low[2], z)};
      high = {std::max(high[0], last), std::max(high[1], y), std::max(high[2], z)};
    }
  if (high[0] < 0) return {};
  return {low, {high[0] - low[0] + 1, high[1] - low[1] + 1, high[2] - low[2] + 1}};
}

/// The surface of a label within a box: 1 at each voxel of the label that has one of its 6
/// neighbors outside of it. Beyond the volume is outside; an axis of one voxel has no neighbors.
/// Where the truth is `ignored` nobody knows: such a voxel is neither surface nor outside.
inline std::vector<std::uint8_t> surface_of_label(const Volume<std::uint8_t>& labels,
                                                  const Volume<std::uint8_t>& truth,
                                                  std::uint8_t label, const LabelBox& box) {
  std::vector<std::uint8_t> surface(std::size_t(box.extent[0] * box.extent[1] * box.extent[2]));
  const Extent3 stride{1, labels.extent[0], labels.extent[0] * labels.extent[1]};
  std::size_t out = 0;
  for (Index z = 0; z < box.extent[2]; ++z)
    for (Index y = 0; y < box.extent[1]; ++y)
      for (Index x = 0; x < box.extent[0]; ++x, ++out) {
        const Extent3 place{x + box.first[0], y + box.first[1], z + box.first[2]};
        const Index i = labels.index(place[0], place[1], place[2]);
        if (labels.voxels[std::size_t(i)] != label || truth.voxels[std::size_t(i)] == ignored)
          continue;
        const auto outside = [&](Index j) {
          return labels.voxels[std::size_t(j)] != label && truth.voxels[std::size_t(j)] != ignored;
        };
        bool border = false;
        for (std::size_t a = 0; a < 3 && !border; ++a) {
          if (labels.extent[a] == 1) continue;
          border = place[a] == 0 || place[a] == labels.extent[a] - 1 || outside(i - stride[a]) ||
                   outside(i + stride[a]);
        }
        surface[out] = border ? 1 : 0;
      }
  return surface;
}

/// The distances between the surfaces of one class in a prediction and in the truth.
///
///   shapes   both on one grid, one channel
///   throws   ShapeError when extents differ
inline SurfaceDistances surface_distances(const Volume<std::uint8_t>& prediction,
                                          const Volume<std::uint8_t>& truth, std::uint8_t label) {
  check_filled(prediction, "surface");
  check_filled(truth, "surface");
  require(prediction.extent == truth.extent && prediction.channels == 1 && truth.channels == 1,
          "surface", "a prediction of ", prediction.extent[0], "x", prediction.extent[1], "x",
          prediction.extent[2], " does not fit a truth of ", truth.extent[0], "x", truth.extent[1],
          "x", truth.extent[2]);
  SurfaceDistances distances;
  const LabelBox box = box_of_label(prediction, truth, label);
  if (box.extent[0] == 0) return distances;
  const auto step = truth.spacing();
  const auto ours = surface_of_label(prediction, truth, label, box);
  const auto theirs = surface_of_label(truth, truth, label, box);
  const auto any = [](const auto& mask) { return std::count(mask.begin(), mask.end(), 1) > 0; };
  if (!any(ours) || !any(theirs)) return distances;
  const auto measure = [&](const auto& from, const auto& to, std::vector<double>& found) {
    const auto squares = squared_distances(to, box.extent, {step[0], step[1], step[2]});
    for (std::size_t i = 0; i < from.size(); ++i)
      if (from[i] != 0) found.push_back(std::sqrt(squares[i]));
  };
  measure(ours, theirs, distances.to_truth);
  measure(theirs, ours, distances.to_prediction);
  return distances;
}

}  // namespace segmed
