// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <functional>
#include <vector>

#include <segmed/autograd/pointwise.hpp>
#include <segmed/backend/cpu.hpp>
#include <segmed/image/volume.hpp>
#include <segmed/train/window_kernels.hpp>

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
  // After each window, on a GPU once it is queued; may throw.
  std::function<void(Index done, Index total)> progress = {};
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
/// depth of planes, never classes times volume. The image lies on the device once, the sums lie
/// there, and what comes back are the finished planes of labels. Every sum is made in the order of
/// the windows, so the number of threads changes nothing.
template <FeatureMap F>
class WindowSweep {
 public:
  using T = typename F::value_type;
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
      const std::vector<float> taper = window_taper(patch_[a]);
      std::vector<float> total(std::size_t(image.extent[a]), 0);
      for (const Index start : starts_[a])
        for (Index i = inside(a, start, 0); i < inside(a, start, patch_[a]); ++i)
          total[std::size_t(start + i)] += taper[std::size_t(i)];
      taper_[a] = Storage<float, D>(taper), total_[a] = Storage<float, D>(total);
    }
    if constexpr (!on_host) image_there_ = Storage<float, D>(image.voxels);
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
  WindowView view(const Extent3& start, const std::array<bool, 3>& flips) const {
    WindowView v{};
    for (std::size_t a = 0; a < 3; ++a) {
      v.extent[a] = image_.extent[a], v.patch[a] = patch_[a], v.start[a] = start[a];
      v.low[a] = inside(a, start[a], 0);
      v.count[a] = inside(a, start[a], patch_[a]) - v.low[a];
      v.flip[a] = flips[a];
    }
    return v;
  }
  F read(const WindowView& window) const {
    const Grid grid{1, patch_[2], patch_[1], patch_[0], image_.channels};
    const float* image = on_host ? image_.voxels.data() : image_there_.read();
    Storage<T, D> patch(grid.size(), Uninitialized{});
    D::launch_rows(patch_[2] * patch_[1], patch_[0],
                   CropWindow<T>{window, image, image_.channels, how_.outside, patch.write()});
    return F(grid, patch);
  }

  template <class Net>
  void add(const Net& net, const Extent3& start, const std::array<bool, 3>& flips) {
    const WindowView window = view(start, flips);
    const F image = read(window);
    const F odds = evaluating([&] { return value(softmax(F(net(image)))); });
    const Grid grid = odds.grid();
    require(grid.with_channels(0) == image.grid().with_channels(0) && grid.channels >= 2 &&
                grid.channels <= 255,
            "segment", "a patch ", image.grid(), " became logits ", grid,
            "; a network keeps the extents and gives 2 to 255 classes");
    if (classes_ == 0) begin(grid.channels);
    require(classes_ == grid.channels, "segment", "logits of ", classes_, " and of ", grid.channels,
            " classes");
    D::launch_rows(window.count[2] * window.count[1], window.count[0],
                   DepositWindow<T>{window, odds.data(), taper_[0].read(), taper_[1].read(),
                                    taper_[2].read(), flips[0] ? partner_there_.read() : nullptr,
                                    classes_, planes_, sums_.write()});
  }

  void begin(Index classes) {
    classes_ = classes;
    require<ConfigError>(how_.partner.empty() || Index(how_.partner.size()) == classes, "segment",
                         how_.partner.size(), " partners for ", classes, " classes");
    for (const std::uint8_t c : how_.partner)
      require<ConfigError>(c < classes, "segment", "partner ", int(c), " of ", classes, " classes");
    planes_ = std::min(patch_[2], image_.extent[2]);
    const Index voxels = planes_ * image_.extent[1] * image_.extent[0];
    sums_ = Storage<float, D>(voxels * classes);
    if (!how_.partner.empty()) partner_there_ = Storage<std::uint8_t, D>(how_.partner);
    if constexpr (!on_host) {
      labels_there_ = Storage<std::uint8_t, D>(voxels, Uninitialized{});
      if (how_.confidence) confidence_there_ = Storage<float, D>(voxels, Uninitialized{});
    }
  }

  /// Fixes the labels of all planes below `next`, which no later window reaches.
  void finish(Index next) {
    const Index width = image_.extent[0], height = image_.extent[1];
    const Index from = finished_ * height * width, voxels = next * height * width - from;
    std::uint8_t* const labels = result_.labels.voxels.data() + from;
    float* const sure = how_.confidence ? result_.confidence.voxels.data() + from : nullptr;
    D::launch_rows((next - finished_) * height, width,
                   FinishPlanes{finished_, planes_, height, width, classes_, float(views_.size()),
                                total_[0].read(), total_[1].read(), total_[2].read(), sums_.write(),
                                on_host ? labels : labels_there_.write(),
                                on_host ? sure : confidence_there_.write()});
    if constexpr (!on_host) {
      D::synchronize();
      D::copy(labels, labels_there_.read(), std::size_t(voxels));
      if (sure) D::copy(sure, confidence_there_.read(), sizeof(float) * std::size_t(voxels));
    }
    const Index bad = std::find(labels, labels + voxels, FinishPlanes::no_number) - labels;
    require<DataError>(bad == voxels, "segment", "at voxel (", bad % width, ", ",
                       bad / width % height, ", ", finished_ + bad / width / height,
                       ") the network gives no number");
    finished_ = next;
  }

  static constexpr bool on_host = std::same_as<D, Cpu>;  // kernels reach the image and the result

  const Volume<float>& image_;
  const SlidingWindow& how_;
  Extent3 patch_;
  std::array<std::vector<Index>, 3> starts_;
  std::vector<std::array<bool, 3>> views_;
  Index classes_ = 0, planes_ = 0, finished_ = 0;
  Segmentation result_;
  // On the device; the last two hold the planes that are finished together.
  Storage<float, D> image_there_, sums_;            // sums (planes, height, width, classes)
  std::array<Storage<float, D>, 3> taper_, total_;  // of one window; of all at each voxel
  Storage<std::uint8_t, D> partner_there_, labels_there_;
  Storage<float, D> confidence_there_;
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
