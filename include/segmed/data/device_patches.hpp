// SPDX-License-Identifier: Apache-2.0
// Patches that a device makes of their sources.
#pragma once
#include <concepts>
#include <utility>
#include <vector>

#include <segmed/backend/team.hpp>
#include <segmed/data/patch_kernels.hpp>
#include <segmed/data/sampler.hpp>
#include <segmed/tensor/host_buffer.hpp>

namespace segmed {

/// A device on which patches are augmented: it has memory of its own, and teams for sums.
template <class D>
concept AugmentsThere = CopiesAhead<D> && HasTeams<D>;

/// Patches of one batch as a device holds them.
///
///   shapes   image, strong (patches, z, y, x, channels); labels without channels
template <class T, Device D>
struct PatchMaps {
  Storage<T, D> image, strong;  // strong: if asked for
  Storage<std::uint8_t, D> labels;
};

/// What is drawn for one view of a batch, and which passes that takes.
struct ViewPasses {
  bool blurs = false, lowers = false, moments = false, gamma = false;
};

/// The sources of a batch on a device.
template <Device D>
class SourcesThere {
 public:
  Extent3 extent{};
  Index patches = 0, channels = 0;
  std::vector<ViewPasses> views;  // the weak one and, if asked for, the strong one
  Storage<float, D> numbers;
  Storage<std::uint8_t, D> classes;
  Storage<SourceView, D> sources;
  // (views, patches, channels)
  Storage<IntensityDraw, D> draws;
  Storage<Sharpness, D> sharpness;

  /// Queues the kernels that make the patches, after the copies have been joined.
  template <class T>
  PatchMaps<T, D> made() const {
    const Index voxels = extent[0] * extent[1] * extent[2];
    PatchMaps<T, D> maps;
    maps.labels = Storage<std::uint8_t, D>(patches * voxels, Uninitialized{});
    Storage<float, D> image(patches * voxels * channels, Uninitialized{});
    D::launch_rows(rows(), extent[0],
                   ReadPatches{sources.read(),
                               numbers.read(),
                               classes.read(),
                               {extent[0], extent[1], extent[2]},
                               channels,
                               image.write(),
                               maps.labels.write()});
    if (views.size() > 1) maps.strong = changed<T>(image.clone(), 1);
    maps.image = changed<T>(std::move(image), 0);
    return maps;
  }

 private:
  Index rows() const { return patches * extent[1] * extent[2]; }

