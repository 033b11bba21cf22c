// SPDX-License-Identifier: Apache-2.0
// The three convolution kernels, in the plain form that runs on every device. `gather` reads the
// fine grid and writes the coarse one, `scatter` goes the other way, `weigh` sums the gradient of
// the weights: a convolution is gather forward and scatter backward, a transposed one the reverse.
#pragma once
#include <cstdint>

#include <segmed/backend/view.hpp>

namespace segmed {

template <class T>
struct GatherKernel {  // one item per (row of the coarse grid, channel)
  Window w;
  Feed<T> in;
  const Wide<T>* weight;
  Sink<T> out;
  SEGMED_HD void operator()(Index row, Index co) const { out(w.coarse.at(row, co), sum(row, co)); }
  SEGMED_HD Wide<T> sum(Index row, Index co) const {
    using W = Wide<T>;
    const Index n = row / w.coarse.voxels(), v = row % w.coarse.voxels();
    const Index inside = w.fine.channels / w.groups;
    const Index first = co / (w.coarse.channels / w.groups) * inside;
    W total = out.bias ? out.bias[co] : W(0);
    for (Index k = 0; k < w.taps(); ++k)
      if (const Index u = w.fine_voxel(v, k); u >= 0)
        for (Index ci = 0; ci < inside; ++ci)
          total = std::fma(in({n, u, first + ci}),
                           weight[(k * inside + ci) * w.coarse.channels + co], total);
    return total;
  }
};

template <class T>
struct ScatterKernel {  // one item per (row of the fine grid, channel): nobody else writes there
  Window w;
  Feed<T> in;
  const Wide<T>* weight;
  Sink<T> out;
  SEGMED_HD void operator()(Index row, Index ci) const { out(w.fine.at(row, ci), sum(row, ci)); }
  SEGMED_HD Wide<T> sum(Index row, Index ci) const {
    using W = Wide<T>;
    const Index n = row / w.fine.voxels(), u = row % w.fine.voxels();
    const Index inside = w.fine.channels / w.groups, outside = w.coarse.channels / w.groups;
    const Index group = ci / inside;
    W total = out.bias ? out.bias[ci] : W(0);
    for (Index k = 0; k < w.taps(); ++k)
      if (const Index v = w.coarse_voxel(u, k); v >= 0)
        for (Index co = group * outside; co < (group + 1) * outside; ++co)
          total = std::fma(in({n, v, co}),
                           weight[(k * inside + ci % inside) * w.coarse.channels + co], total);
    return total;
  }
};

template <class T>
struct WeighKernel {  // one item per (tap and fine channel of the group, coarse channel)
  Window w;
  Feed<T> fine, coarse;
  Wide<T>* weight_grad;  // added to
  SEGMED_HD void operator()(Index row, Index co) const {
    weight_grad[row * w.coarse.channels + co] += Wide<T>(sum(row, co, 0, w.coarse.rows()));
  }
  /// Over the rows of the coarse grid from `begin` to before `end`.
  SEGMED_HD double sum(Index row, Index co, Index begin, Index end) const {
    const Index inside = w.fine.channels / w.groups, k = row / inside;
    const Index ci = co / (w.coarse.channels / w.groups) * inside + row % inside;
    double total = 0;
    for (Index at = begin; at < end; ++at) {
      const Index n = at / w.coarse.voxels(), v = at % w.coarse.voxels();
      if (const Index u = w.fine_voxel(v, k); u >= 0)
        total += double(coarse({n, v, co})) * double(fine({n, u, ci}));
    }
    return total;
  }
};

template <class T>
struct ChannelMoments {  // one item per (case, channel); for devices that do not sum on store
  Lane<T> x;
  double* moments;
  SEGMED_HD void operator()(Index nc) const {
    double sum = 0, squares = 0;
    for (Index v = 0; v < x.grid.voxels(); ++v) {
      const double value = double(x.raw({nc / x.grid.channels, v, nc % x.grid.channels}));
      sum += value, squares += value * value;
    }
    moments[2 * nc] = sum, moments[2 * nc + 1] = squares;
  }
};

/// Weights that nobody trains now, so that they are likely to serve again, and what their owner
/// keeps of the forms that convolutions give them.
template <class W, class Forms>
struct LastingWeights {
  const W* values;
  std::uint64_t version;  // another one after each write
  Forms* forms;
};
/// Of a device whose convolutions keep nothing.
struct NoForms {
  void forget() {}
};
template <class D, class W>
struct FormsOf {
  using type = NoForms;
};
template <class D, class W>
requires requires { typename D::template WeightForms<W>; }
struct FormsOf<D, W> {
  using type = typename D::template WeightForms<W>;
};

/// A device that brings convolution kernels of its own.
template <class D, class T>
concept HasConvolutions = requires(const Window& w, const Feed<T>& feed, const Wide<T>* weight,
                                   const Sink<T>& sink, Wide<T>* grad) {
  D::gather(w, feed, weight, sink);
  D::scatter(w, feed, weight, sink);
  D::weigh(w, feed, feed, grad);
};

/// Its convolutions read dense tensors: pending work is written down for each call.
template <class D, class T>
concept ConvolvesDense = HasConvolutions<D, T> && requires {
  requires D::template convolves_dense<T>;
};

template <class D, class T>
void sum_moments(const Grid& grid, const Sink<T>& sink) {
  if (!sink.moments) return;
  Lane<T> lane;
  lane.grid = grid, lane.x = sink.out[0];
  if constexpr (requires { D::moments(lane, sink.moments); })
    D::moments(lane, sink.moments);
  else
    D::launch(grid.pairs(), ChannelMoments<T>{lane, sink.moments});
}

// By the kernels above, on any device.
template <class D, class T>
void gather_plainly(const Window& w, const Feed<T>& in, const Wide<T>* weight, const Sink<T>& out) {
  D::launch_rows(w.coarse.rows(), w.coarse.channels, GatherKernel<T>{w, in, weight, out});
  sum_moments<D>(w.coarse, out);
}
template <class D, class T>
void scatter_plainly(const Window& w, const Feed<T>& in, const Wide<T>* weight,
                     const Sink<T>& out) {
  D::launch_rows(w.fine.rows(), w.fine.channels, ScatterKernel<T>{w, in, weight, out});
  sum_moments<D>(w.fine, out);
}
template <class D, class T>
void weigh_plainly(const Window& w, const Feed<T>& fine, const Feed<T>& coarse,
                   Wide<T>* weight_grad) {
  D::launch_rows(w.taps() * w.fine.channels / w.groups, w.coarse.channels,
                 WeighKernel<T>{w, fine, coarse, weight_grad});
}

/// coarse = weight * fine.
template <class D, class T>
void gather(const Window& w, const Feed<T>& in, const Wide<T>* weight, const Sink<T>& out) {
  if constexpr (HasConvolutions<D, T>)
    D::gather(w, in, weight, out);
  else
    gather_plainly<D>(w, in, weight, out);
}
template <class D, class T, class Forms>
void gather(const Window& w, const Feed<T>& in, const LastingWeights<Wide<T>, Forms>& weight,
            const Sink<T>& out) {
  if constexpr (requires { D::gather(w, in, weight, out); })
    D::gather(w, in, weight, out);
  else
    gather<D>(w, in, weight.values, out);
}
/// A gather that stores leak(z), which is z above zero and leak * z elsewhere, on a device that can
/// do both at once. False: nothing was written, the activation is a matter of who reads.
template <class D, class T>
bool gather_activated(const Window& w, const Feed<T>& in, const Wide<T>* weight, const Sink<T>& out,
                      Wide<T> leak) {
  if constexpr (requires { D::gather_activated(w, in, weight, out, leak); })
    return D::gather_activated(w, in, weight, out, leak);
  else
    return false;
}
/// fine = transposed weight * coarse.
template <class D, class T>
void scatter(const Window& w, const Feed<T>& in, const Wide<T>* weight, const Sink<T>& out) {
  if constexpr (HasConvolutions<D, T>)
    D::scatter(w, in, weight, out);
  else
    scatter_plainly<D>(w, in, weight, out);
}
template <class D, class T, class Forms>
void scatter(const Window& w, const Feed<T>& in, const LastingWeights<Wide<T>, Forms>& weight,
             const Sink<T>& out) {
  if constexpr (requires { D::scatter(w, in, weight, out); })
    D::scatter(w, in, weight, out);
  else
    scatter<D>(w, in, weight.values, out);
}
/// weight_grad += fine (x) coarse.
template <class D, class T>
void weigh(const Window& w, const Feed<T>& fine, const Feed<T>& coarse, Wide<T>* weight_grad) {
  if constexpr (HasConvolutions<D, T>)
    D::weigh(w, fine, coarse, weight_grad);
  else
    weigh_plainly<D>(w, fine, coarse, weight_grad);
}

}  // namespace segmed
