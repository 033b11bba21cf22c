// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <exception>
#include <optional>
#include <thread>
#include <utility>

#include <segmed/data/device_patches.hpp>
#include <segmed/data/loader.hpp>
#include <segmed/semi/step.hpp>

namespace segmed {

/// Samples on their way to a device: once their copies have been joined, `taken` has them.
template <FeatureMap F>
struct SamplesAhead {
  using D = typename F::device;
  Samples<F> samples = {};
  std::optional<SourcesThere<D>> sources = {};  // what image, strong and labels are made of

  Samples<F> taken() {
    if constexpr (AugmentsThere<D>)
      if (sources) {
        const auto maps = sources->template made<typename F::value_type>();
        const auto& [x, y, z] = sources->extent;
        const Grid grid{sources->patches, z, y, x, sources->channels};
        samples.image = F(grid, maps.image);
        if (!maps.strong.empty()) samples.strong = F(grid, maps.strong);
        samples.labels.grid = grid.with_channels(1), samples.labels.classes = maps.labels;
        sources.reset();
      }
    return std::move(samples);
  }
};

/// Patches of equal extent side by side, as a device takes them: made, or as their sources.
///
///   shapes   patches (x, y, z, C) become (N, z, y, x, C); 2-D networks take patches with z = 1
template <FeatureMap F>
class HostBatch {
 public:
  using T = typename F::value_type;
  using D = typename F::device;

  void fill(const std::vector<Patch>& patches) {
    require<DataError>(!patches.empty(), "samples", "a batch of no patches");
    annotated_.clear(), cases_.clear();
    for (const Patch& patch : patches) {
      annotated_.push_back(patch.annotated);
      cases_.push_back(patch.id);
    }
    std::copy(annotated_.begin(), annotated_.end(), sets_.resize(annotated_.size()));
    if constexpr (AugmentsThere<D>) {
      augments_there_ = patches.front().source.has_value();
      if (augments_there_) return sources_.fill(patches);
    }
    const Patch& first = patches.front();
    grid_ = {Index(patches.size()), first.extent[2], first.extent[1], first.extent[0],
             first.channels};
    const std::size_t all = std::size_t(grid_.size()), size = all / patches.size();
    const std::size_t voxels = std::size_t(grid_.voxels());
    image_.resize(all), strong_.resize(first.strong.empty() ? 0 : all);
    labels_.resize(voxels * patches.size());
    for (std::size_t n = 0; n < patches.size(); ++n) {
      const Patch& patch = patches[n];
      require(patch.extent == first.extent && patch.image.size() == size &&
                  patch.labels.size() == voxels && patch.strong.size() == first.strong.size(),
              "samples", "patches of one batch differ in extent or channels");
      convert(patch.image, image_.data() + n * size);
      convert(patch.strong, strong_.data() + n * size);
      std::copy(patch.labels.begin(), patch.labels.end(), labels_.data() + n * voxels);
    }
  }
  /// On the device, to be joined. Where one part of them fails, nothing is copied any more.
  SamplesAhead<F> uploaded(Uploads<D>& by) const {
    SamplesAhead<F> ahead;
    Samples<F>& samples = ahead.samples;
    samples.cases = cases_;
    try {
      if constexpr (AugmentsThere<D>)
        if (augments_there_) ahead.sources = sources_.uploaded(by);
      if (!augments_there_) {
        samples.image = F(grid_, image_.uploaded(by));
        if (strong_.size() > 0) samples.strong = F(grid_, strong_.uploaded(by));
        samples.labels.grid = grid_.with_channels(1);
        samples.labels.classes = labels_.uploaded(by);
      }
      samples.labels.annotated = annotated_;
      samples.labels.on_device = sets_.uploaded(by);
    } catch (...) {
      by.finish();
      throw;
    }
    return ahead;
  }

 private:
  static void convert(const std::vector<float>& from, T* to) {
    for (std::size_t i = 0; i < from.size(); ++i) to[i] = T(typename F::Wide(from[i]));
  }

  Grid grid_;
  HostBuffer<T, D> image_, strong_;
  HostBuffer<std::uint8_t, D> labels_;
  HostBuffer<AnnotatedSet, D> sets_;
  std::vector<AnnotatedSet> annotated_;
  std::vector<std::string> cases_;
  SourceBatch<D> sources_;
  bool augments_there_ = false;
};

/// A loader's batches as samples. For a device that copies ahead, while step k is computed, the
/// samples of step k + 1 travel to it and those of step k + 2 are laid out for that.
template <FeatureMap F>
class SampleStream {
 public:
  using D = typename F::device;

  SampleStream(std::shared_ptr<CaseStore> store, ClassTable classes, std::vector<LoaderCase> cases,
               LoaderOptions options)
      : loader_(std::move(store), std::move(classes), std::move(cases), options) {}
  SampleStream(const SampleStream&) = delete;
  SampleStream& operator=(const SampleStream&) = delete;
  ~SampleStream() {
    if (worker_.joinable()) worker_.join();
  }

  /// The samples of a step. Throws what the loader throws, perhaps two steps early.
  Samples<F> at(Index step) {
    if constexpr (!CopiesAhead<D>) {
      batch_[0].fill(loader_.batch(step));
      return batch_[0].uploaded(uploads_).taken();
    } else {
      wait();
      if (travelling_ != step) {  // the first step, or not the next one
        uploads_.finish();
        fetch(step);
      }
      travelling_ = -1;
      SamplesAhead<F> arrived = std::move(next_);
      uploads_.join();
      uploads_.finish();  // the worker writes where they came from
      const Samples<F> samples = arrived.taken();
      fetch(step + 1);
      worker_ = std::thread([this, step] {
        try {
          lay_out(step + 2);
        } catch (...) {
          failure_ = std::current_exception();
        }
      });
      return samples;
    }
  }

 private:
  HostBatch<F>& slot(Index step) { return batch_[std::size_t(step % 2)]; }
  void lay_out(Index step) {
    laid_out_ = -1;
    slot(step).fill(loader_.batch(step));
    laid_out_ = step;
  }
  void fetch(Index step) {
    if (laid_out_ != step) lay_out(step);
    next_ = slot(step).uploaded(uploads_);
    travelling_ = step;
  }
  void wait() {
    if (worker_.joinable()) worker_.join();
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  Loader loader_;
  HostBatch<F> batch_[2];  // of even and of odd steps
  SamplesAhead<F> next_;   // of step travelling_
  Uploads<D> uploads_;     // destroyed before what it copies from and to
  Index travelling_ = -1, laid_out_ = -1;
  std::thread worker_;
  std::exception_ptr failure_;
};

}  // namespace segmed
