// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <vector>

#include <segmed/autograd/pointwise.hpp>
#include <segmed/backend/parallel.hpp>
#include <segmed/image/volume.hpp>

namespace segmed {

/// How a network that was trained on patches is led over a whole image.
struct SlidingWindow {
  Extent3 patch = {64, 64, 64};     // x, y, z; a 2-D network takes x and y, slice by slice
  double overlap = 0.5;             // of neighboring windows, as a fraction of the patch
  std::array<bool, 3> mirror = {};  // axes to mirror: every subset of them is averaged
  std::vector<std::uint8_t> partner =
      {};                   // each class's name when x is mirrored: ClassTable::mirror
  float outside = 0;        // what an image smaller than the patch is padded with
  bool confidence = false;  // return the winner's probability as well
  std::function<void(Index done, Index total)> progress = {};  // after each window; may throw
};

/// What a network makes of an image.
struct Segmentation {
  Volume<std::uint8_t> labels;
  Volume<float> confidence;  // if asked for: the mean probability of the class that won
};

/// Where the windows of one axis begin: evenly, the last one ending with the image. A window larger
/// than the image lies around it.
///
///   source   Isensee et al., nnU-Net, 2021: compute_steps_for_sliding_window
inline std::vector<Index> window_starts(Index extent, Index patch, double overlap) {
  if (extent <= patch) return {-(patch - extent) / 2};
  const double step = std::max(1.0, double(patch) * (1 - overlap));
  const Index room = extent - patch, count = Index(std::ceil(double(room) / step - 1e-9)) + 1;
  std::vector<Index> starts;
  for (Index i = 0; i < count; ++i)
    starts.push_back(Index(std::llround(double(i) * double(room) / double(count - 1))));
  return starts;
}

/// A window's weights along one axis: a Gaussian around its middle with a deviation of patch / 8,
/// since predictions near its border have seen less.
inline std::vector<float> window_taper(Index patch) {
  std::vector<float> weights;
  for (Index i = 0; i < patch; ++i) {
    const double z = (double(i) - double(patch - 1) / 2) / (double(patch) / 8);
    weights.push_back(float(std::exp(-0.5 * z * z)));
  }
  return weights;
}

/// Leads one network over one image. Windows go from low to high z; once no later window reaches a
/// plane, its labels are fixed and its sums reused, so that memory holds classes times one patch
/// depth of planes, never classes times volume. Every sum is made in the order of the windows, so
/// the number of threads changes nothing.
template <FeatureMap F>
class WindowSweep {
 public:
  using T = typename F::value_type;
  using W = typename F::Wide;
  using D = typename F::device;

  WindowSweep(const Volume<float>& image, const SlidingWindow& how)
      : image_(image), how_(how), patch_(how.patch) {
    check_filled(image, "segment");
    if (F::dim == 2) patch_[2] = 1;
    require<ConfigError>(
        *std::min_element(patch_.begin(), patch_.end()) >= 1 && how.overlap >= 0 && how.overlap < 1,
        "segment", "a patch of ", patch_[0], "x", patch_[1], "x", patch_[2], " with an overlap of ",
        how.overlap, "; give sizes from 1, overlap below 1");
    require<ConfigError>(F::dim == 3 || !how.mirror[2], "segment",
                         "a 2-D network cannot be mirrored along z");
    for (std::size_t a = 0; a < 3; ++a) {
      starts_[a] = window_starts(image.extent[a], patch_[a], how.overlap);
      taper_[a] = window_taper(patch_[a]);
      total_[a].assign(std::size_t(image.extent[a]), 0);
      for (const Index start : starts_[a])
        for (Index i = inside(a, start, 0); i < inside(a, start, patch_[a]); ++i)
          total_[a][std::size_t(start + i)] += taper_[a][std::size_t(i)];
    }
    for (unsigned subset = 0; subset < 8; ++subset) {
      const std::array<bool, 3> flips = {(subset & 1) != 0, (subset & 2) != 0, (subset & 4) != 0};
      bool wanted = true;
      for (std::size_t a = 0; a < 3; ++a) wanted = wanted && (how.mirror[a] || !flips[a]);
      if (wanted) views_.push_back(flips);
    }
  }

