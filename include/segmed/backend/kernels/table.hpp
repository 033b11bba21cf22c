// SPDX-License-Identifier: Apache-2.0
// One instruction set's entries of the kernel table. Read once per instruction set: see simd.hpp.
#include <segmed/backend/kernels/rows.hpp>

namespace segmed::SEGMED_SET {

template <class T>
void gather(const Window& w, const Feed<T>& feed, const T* weight, const Sink<T>& sink) {
  convolve(w, true, feed, weight, sink);
}
template <class T>
void scatter(const Window& w, const Feed<T>& feed, const T* weight, const Sink<T>& sink) {
  convolve(w, false, feed, weight, sink);
}

template <class T>
inline constexpr Kernels<T> entries{gather<T>, scatter<T>, weigh<T>,  apply<T>,
                                    spread<T>, deposit<T>, moments<T>};
inline constexpr KernelTable table{set_name, entries<float>, entries<double>};

}  // namespace segmed::SEGMED_SET
