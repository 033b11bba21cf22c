// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <exception>
#include <thread>
#include <utility>

#include <segmed/backend/memory.hpp>
#include <segmed/data/loader.hpp>
#include <segmed/semi/step.hpp>

namespace segmed {

/// How copies go to a device: on one that copies ahead beside its work, else at once.
template <class D>
struct UploadsOf {
  struct type {
    void copy(void* to, const void* from, std::size_t bytes) { D::copy(to, from, bytes); }
    void join() {}
    void finish() {}
  };
};
template <CopiesAhead D>
struct UploadsOf<D> {
  using type = typename D::Transfers;
};
template <class D>
using Uploads = typename UploadsOf<D>::type;

/// Numbers on the host that a device fetches, kept from batch to batch.
template <class T, Device D>
class HostBuffer {
 public:
  HostBuffer() = default;
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  ~HostBuffer() { drop(); }

  T* data() const { return data_; }
  std::size_t size() const { return size_; }
  /// What was there is lost.
  T* resize(std::size_t size) {
    size_ = size;
    if (size <= room_) return data_;
    drop();
    if constexpr (CopiesAhead<D>)
      data_ = static_cast<T*>(D::allocate_host(sizeof(T) * size));
    else
      data_ = static_cast<T*>(Memory::current().allocate(sizeof(T) * size));
    room_ = size;
    return data_;
  }
  /// A copy on the device, to be joined.
  Storage<T, D> uploaded(Uploads<D>& by) const {
    Storage<T, D> copy(Index(size_), Uninitialized{});
    by.copy(copy.write(), data_, sizeof(T) * size_);
    return copy;
  }

 private:
  void drop() {
    if (!data_) return;
    if constexpr (CopiesAhead<D>)
      D::release_host(data_);
    else
      Memory::current().release(data_, sizeof(T) * room_);
    data_ = nullptr, room_ = 0;
  }
  T* data_ = nullptr;
  std::size_t size_ = 0, room_ = 0;
};

/// Patches of equal extent side by side, as a device takes them.
///
///   shapes   patches (x, y, z, C) become (N, z, y, x, C); 2-D networks take patches with z = 1
template <FeatureMap F>
class HostBatch {
 public:
  using T = typename F::value_type;
  using D = typename F::device;

  void fill(const std::vector<Patch>& patches) {
    require<DataError>(!patches.empty(), "samples", "a batch of no patches");
    const Patch& first = patches.front();
    grid_ = {Index(patches.size()), first.extent[2], first.extent[1], first.extent[0],
             first.channels};
    const std::size_t all = std::size_t(grid_.size()), size = all / patches.size();
    const std::size_t voxels = std::size_t(grid_.voxels());
    image_.resize(all), strong_.resize(first.strong.empty() ? 0 : all);
    labels_.resize(voxels * patches.size());
    annotated_.clear(), cases_.clear();
    for (std::size_t n = 0; n < patches.size(); ++n) {
      const Patch& patch = patches[n];
      require(patch.extent == first.extent && patch.image.size() == size &&
                  patch.labels.size() == voxels && patch.strong.size() == first.strong.size(),
              "samples", "patches of one batch differ in extent or channels");
      convert(patch.image, image_.data() + n * size);
      convert(patch.strong, strong_.data() + n * size);
      std::copy(patch.labels.begin(), patch.labels.end(), labels_.data() + n * voxels);
      annotated_.push_back(patch.annotated);
      cases_.push_back(patch.id);
    }
    std::copy(annotated_.begin(), annotated_.end(), sets_.resize(annotated_.size()));
  }
  /// On the device, to be joined. Where one part of them fails, nothing is copied any more.
  Samples<F> uploaded(Uploads<D>& by) const {
    Samples<F> samples;
    try {
      samples.image = F(grid_, image_.uploaded(by));
      if (strong_.size() > 0) samples.strong = F(grid_, strong_.uploaded(by));
      samples.labels = {grid_.with_channels(1), labels_.uploaded(by), annotated_,
                        sets_.uploaded(by)};
    } catch (...) {
      by.finish();
      throw;
    }
    samples.cases = cases_;
    return samples;
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
      return batch_[0].uploaded(uploads_);
    } else {
      wait();
      if (travelling_ != step) {  // the first step, or not the next one
        uploads_.finish();
        fetch(step);
      }
      travelling_ = -1;
      Samples<F> samples = std::move(next_);
      uploads_.join();
      uploads_.finish();  // the worker writes where they came from
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
  Samples<F> next_;        // of step travelling_
  Uploads<D> uploads_;     // destroyed before what it copies from and to
  Index travelling_ = -1, laid_out_ = -1;
  std::thread worker_;
  std::exception_ptr failure_;
};

}  // namespace segmed
