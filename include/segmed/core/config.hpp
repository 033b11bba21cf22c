// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#define SEGMED_VERSION_MAJOR 0
#define SEGMED_VERSION_MINOR 1
#define SEGMED_VERSION_PATCH 0

#if defined(__CUDACC__)
/// Marks a function that runs on the host and on the device.
#define SEGMED_HD __host__ __device__
#else
#define SEGMED_HD
#endif

namespace segmed {

/// Every extent, offset and count. Signed, so that differences are safe.
using Index = std::int64_t;

/// How a value between voxels is made: from the nearest one (labels), or linearly from those around
/// it (scans, feature maps).
enum class Interpolation { linear, nearest };

template <class T>
struct WideOf {
  using type = T;
};
/// The type in which a storage type T is computed, and in which parameters and losses are kept.
template <class T>
using Wide = typename WideOf<T>::type;

}  // namespace segmed
