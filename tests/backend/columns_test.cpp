// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include <doctest/doctest.h>

#include <segmed/backend/cpu.hpp>

using namespace segmed;

namespace {

/// Turns numbered rows to columns and back with the kernels of one set; nothing beyond the last row
/// or column may be touched.
template <class T>
void check_turns(const Kernels<T>& kernels, Index voxels, Index channels) {
  CAPTURE(kernels.set);
  CAPTURE(voxels);
  CAPTURE(channels);
  const Index step = voxels + 3;
  std::vector<T> rows(std::size_t(voxels * channels)), columns(std::size_t(step * channels), T(-1));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = T(i + 1);
  // Of exactly this size, so that a sanitizer sees a read beyond the end.
  kernels.to_columns(rows.data(), voxels, channels, columns.data(), step);
  bool right = true;
  for (Index c = 0; c < channels; ++c)
    for (Index v = 0; v < step; ++v)
      right &= columns[std::size_t(c * step + v)] ==
               (v < voxels ? rows[std::size_t(v * channels + c)] : T(-1));
  CHECK(right);
  std::vector<T> back(rows.size() + 8, T(-2));
  kernels.to_rows(columns.data(), step, voxels, channels, back.data());
  CHECK(std::vector<T>(back.begin(), back.end() - 8) == rows);
  CHECK(std::vector<T>(back.end() - 8, back.end()) == std::vector<T>(8, T(-2)));
}

/// Copies past the caches, to an aligned place and beside it.
template <class T>
void check_copies(const Kernels<T>& kernels, Index count) {
  CAPTURE(kernels.set);
  CAPTURE(count);
  std::vector<T> from(std::size_t(count), T(0));
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = T(i + 1);
  for (const std::size_t beside : {0, 1}) {
    Scratch<T> place(count + 2);  // aligned
    T* const to = place.grow(count + 2) + beside;
    to[count] = T(-1);
    kernels.put_past(from.data(), count, to);
    CHECK(std::vector<T>(to, to + count) == from);
    CHECK(to[count] == T(-1));
  }
}

}  // namespace

TEST_SUITE("backend/columns") {
  TEST_CASE_TEMPLATE("rows become columns and rows again, whatever the number of either", T, float,
                     double) {
    for (const char* name : InstructionSets<T>::names)
      if (const Kernels<T>* kernels = InstructionSets<T>::find(name))
        for (const Index voxels : {0, 1, 3, 8, 15, 16, 17, 40, 128})
          for (const Index channels : {1, 2, 3, 4, 5, 7, 8, 11, 14})
            check_turns<T>(*kernels, voxels, channels);
  }
  TEST_CASE_TEMPLATE("a copy past the caches is a copy", T, float, double) {
    for (const char* name : InstructionSets<T>::names)
      if (const Kernels<T>* kernels = InstructionSets<T>::find(name))
        for (const Index count : {0, 1, 16, 33, 160}) check_copies<T>(*kernels, count);
  }
}
