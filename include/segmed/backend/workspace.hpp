// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>

#include <segmed/core/config.hpp>

namespace segmed {

/// Memory of a device for the length of a scope, not initialised. On a device with a queue it is
/// given back behind the kernels that use it.
template <class D, class T>
class Workspace {
 public:
  Workspace() = default;
  explicit Workspace(Index count) { take(count); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() { D::release(data_, bytes_); }

  T* take(Index count) {
    D::release(data_, bytes_);
    data_ = nullptr, bytes_ = std::size_t(count) * sizeof(T);
    return data_ = static_cast<T*>(D::allocate(bytes_));
  }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace segmed
