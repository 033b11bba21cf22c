// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>

#include <segmed/core/config.hpp>

namespace segmed {

/// Numbers that lie side by side and are moved at once, as far as 16 bytes go.
template <class T, int width>
struct alignas(sizeof(T) * std::size_t(width) < 16 ? sizeof(T) * std::size_t(width) : 16) Pack {
  T x[width];
};
template <int width, class T>
SEGMED_HD Pack<T, width> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, width>*>(from);
}
template <class T, int width>
SEGMED_HD void store_pack(T* to, const Pack<T, width>& pack) {
  *reinterpret_cast<Pack<T, width>*>(to) = pack;
}
/// What 16 bytes hold.
template <class T>
inline constexpr int whole_pack = int(16 / sizeof(T));

}  // namespace segmed
