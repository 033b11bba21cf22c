// SPDX-License-Identifier: Apache-2.0
// How numbers of the host come to a device, beside its work where it can copy ahead.
#pragma once
#include <algorithm>

#include <segmed/backend/memory.hpp>
#include <segmed/tensor/storage.hpp>

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
    const std::size_t room = std::max(size, room_ + room_ / 2);  // what grows once may grow again
    drop();
    if constexpr (CopiesAhead<D>)
      data_ = static_cast<T*>(D::allocate_host(sizeof(T) * room));
    else
      data_ = static_cast<T*>(Memory::current().allocate(sizeof(T) * room));
    room_ = room;
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

}  // namespace segmed
