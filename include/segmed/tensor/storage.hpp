// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <atomic>
#include <memory>
#include <vector>

#include <segmed/backend/device.hpp>
#include <segmed/core/error.hpp>

namespace segmed {

template <class T>
struct FillKernel {
  T* out;
  T value;
  SEGMED_HD void operator()(Index i) const { out[i] = value; }
};
template <class T>
struct AddKernel {
  T* into;
  const T* from;
  SEGMED_HD void operator()(Index i) const { into[i] = T(Wide<T>(into[i]) + Wide<T>(from[i])); }
};

/// For a storage that is written in full before it is read.
struct Uninitialized {};

/// Device memory, shared by copies and slices. Whoever asks to write it gives it a new version,
/// unique in the process, by which caches derived from it (packed, transposed or rounded weights)
/// know that they are stale.
template <class T, Device D>
class Storage {
 public:
  Storage() = default;
  Storage(Index size, Uninitialized) : block_(std::make_shared<Block>(size)), size_(size) {}
  explicit Storage(Index size, T fill = {}) : Storage(size, Uninitialized{}) {
    D::launch(size, FillKernel<T>{block_->data, fill});
  }
  explicit Storage(const std::vector<T>& host) : Storage(Index(host.size()), Uninitialized{}) {
    D::copy(block_->data, host.data(), sizeof(T) * host.size());
  }

  const T* read() const { return block_ ? block_->data + offset_ : nullptr; }
  T* write() {
    if (!block_) return nullptr;
    block_->version = next_version();
    return block_->data + offset_;
  }
  std::uint64_t version() const { return block_ ? block_->version : 0; }
  Index size() const { return size_; }
  bool empty() const { return !block_; }
  /// Whether both lie in one piece of memory, so that a write to one gives both a new version.
  bool shares(const Storage& other) const { return block_ && block_ == other.block_; }
  /// Whether nobody else holds this memory.
  bool alone() const { return block_.use_count() == 1; }

  Storage slice(Index offset, Index size) const {
    Storage part = *this;
    part.offset_ += offset;
    part.size_ = size;
    return part;
  }
  Storage clone() const {
    Storage copy(size_, Uninitialized{});
    D::copy(copy.block_->data, read(), sizeof(T) * std::size_t(size_));
    return copy;
  }
  void assign(const std::vector<T>& host) {
    require(Index(host.size()) == size_, "Storage", host.size(), " values for ", size_, " places");
    D::copy(write(), host.data(), sizeof(T) * host.size());
  }
  void add(const Storage& from) { D::launch(size_, AddKernel<T>{write(), from.read()}); }
  /// Itself, made of zeros on first use: how gradients come into being.
  Storage& or_zeros(Index size) {
    if (empty()) *this = Storage(size);
    return *this;
  }
  std::vector<T> host() const {
    std::vector<T> out(static_cast<std::size_t>(size_));
    D::synchronize();
    D::copy(out.data(), read(), sizeof(T) * out.size());
    return out;
  }

 private:
  static std::uint64_t next_version() {
    static std::atomic<std::uint64_t> last = 0;
    return ++last;
  }
  struct Block {
    T* data;
    std::size_t bytes;
    std::uint64_t version = next_version();
    explicit Block(Index size)
        : data(static_cast<T*>(D::allocate(sizeof(T) * std::size_t(size)))),
          bytes(sizeof(T) * std::size_t(size)) {}
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    ~Block() { D::release(data, bytes); }
  };
  std::shared_ptr<Block> block_;
  Index offset_ = 0, size_ = 0;
};

}  // namespace segmed
