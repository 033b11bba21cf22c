// SPDX-License-Identifier: Apache-2.0
// What takes cuDNN's place on the host: a loop over strides.
#pragma once
#include <vector>

#include <doctest/doctest.h>

#include <segmed/backend/cudnn/convolve.hpp>
#include <segmed/backend/cudnn/engine.hpp>

namespace made_up {
using namespace segmed;

inline Index product(const std::vector<Index>& n) {
  Index all = 1;
  for (const Index x : n) all *= x;
  return all;
}
inline std::vector<Index> digits(Index i, const std::vector<Index>& extent) {
  std::vector<Index> at(extent.size());
  for (std::size_t a = extent.size(); a-- > 0; i /= extent[a]) at[a] = i % extent[a];
  return at;
}
inline Index offset(const CudnnTensor& t, const std::vector<Index>& at) {
  Index i = 0;
  for (std::size_t a = 0; a < at.size(); ++a) i += at[a] * t.stride[a + 2];
  return i;
}

/// A graph as cuDNN's documentation describes it, read off the numbers that descriptors are given.
template <class T>
void run_graph(const CudnnProblem& p, const CudnnOperands<T>& on) {
  const CudnnTensor x = p.fine(), w = p.filter(), y = p.coarse();
  const auto tail = [](const CudnnTensor& t) {
    return std::vector<Index>(t.extent.begin() + 2, t.extent.end());
  };
  const std::vector<Index> xs = tail(x), ws = tail(w), ys = tail(y);
  const std::vector<Index> before = p.spatial(p.window.padding), after = p.spatial(p.after),
                           stride = p.spatial(p.window.stride),
                           dilation = p.spatial(p.window.dilation);
  REQUIRE(xs.size() == std::size_t(p.axes));
  REQUIRE(x.extent[0] == y.extent[0]);
  REQUIRE(w.extent[0] == y.extent[1]);
  for (std::size_t a = 0; a < xs.size(); ++a) {
    REQUIRE(before[a] >= 0);
    REQUIRE(after[a] >= 0);
    const Index free = xs[a] + before[a] + after[a] - (ws[a] - 1) * dilation[a] - 1;
    REQUIRE(free >= 0);
    REQUIRE(free / stride[a] + 1 == ys[a]);
  }
  const Index groups = x.extent[1] / w.extent[1], outputs = y.extent[1] / groups;
  std::vector<double> sums(std::size_t(p.pass == CudnnPass::forward         ? y.size()
                                       : p.pass == CudnnPass::backward_data ? x.size()
                                                                            : w.size()));
  for (Index v = 0; v < product(ys); ++v)
    for (Index tap = 0; tap < product(ws); ++tap) {
      const std::vector<Index> to = digits(v, ys), k = digits(tap, ws);
      std::vector<Index> from(to.size());
      bool inside = true;
      for (std::size_t a = 0; a < to.size(); ++a) {
        from[a] = to[a] * stride[a] + k[a] * dilation[a] - before[a];
        inside = inside && from[a] >= 0 && from[a] < xs[a];
      }
      if (!inside) continue;
      const Index at_x = offset(x, from), at_w = offset(w, k), at_y = offset(y, to);
      for (Index n = 0; n < y.extent[0]; ++n)
        for (Index o = 0; o < y.extent[1]; ++o)
          for (Index c = 0; c < w.extent[1]; ++c) {
            const Index in = o / outputs * w.extent[1] + c;
            const Index i = at_x + n * x.stride[0] + in * x.stride[1];
            const Index j = at_w + o * w.stride[0] + c * w.stride[1];
            const Index l = at_y + n * y.stride[0] + o * y.stride[1];
            if (p.pass == CudnnPass::forward)
              sums[std::size_t(l)] += double(on.fine[i]) * double(on.filter[j]);
            else if (p.pass == CudnnPass::backward_data)
              sums[std::size_t(i)] += double(on.coarse[l]) * double(on.filter[j]);
            else
              sums[std::size_t(j)] += double(on.fine[i]) * double(on.coarse[l]);
          }
    }
  T* out = p.pass == CudnnPass::forward         ? on.coarse
           : p.pass == CudnnPass::backward_data ? on.fine
                                                : on.filter;
  // Behind it, in float, what the tail says.
  const CudnnTensor bias = p.bias();
  REQUIRE((on.bias != nullptr) == p.tail.bias);
  if (p.tail.any()) {
    REQUIRE(p.pass != CudnnPass::backward_weights);
    REQUIRE(bias.extent[1] == bias.size());
  }
  for (std::size_t i = 0; i < sums.size(); ++i) {
    float z = float(sums[i]);
    if (p.tail.bias) z += on.bias[Index(i) % bias.extent[1]];  // channels are last
    out[i] = T(z > 0 ? z : p.tail.leak * z);
  }
}

/// Takes cuDNN's place.
struct DenseLoop {
  static int& runs() {
    static int count = 0;
    return count;
  }
  /// Of the runs, those with a tail; and whether there are plans for any.
  static int& fused_runs() {
    static int count = 0;
    return count;
  }
  static bool& fuses() {
    static bool on = true;
    return on;
  }
  static CudnnSwitches switches() { return {}; }
  template <CudnnStored T>
  static const CudnnProblem* plan(const CudnnProblem& p) {
    if (p.tail.any() && !fuses()) return nullptr;
    static CudnnProblem kept;
    kept = p;
    return &kept;
  }
  template <CudnnStored T>
  static void run(const CudnnProblem& p, const CudnnOperands<T>& on) {
    for (const T* tensor : {on.fine, on.filter, on.coarse}) REQUIRE(aligned(tensor));
    REQUIRE(aligned(on.bias));
    run_graph(p, on), ++runs();
    fused_runs() += p.tail.any();
  }
};
static_assert(DenseEngine<DenseLoop>);

/// The convolutions of a device D by a dense engine, as Cuda's are by cuDNN.
template <class D, class Engine>
struct DenseConvolutions {
  template <class T>
  static constexpr bool convolves_dense = CudnnStored<T>;
  template <CudnnStored T>
  static void gather(const Window& w, const Feed<T>& in, const Wide<T>* weight,
                     const Sink<T>& out) {
    write_by<Engine, D, T>(CudnnPass::forward, w, in, weight, out);
  }
  template <CudnnStored T>
  static bool gather_activated(const Window& w, const Feed<T>& in, const Wide<T>* weight,
                               const Sink<T>& out, Wide<T> leak) {
    return write_by<Engine, D, T>(CudnnPass::forward, w, in, weight, out, leak);
  }
  template <CudnnStored T>
  static void scatter(const Window& w, const Feed<T>& in, const Wide<T>* weight,
                      const Sink<T>& out) {
    write_by<Engine, D, T>(CudnnPass::backward_data, w, in, weight, out);
  }
  template <CudnnStored T>
  static void weigh(const Window& w, const Feed<T>& fine, const Feed<T>& coarse,
                    Wide<T>* weight_grad) {
    weigh_by<Engine, D, T>(w, fine, coarse, weight_grad);
  }
};

}  // namespace made_up