  template <class Net>
  Segmentation run(const Net& net) {
    result_.labels = make_volume_like<std::uint8_t>(image_);
    if (how_.confidence) result_.confidence = make_volume_like<float>(image_);
    const auto& [xs, ys, zs] = starts_;
    const Index total = Index(xs.size() * ys.size() * zs.size());
    Index done = 0;
    for (std::size_t k = 0; k < zs.size(); ++k) {
      for (const Index y : ys)
        for (const Index x : xs) {
          for (const auto& flips : views_) add(net, {x, y, zs[k]}, flips);
          if (how_.progress) how_.progress(++done, total);
        }
      finish(k + 1 < zs.size() ? zs[k + 1] : image_.extent[2]);
    }
    return std::move(result_);
  }

 private:
  /// The patch position i of a window, moved into the image.
  Index inside(std::size_t axis, Index start, Index i) const {
    return std::clamp<Index>(i, -start, image_.extent[axis] - start);
  }
  /// Where a patch position lies in the mirrored patch.
  Index mirrored(std::size_t axis, Index i, bool flip) const {
    return flip ? patch_[axis] - 1 - i : i;
  }

  F read(const Extent3& start, const std::array<bool, 3>& flips) const {
    const Grid grid{1, patch_[2], patch_[1], patch_[0], image_.channels};
    std::vector<T> host(std::size_t(grid.size()), T(W(how_.outside)));
    const Index begin = inside(0, start[0], 0), end = inside(0, start[0], patch_[0]);
    parallel_for(patch_[2] * patch_[1], 8, [&](Index first, Index last) {
      for (Index row = first; row < last; ++row) {
        const Index z = row / patch_[1], y = row % patch_[1];
        if (!image_.contains(0, start[1] + y, start[2] + z)) continue;
        const Index to =
            (mirrored(2, z, flips[2]) * patch_[1] + mirrored(1, y, flips[1])) * patch_[0];
        for (Index x = begin; x < end; ++x) {
          const float* from = &image_.at(start[0] + x, start[1] + y, start[2] + z);
          T* at = &host[std::size_t((to + mirrored(0, x, flips[0])) * image_.channels)];
          for (Index c = 0; c < image_.channels; ++c) at[c] = T(W(from[c]));
        }
      }
    });
    return F(grid, Storage<T, D>(host));
  }

  template <class Net>
  void add(const Net& net, const Extent3& start, const std::array<bool, 3>& flips) {
    const F image = read(start, flips);
    const F odds = evaluating([&] { return value(softmax(F(net(image)))); });
    const Grid grid = odds.grid();
    require(grid.with_channels(0) == image.grid().with_channels(0) && grid.channels >= 2 &&
                grid.channels <= 255,
            "segment", "a patch ", image.grid(), " became logits ", grid,
            "; a network keeps the extents and gives 2 to 255 classes");
    if (classes_ == 0) begin(grid.channels);
    require(classes_ == grid.channels, "segment", "logits of ", classes_, " and of ", grid.channels,
            " classes");
    const auto probability = odds.dense().value.host();
    const Index low = inside(0, start[0], 0), high = inside(0, start[0], patch_[0]);
    const Index width = image_.extent[0], height = image_.extent[1];
    parallel_for(patch_[2] * patch_[1], 8, [&](Index first, Index last) {
      for (Index row = first; row < last; ++row) {
        const Index z = row / patch_[1], y = row % patch_[1];
        if (!image_.contains(0, start[1] + y, start[2] + z)) continue;
        const float weight = taper_[2][std::size_t(z)] * taper_[1][std::size_t(y)];
        const Index from =
            (mirrored(2, z, flips[2]) * patch_[1] + mirrored(1, y, flips[1])) * patch_[0];
        const Index to = ((start[2] + z) % planes_ * height + start[1] + y) * width + start[0];
        for (Index x = low; x < high; ++x)
          deposit(weight * taper_[0][std::size_t(x)],
                  &probability[std::size_t((from + mirrored(0, x, flips[0])) * classes_)],
                  flips[0] && !how_.partner.empty() ? how_.partner.data() : nullptr,
                  &sums_[std::size_t((to + x) * classes_)]);
      }
    });
  }
  void deposit(float weight, const T* from, const std::uint8_t* partner, float* to) const {
    if (partner)
      for (Index c = 0; c < classes_; ++c) to[c] += weight * float(W(from[partner[c]]));
    else
      for (Index c = 0; c < classes_; ++c) to[c] += weight * float(W(from[c]));
  }

