// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include <segmed/core/annotated_set.hpp>
#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>
#include <segmed/experiment/png.hpp>
#include <segmed/image/orient.hpp>
#include <segmed/image/volume.hpp>
#include <segmed/train/surface.hpp>

namespace segmed {

/// How a slice is drawn. Without a window (low >= high) it reaches from the 1st to the 99.5th
/// percentile of the slice.
struct OverlayOptions {
  double low = 0, high = 0;  // the values that are black and white
  Index pixels = 420;        // of the longer side, at least
  double fill = 0.22;        // how strongly a label's inside is tinted; its contour is opaque
};

/// The axial slice in which the most classes are seen, and of those the one with most voxels.
///
///   shapes   labels in an orientation whose third axis runs along the body
inline Index busiest_slice(const Volume<std::uint8_t>& labels) {
  Index best = labels.extent[2] / 2;
  double most = 0;
  for (Index z = 0; z < labels.extent[2]; ++z) {
    std::vector<double> count(256);
    const auto first = labels.voxels.begin() + labels.index(0, 0, z);
    std::for_each(first, first + labels.extent[0] * labels.extent[1],
                  [&](std::uint8_t label) { count[label] += 1; });
    count[0] = count[ignored] = 0;
    double score = 0;  // the square root lets a second class count more than a larger first one
    for (const double voxels : count) score += std::sqrt(voxels);
    if (score > most) most = score, best = z;
  }
  return best;
}

/// The values that are black and white in a slice.
inline std::pair<double, double> window_of(const Volume<float>& image, Index z,
                                           const OverlayOptions& options) {
  if (options.low < options.high) return {options.low, options.high};
  std::vector<double> values;
  for (Index y = 0; y < image.extent[1]; ++y)
    for (Index x = 0; x < image.extent[0]; ++x)
      if (std::isfinite(image.at(x, y, z))) values.push_back(image.at(x, y, z));
  const double low = percentile(values, 1), high = percentile(values, 99.5);
  return low < high ? std::pair{low, high} : std::pair{0.0, 1.0};
}

/// One axial slice in gray with colored label contours, as radiologists look at it: from the feet,
/// the patient's right on the left, front up. Pixels are square in mm.
///
///   shapes   image (first channel) and labels on one grid, both in RAS orientation; z in voxels
///   throws   ShapeError when extents differ or the slice does not exist
inline Picture draw_slice(const Volume<float>& image, const Volume<std::uint8_t>& labels, Index z,
                          const OverlayOptions& options = {}) {
  check_filled(image, "overlay");
  check_filled(labels, "overlay");
  require(image.extent == labels.extent && z >= 0 && z < image.extent[2], "overlay", "slice ", z,
          " of an image of ", image.extent[0], "x", image.extent[1], "x", image.extent[2],
          " and labels of ", labels.extent[0], "x", labels.extent[1], "x", labels.extent[2]);
  const Index nx = image.extent[0], ny = image.extent[1];
  double low = 0, high = 1;
  std::tie(low, high) = window_of(image, z, options);
  const auto step = image.spacing();
  const double across = double(nx) * step[0], down = double(ny) * step[1];
  const double scale = std::max(1 / std::min(step[0], step[1]),
                                double(options.pixels) / std::max(across, down));  // pixels per mm
  const auto side = [](double n) { return std::clamp<Index>(Index(std::lround(n)), 1, 4096); };
  Picture picture(side(across * scale), side(down * scale));

  // The voxel position of a pixel's center; both axes of the page run against the patient's.
  const auto column = [&](Index x) {
    return double(nx) - 0.5 - (double(x) + 0.5) * double(nx) / double(picture.width);
  };
  const auto row = [&](Index y) {
    return double(ny) - 0.5 - (double(y) + 0.5) * double(ny) / double(picture.height);
  };
  const auto gray = [&](double x, double y) {
    const double fx = std::clamp(x, 0.0, double(nx - 1)), fy = std::clamp(y, 0.0, double(ny - 1));
    const Index x0 = Index(fx), y0 = Index(fy);
    const Index x1 = std::min(x0 + 1, nx - 1), y1 = std::min(y0 + 1, ny - 1);
    const double tx = fx - double(x0), ty = fy - double(y0);
    const double above = double(image.at(x0, y0, z)) * (1 - tx) + double(image.at(x1, y0, z)) * tx;
    const double below = double(image.at(x0, y1, z)) * (1 - tx) + double(image.at(x1, y1, z)) * tx;
    const double value = (above * (1 - ty) + below * ty - low) / (high - low);
    return std::isfinite(value) ? 255 * std::clamp(value, 0.0, 1.0) : 0.0;
  };
  // The class that weighs most among the four voxels around: contours without stairs.
  const auto label = [&](double x, double y) {
    const double fx = std::clamp(x, 0.0, double(nx - 1)), fy = std::clamp(y, 0.0, double(ny - 1));
    const Index x0 = Index(fx), y0 = Index(fy);
    std::array<std::uint8_t, 4> classes{};
    std::array<double, 4> weights{};
    std::uint8_t best = 0;
    double most = 0;
    for (std::size_t k = 0; k < 4; ++k) {
      const Index cx = std::min(x0 + Index(k % 2), nx - 1),
                  cy = std::min(y0 + Index(k / 2), ny - 1);
      const double tx = fx - double(x0), ty = fy - double(y0);
      const std::uint8_t found = labels.at(cx, cy, z);
      classes[k] = found == ignored ? std::uint8_t(0) : found;
      for (std::size_t j = 0; j <= k; ++j)
        if (classes[j] == classes[k]) {
          weights[j] += (k % 2 ? tx : 1 - tx) * (k / 2 ? ty : 1 - ty);
          break;
        }
    }
    for (std::size_t k = 0; k < 4; ++k)
      if (weights[k] > most) most = weights[k], best = classes[k];
    return best;
  };
  std::vector<std::uint8_t> shown;
  for (Index y = 0; y < picture.height; ++y)
    for (Index x = 0; x < picture.width; ++x) shown.push_back(label(column(x), row(y)));
  const auto at = [&](Index x, Index y) { return shown[std::size_t(y * picture.width + x)]; };
  const Index thick = std::max<Index>(1, Index(std::lround(double(picture.width) / 210)));
  for (Index y = 0; y < picture.height; ++y)
    for (Index x = 0; x < picture.width; ++x) {
      const double value = gray(column(x), row(y));
      const std::uint8_t inside = at(x, y);
      bool border = false;
      for (Index k = 1; inside != 0 && k <= thick; ++k)
        border = border || x < k || y < k || x + k >= picture.width || y + k >= picture.height ||
                 at(x - k, y) != inside || at(x + k, y) != inside || at(x, y - k) != inside ||
                 at(x, y + k) != inside;
      const Rgb tint = class_color(inside);
      const double share = inside == 0 ? 0 : border ? 1 : options.fill;
      const auto mixed = [&](std::uint8_t color) {
        return std::uint8_t(std::lround(value * (1 - share) + double(color) * share));
      };
      picture.at(x, y) = {mixed(tint.red), mixed(tint.green), mixed(tint.blue)};
    }
  return picture;
}

/// The part of a slice that is not black: columns and rows whose mean is above a twentieth of the
/// window, or that hold a label, and a margin.
inline LabelBox body_box(const Volume<float>& image,
                         const std::vector<Volume<std::uint8_t>>& labels, Index z,
                         const OverlayOptions& options) {
  const auto [low, high] = window_of(image, z, options);
  LabelBox box{{0, 0, z}, {image.extent[0], image.extent[1], 1}};
  for (std::size_t axis = 0; axis < 2; ++axis) {
    const std::size_t other = 1 - axis;
    Index first = image.extent[axis], last = -1;
    for (Index i = 0; i < image.extent[axis]; ++i) {
      double sum = 0;
      bool marked = false;
      for (Index j = 0; j < image.extent[other]; ++j) {
        const Index x = axis == 0 ? i : j, y = axis == 0 ? j : i;
        const double value = (double(image.at(x, y, z)) - low) / (high - low);
        sum += std::isfinite(value) ? std::clamp(value, 0.0, 1.0) : 0;
        for (const auto& map : labels)
          marked = marked || (map.at(x, y, z) != 0 && map.at(x, y, z) != ignored);
      }
      if (!marked && sum <= 0.05 * double(image.extent[other])) continue;
      first = std::min(first, i), last = i;
    }
    if (last < 0) continue;
    const Index margin = image.extent[axis] / 32 + 1;
    box.first[axis] = std::max<Index>(0, first - margin);
    box.extent[axis] = std::min(image.extent[axis], last + margin + 1) - box.first[axis];
  }
  return box;
}

/// Several label maps over the same slice of one case.
struct OverlayRow {
  std::vector<Picture> pictures;  // as many as there are label maps
  std::vector<Index> classes;     // that are seen in one of them
};

/// Draws label maps, the truth first, over the slice of the image where the truth shows most,
/// whatever the image's orientation.
///
///   throws   ShapeError when extents differ
inline OverlayRow draw_overlays(const Volume<float>& image,
                                const std::vector<const Volume<std::uint8_t>*>& maps,
                                const OverlayOptions& options = {}) {
  const Volume<float> scan = reorient(image);
  std::vector<Volume<std::uint8_t>> labels;
  for (const Volume<std::uint8_t>* map : maps) {
    require(map->extent == image.extent, "overlay", "labels of ", map->extent[0], "x",
            map->extent[1], "x", map->extent[2], " lie over an image of ", image.extent[0], "x",
            image.extent[1], "x", image.extent[2]);
    labels.push_back(*map);
    labels.back().geometry = image.geometry;
    labels.back() = reorient(labels.back());
  }
  const auto shows = [](const Volume<std::uint8_t>& map) {
    return std::any_of(map.voxels.begin(), map.voxels.end(),
                       [](std::uint8_t l) { return l != 0 && l != ignored; });
  };
  const auto shown = std::find_if(labels.begin(), labels.end(), shows);
  const Index z = shown == labels.end() ? scan.extent[2] / 2 : busiest_slice(*shown);
  OverlayRow row;
  std::vector<bool> seen(256);
  const LabelBox box = body_box(scan, labels, z, options);
  OverlayOptions drawn = options;  // the window is that of the whole slice
  std::tie(drawn.low, drawn.high) = window_of(scan, z, options);
  const Volume<float> part = cropped(scan, box.first, box.extent);
  for (const Volume<std::uint8_t>& map : labels) {
    row.pictures.push_back(draw_slice(part, cropped(map, box.first, box.extent), 0, drawn));
    const Index first = map.index(0, 0, z);
    for (Index i = first; i < first + map.extent[0] * map.extent[1]; ++i)
      seen[map.voxels[std::size_t(i)]] = true;
  }
  for (Index c = 1; c < ignored; ++c)
    if (seen[std::size_t(c)]) row.classes.push_back(c);
  return row;
}

}  // namespace segmed