  template <class T>
  Storage<T, D> changed(Storage<float, D> image, Index view) const {
    const ViewPasses& passes = views[std::size_t(view)];
    const Index segments = patches * channels, voxels = extent[0] * extent[1] * extent[2];
    soften(image, passes, sharpness.read() + view * segments);
    const IntensityDraw* own = draws.read() + view * segments;
    Storage<Tone, D> tones;
    if (passes.moments) {
      tones = Storage<Tone, D>(segments, Uninitialized{});
      const Index blocks = (voxels + BlockMoments::block - 1) / BlockMoments::block;
      Storage<VoxelMoments, D> partial(segments * blocks, Uninitialized{}),
          seen(segments, Uninitialized{});
      for (const bool settles : {false, true}) {
        if (settles && !passes.gamma) continue;
        D::launch_teams(segments * blocks,
                        BlockMoments{own, settles ? tones.read() : nullptr, numbers.read(),
                                     image.read(), voxels, channels, blocks, partial.write()});
        D::launch(segments, MergeBlocks{own, partial.read(), voxels, blocks, settles, seen.write(),
                                        tones.write()});
      }
    }
    Storage<T, D> out;
    if constexpr (std::same_as<T, float>)
      out = image;
    else
      out = Storage<T, D>(image.size(), Uninitialized{});
    D::launch_rows(patches, voxels,
                   StoreIntensities<T>{own, tones.read(), numbers.read(), voxels, channels,
                                       image.read(), out.write()});
    return out;
  }
  void soften(Storage<float, D>& image, const ViewPasses& passes, const Sharpness* how) const {
    if (!passes.blurs && !passes.lowers) return;
    Storage<float, D> other(image.size(), Uninitialized{});
    for (int axis = 0; passes.blurs && axis < 3; ++axis) {
      D::launch_rows(
          rows(), extent[0],
          BlurAxis{
              how, axis, {extent[0], extent[1], extent[2]}, channels, image.read(), other.write()});
      std::swap(image, other);
    }
    if (!passes.lowers) return;
    D::launch_rows(
        rows(), extent[0],
        LowerResolution{
            how, {extent[0], extent[1], extent[2]}, channels, image.read(), other.write()});
    std::swap(image, other);
  }
};

/// The sources of a batch side by side, as a device takes them.
template <Device D>
class SourceBatch {
 public:
  /// Throws ShapeError where patches differ in extent, channels or views.
  void fill(const std::vector<Patch>& patches) {
    const Patch& first = patches.front();
    extent_ = first.extent, channels_ = first.channels, count_ = Index(patches.size());
    const std::size_t segments = std::size_t(count_ * channels_);
    views_.assign(first.source && !first.source->strong.empty() ? 2 : 1, {});
    std::size_t numbers = 0, labels = 0;
    for (const Patch& patch : patches) {
      require(patch.source && patch.extent == extent_ && patch.channels == channels_ &&
                  patch.source->strong.empty() == first.source->strong.empty(),
              "samples", "patches of one batch differ in extent, channels or views");
      const PatchSource& source = *patch.source;
      numbers += source.voxels.size() + source.outside.size() + source.by.size();
      for (const auto* draws : {&source.weak, &source.strong})
        for (const IntensityDraw& draw : *draws) numbers += draw.gamma ? Tone::steps + 2 : 0;
      labels += source.labels.size();
    }
    numbers_.resize(numbers), classes_.resize(labels), sources_.resize(patches.size());
    draws_.resize(views_.size() * segments), sharpness_.resize(views_.size() * segments);
    place_ = 0;
    Index label = 0;
    for (std::size_t n = 0; n < patches.size(); ++n) {
      const PatchSource& source = *patches[n].source;
      SourceView& view = sources_.data()[n] = source.view;
      view.voxels = put(source.voxels), view.outside = put(source.outside);
      view.by = put(source.by), view.labels = label;
      std::copy(source.labels.begin(), source.labels.end(), classes_.data() + label);
      label += Index(source.labels.size());
      for (std::size_t v = 0; v < views_.size(); ++v)
        put(v == 0 ? source.weak : source.strong, v, v * segments + n * std::size_t(channels_));
    }
  }
  /// On the device, to be joined. Where one part of them fails, nothing is copied any more.
  SourcesThere<D> uploaded(Uploads<D>& by) const {
    SourcesThere<D> there;
    there.extent = extent_, there.patches = count_, there.channels = channels_;
    there.views = views_;
    try {
      there.numbers = numbers_.uploaded(by);
      if (classes_.size() > 0) there.classes = classes_.uploaded(by);
      there.sources = sources_.uploaded(by);
      there.draws = draws_.uploaded(by);
      there.sharpness = sharpness_.uploaded(by);
    } catch (...) {
      by.finish();
      throw;
    }
    return there;
  }

 private:
  template <class Numbers>
  Index put(const Numbers& numbers) {
    const Index begin = place_;
    std::copy(numbers.begin(), numbers.end(), numbers_.data() + begin);
    place_ += Index(numbers.size());
    return begin;
  }
  void put(const std::vector<IntensityDraw>& draws, std::size_t view, std::size_t segment) {
    ViewPasses& passes = views_[view];
    for (const IntensityDraw& draw : draws) {
      passes.blurs = passes.blurs || draw.sharpness.blurred();
      passes.lowers = passes.lowers || draw.sharpness.lowered();
      passes.moments = passes.moments || draw.asks_moments();
      passes.gamma = passes.gamma || draw.gamma;
      sharpness_.data()[segment] = draw.sharpness;
      IntensityDraw& kept = draws_.data()[segment++] = draw;
      if (draw.gamma) kept.powers = put(Tone::table(draw.power));
    }
  }

  Extent3 extent_{};
  Index channels_ = 0, count_ = 0, place_ = 0;
  std::vector<ViewPasses> views_;
  HostBuffer<float, D> numbers_;
  HostBuffer<std::uint8_t, D> classes_;
  HostBuffer<SourceView, D> sources_;
  HostBuffer<IntensityDraw, D> draws_;
  HostBuffer<Sharpness, D> sharpness_;
};

}  // namespace segmed
