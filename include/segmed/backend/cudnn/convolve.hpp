// SPDX-License-Identifier: Apache-2.0
// Convolutions of pending sources by an engine that takes dense tensors alone: inputs are written
// down where they have to be, outputs are handed on.
#pragma once
#include <segmed/backend/convolution.hpp>
#include <segmed/backend/cudnn/check.hpp>
#include <segmed/backend/cudnn/layout.hpp>
#include <segmed/backend/cudnn/problem.hpp>

namespace segmed {

/// What runs dense graphs on a device: cuDNN, or for the tests a plain loop on the host.
template <class E>
concept DenseEngine = requires(const CudnnProblem& p, const CudnnOperands<float>& operands) {
  { E::switches() } -> std::same_as<CudnnSwitches>;
  { E::template plan<float>(p) } -> std::convertible_to<bool>;  // none: use the plain kernels
  E::run(*E::template plan<float>(p), operands);
};

/// A feed as a dense tensor of `channels`: itself where it is one, else written into `room`.
template <Device D, class T>
T* dense_feed(const Feed<T>& feed, const Grid& grid, Index channels, Workspace<D, T>& room) {
  const T* there = plain_data(feed);
  if (there && channels == grid.channels && aligned(there)) return const_cast<T*>(there);
  T* to = room.take(grid.rows() * channels);
  // A device's own passes over whole rows are as good at it, and better on a GPU.
  if (channels == grid.channels) {
    const Reader<T>* alone = nullptr;
    Sink<T> sink;
    sink.out[0] = to, sink.grid[0] = grid;
    if constexpr (requires { D::apply(feed.values, alone, to, nullptr); })
      if (!feed.is_gradient) return D::apply(feed.values, alone, to, nullptr), to;
    if constexpr (requires { D::deposit(feed.gradient, sink); })
      if (feed.is_gradient) return D::deposit(feed.gradient, sink), to;
  }
  D::launch_rows(grid.rows(), channel_blocks(channels), WriteDense<T>{feed, grid, channels, to});
  return to;
}

/// A gather (forward) or a scatter (backward data), which stores leak(z). Bias and activation are
/// asked of the engine where it writes in place, which spares a pass over what was written: what
/// has channels to leave out or is added to is read once more in any case, and its bias added then.
/// False: there is an activation and no engine for it, and nothing was written.
template <DenseEngine E, Device D, CudnnStored T>
bool write_by(CudnnPass pass, const Window& w, const Feed<T>& in, const Wide<T>* weight,
              const Sink<T>& out, Wide<T> leak = 1) {
  const bool forward = pass == CudnnPass::forward;
  if (!out.out[0] && !out.out[1]) return true;
  const CudnnSwitches switches = E::switches();
  const auto p = cudnn_problem(pass, CudnnStorageOf<T>::value, switches, w);
  // Planes may have become cases there, which moves no number: grids are those of the window.
  const Grid &from = forward ? w.fine : w.coarse, &to = forward ? w.coarse : w.fine;
  const Index written = p ? p->written().channels : 0;
  T* place = written == to.channels ? plain_place(out) : nullptr;
  if (!aligned(place)) place = nullptr;
  const CudnnTail tail{out.bias != nullptr, leak};
  const bool asks = place && tail.any() && switches.fused && aligned(out.bias);
  auto plan = asks ? E::template plan<T>(p->with_tail(tail)) : nullptr;
  const bool finished = plan;
  if (!finished && leak != Wide<T>(1)) return false;
  if (!finished && p) plan = E::template plan<T>(*p);
  if (!plan) {
    if (forward)
      gather_plainly<D>(w, in, weight, out);
    else
      scatter_plainly<D>(w, in, weight, out);
    return true;
  }

  const Index read = (forward ? p->window.fine : p->window.coarse).channels;
  const FilterLayout layout{w.taps(), w.fine.channels / w.groups, w.coarse.channels, p->inside()};
  Workspace<D, T> input_room, filter(p->window.weights()), output_room;
  T* input = dense_feed<D>(in, from, read, input_room);
  D::launch_rows(layout.rows(), p->window.coarse.channels,
                 ToFilter<T>{layout, weight, filter.data()});
  T* output = place ? place : output_room.take(to.rows() * written);
  const Wide<T>* bias = finished ? out.bias : nullptr;
  E::run(*plan, forward ? CudnnOperands<T>{input, filter.data(), output, bias}
                        : CudnnOperands<T>{output, filter.data(), input, bias});
  if (!place || (out.bias && !finished))
    D::launch_rows(to.rows(), channel_blocks(to.channels),
                   Drain<T>{output, to, written, out, drains_together(out, written)});
  sum_moments<D>(to, out);
  return true;
}

/// weight_grad += fine (x) coarse.
template <DenseEngine E, Device D, CudnnStored T>
void weigh_by(const Window& w, const Feed<T>& fine, const Feed<T>& coarse, Wide<T>* weight_grad) {
  const auto p =
      cudnn_problem(CudnnPass::backward_weights, CudnnStorageOf<T>::value, E::switches(), w);
  const auto plan = p ? E::template plan<T>(*p) : nullptr;
  if (!plan) return weigh_plainly<D>(w, fine, coarse, weight_grad);

  Workspace<D, T> fine_room, coarse_room, filter(p->window.weights());
  T* x = dense_feed<D>(fine, w.fine, p->window.fine.channels, fine_room);
  T* y = dense_feed<D>(coarse, w.coarse, p->window.coarse.channels, coarse_room);
  E::run(*plan, CudnnOperands<T>{x, filter.data(), y});
  const FilterLayout layout{w.taps(), w.fine.channels / w.groups, w.coarse.channels, p->inside()};
  D::launch_rows(layout.rows(), w.coarse.channels,
                 AddFilter<T>{layout, filter.data(), weight_grad});
}

}  // namespace segmed
