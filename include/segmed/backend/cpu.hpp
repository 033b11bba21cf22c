// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstring>
#include <type_traits>

#include <segmed/backend/convolution.hpp>
#include <segmed/backend/device.hpp>
#include <segmed/backend/kernel_table.hpp>
#include <segmed/backend/memory.hpp>
#include <segmed/backend/parallel.hpp>
#include <segmed/backend/targets.hpp>
#include <segmed/backend/weight_forms.hpp>

namespace segmed {

/// Calls visit(n, first) for numbers 0 to count - 1, of which n at a time are done at once: n is a
/// type, so that a compiler makes vectors of loops over them.
template <class Visit>
void in_vectors(Index count, const Visit& visit) {
  Index i = 0;
  for (; i + 32 <= count; i += 32) visit(std::integral_constant<int, 32>{}, i);
  for (; i + 8 <= count; i += 8) visit(std::integral_constant<int, 8>{}, i);
  for (; i < count; ++i) visit(std::integral_constant<int, 1>{}, i);
}
/// What a launch does with some of its items.
template <class Kernel>
struct LaunchedItems {
  const Kernel& kernel;
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) kernel(i);
  }
};
template <class Kernel>
struct LaunchedRows {
  const Kernel& kernel;
  Index columns;
  void operator()(Index begin, Index end) const {
    for (Index row = begin; row < end; ++row)
      if constexpr (requires { kernel.template columns<8>(row, Index(0)); })
        in_vectors(columns, [&](auto n, Index c) {
          if constexpr (n == 1)
            kernel(row, c);
          else
            kernel.template columns<n>(row, c);
        });
      else
        for (Index c = 0; c < columns; ++c) kernel(row, c);
  }
};

/// The processor that this program runs on. Blocks and rows run in the instruction set of the
/// kernels, whatever the flags of the unit; the few items that `launch` is for, in that of the
/// unit.
struct Cpu {
  static void* allocate(std::size_t bytes) { return Memory::current().allocate(bytes); }
  static void release(void* p, std::size_t bytes) noexcept { Memory::current().release(p, bytes); }
  static void copy(void* to, const void* from, std::size_t bytes) {
    if (bytes) std::memcpy(to, from, bytes);
  }
  static void synchronize() {}

  template <class Kernel>
  static void launch(Index n, const Kernel& kernel) {
    parallel_for(n, 4096, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) kernel(i);
    });
  }
  template <class Kernel>
  static void launch_blocks(Index n, const Kernel& kernel) {
    parallel_for(n, 1, [&](Index begin, Index end) {
      run_by_set(LaunchedItems<Kernel>{kernel}, begin, end);
    });
  }
  /// A kernel may do several columns of a row at once, `columns<n>(row, first)`: what they share is
  /// then found once, and a compiler makes vectors of the rest.
  template <class Kernel>
  static void launch_rows(Index rows, Index columns, const Kernel& kernel) {
    parallel_for(rows, 1 + 4096 / (columns + 1), [&](Index begin, Index end) {
      run_by_set(LaunchedRows<Kernel>{kernel, columns}, begin, end);
    });
  }

  template <class T>
  using WeightForms = segmed::WeightForms<T>;

  /// coarse = weight * fine: see backend/convolution.hpp.
  template <class T>
  requires std::floating_point<T>
  static void gather(const Window& w, const Feed<T>& in, const T* weight, const Sink<T>& out) {
    kernels<T>().of(w).gather(w, in, weight, out);
  }
  template <class T>
  requires std::floating_point<T>
  static void gather(const Window& w, const Feed<T>& in,
                     const LastingWeights<T, WeightForms<T>>& weight, const Sink<T>& out) {
    const Kernels<T>& k = kernels<T>().of(w);
    const auto formed = weight.forms->find(k, w, true, weight.values, weight.version);
    k.gather(w, in, formed.weights(weight.values), out);
  }
  /// fine = transposed weight * coarse.
  template <class T>
  requires std::floating_point<T>
  static void scatter(const Window& w, const Feed<T>& in, const T* weight, const Sink<T>& out) {
    kernels<T>().of(w).scatter(w, in, weight, out);
  }
  template <class T>
  requires std::floating_point<T>
  static void scatter(const Window& w, const Feed<T>& in,
                      const LastingWeights<T, WeightForms<T>>& weight, const Sink<T>& out) {
    const Kernels<T>& k = kernels<T>().of(w);
    const auto formed = weight.forms->find(k, w, false, weight.values, weight.version);
    k.scatter(w, in, formed.weights(weight.values), out);
  }
  /// weight_grad += fine (x) coarse.
  template <class T>
  requires std::floating_point<T>
  static void weigh(const Window& w, const Feed<T>& fine, const Feed<T>& coarse, T* weight_grad) {
    kernels<T>().of(w).weigh(w, fine, coarse, weight_grad);
  }

  /// y = a, or a + b; its moments, if wanted, are set to (cases, channels, sum and sum of squares).
  template <class T>
  requires std::floating_point<T>
  static void apply(const Reader<T>& a, const Reader<T>* b, T* y, double* moments) {
    kernels<T>().apply(a, b, y, moments);
  }
  /// Carries the gradient `seen` of what readers of `view` see back through the view: adds to the
  /// gradient of the raw tensor, and per (case, channel) to those of scale, shift and slope; each
  /// may be null.
  template <class T>
  requires std::floating_point<T>
  static void spread(const Lane<T>& view, const T* seen, T* raw_grad, double* scale_grad,
                     double* shift_grad, double* slope_grad) {
    kernels<T>().spread(view, seen, raw_grad, scale_grad, shift_grad, slope_grad);
  }
  /// Writes or adds an incoming gradient to the sink's parts.
  template <class T>
  requires std::floating_point<T>
  static void deposit(const Incoming<T>& g, const Sink<T>& out) { kernels<T>().deposit(g, out); }
  /// Adds an incoming gradient's sums over cases and voxels to (channels).
  template <class T>
  requires std::floating_point<T>
  static void total(const Incoming<T>& g, T* sums) { kernels<T>().total(g, sums); }
  /// Sets moments (cases, channels, 2) to the sums and sums of squares of the raw tensor.
  template <class T>
  requires std::floating_point<T>
  static void moments(const Lane<T>& x, double* moments) { kernels<T>().moments(x, moments); }
};
static_assert(Device<Cpu>);

}  // namespace segmed
