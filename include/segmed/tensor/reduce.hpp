// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/tensor/storage.hpp>

namespace segmed {

/// Items that one partial sum covers. Part of the numerics: another number gives other bits.
inline constexpr Index reduce_block = 2048;

template <class Kernel>
struct PartialSums {  // one item per block
  Kernel kernel;
  Index items, blocks, width;
  double* partial;
  SEGMED_HD void operator()(Index i) const {
    const Index segment = i / blocks, first = i % blocks * reduce_block;
    const Index last = first + reduce_block < items ? first + reduce_block : items;
    double* sums = partial + i * width;
    for (Index k = 0; k < width; ++k) sums[k] = 0;
    for (Index item = first; item < last; ++item) kernel(segment, item, sums);
  }
};
struct MergeSums {  // one item per (segment, sum)
  Index blocks, width;
  const double* partial;
  double* out;
  SEGMED_HD void operator()(Index i) const {
    double total = 0;
    for (Index b = 0; b < blocks; ++b)
      total += partial[(i / width * blocks + b) * width + i % width];
    out[i] = total;
  }
};

/// Sums in double: kernel(segment, item, sums) adds one of `items` items to the `width` sums of its
/// segment. The order of summation is a function of the sizes alone.
///
///   shapes   result (segments, width)
template <Device D, class Kernel>
Storage<double, D> reduce(Index segments, Index items, Index width, const Kernel& kernel) {
  const Index blocks = (items + reduce_block - 1) / reduce_block;
  Storage<double, D> partial(segments * blocks * width, Uninitialized{});
  Storage<double, D> out(segments * width, Uninitialized{});
  // A block is worth a thread of its own, whatever the grain of a launch.
  D::launch_blocks(segments * blocks,
                   PartialSums<Kernel>{kernel, items, blocks, width, partial.write()});
  D::launch(segments * width, MergeSums{blocks, width, partial.read(), out.write()});
  return out;
}

/// Adds sums to what is there.
template <class T>
struct AddSums {
  const double* from;
  T* into;
  SEGMED_HD void operator()(Index i) const { into[i] = T(Wide<T>(into[i]) + Wide<T>(from[i])); }
};

}  // namespace segmed
