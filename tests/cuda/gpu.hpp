// SPDX-License-Identifier: Apache-2.0
// Whether tests can use a GPU.
#pragma once
#include <doctest/doctest.h>

#include <segmed/backend/cuda.hpp>

namespace check {

/// Says so where there is none.
inline bool no_gpu() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) return false;
  static_cast<void>(cudaGetLastError());
  MESSAGE("skipped: no GPU can be used here");
  return true;
}

}  // namespace check