  void begin(Index classes) {
    classes_ = classes;
    require<ConfigError>(how_.partner.empty() || Index(how_.partner.size()) == classes, "segment",
                         how_.partner.size(), " partners for ", classes, " classes");
    for (const std::uint8_t c : how_.partner)
      require<ConfigError>(c < classes, "segment", "partner ", int(c), " of ", classes, " classes");
    planes_ = std::min(patch_[2], image_.extent[2]);
    sums_.assign(std::size_t(planes_ * image_.extent[1] * image_.extent[0] * classes), 0);
  }

  /// Fixes the labels of all planes below `next`, which no later window reaches.
  void finish(Index next) {
    const Index width = image_.extent[0], height = image_.extent[1], from = finished_;
    parallel_for((next - from) * height, 8, [&](Index first, Index last) {
      for (Index row = first; row < last; ++row) {
        const Index z = from + row / height, y = row % height;
        const float weight = total_[2][std::size_t(z)] * total_[1][std::size_t(y)];
        for (Index x = 0; x < width; ++x) {
          float* sums = &sums_[std::size_t(((z % planes_ * height + y) * width + x) * classes_)];
          const float* best = std::max_element(sums, sums + classes_);
          require<DataError>(std::isfinite(*best), "segment", "at voxel (", x, ", ", y, ", ", z,
                             ") the network gives no number");
          result_.labels.at(x, y, z) = std::uint8_t(best - sums);
          if (how_.confidence)
            result_.confidence.at(x, y, z) =
                *best / (weight * total_[0][std::size_t(x)] * float(views_.size()));
          std::fill(sums, sums + classes_, 0.0f);
        }
      }
    });
    finished_ = next;
  }

  const Volume<float>& image_;
  const SlidingWindow& how_;
  Extent3 patch_;
  std::array<std::vector<Index>, 3> starts_;
  std::array<std::vector<float>, 3> taper_, total_;  // of one window; of all at each voxel
  std::vector<std::array<bool, 3>> views_;
  Index classes_ = 0, planes_ = 0, finished_ = 0;
  std::vector<float> sums_;  // (planes, height, width, classes); plane z lies at z % planes
  Segmentation result_;
};

/// The labels that a network gives an image of any size: windows with Gaussian weights, averaged
/// over mirrored views as probabilities, the likeliest class of each voxel (the lowest of equals).
///
///   shapes   net: (1, spatial..., image.channels) to logits (1, spatial..., classes)
///   units    voxels; the image has the spacing and normalization that the network was trained with
///   throws   ConfigError for options out of range; ShapeError when the network changes extents;
///            DataError when it gives NaN
///   source   Isensee et al., nnU-Net, 2021: half a patch of overlap, deviation patch / 8
template <FeatureMap F, class Net>
Segmentation segment(const Net& net, const Volume<float>& image, const SlidingWindow& how = {}) {
  static_assert(
      requires(const F& x) { F(net(x)); },
      "segment<F>: the network must turn an F into an F; see segmed/train/inference.hpp");
  return WindowSweep<F>(image, how).run(net);
}

/// Bytes that `segment` holds at once beside the image, its labels and what the network needs.
inline Index segment_bytes(const Extent3& extent, const Extent3& patch, Index classes) {
  const Index planes = std::min(patch[2], extent[2]);
  return Index(sizeof(float)) * classes *
         (planes * extent[1] * extent[0] + patch[0] * patch[1] * patch[2]);
}

}  // namespace segmed
