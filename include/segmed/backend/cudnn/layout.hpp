// SPDX-License-Identifier: Apache-2.0
// Between what the library reads and writes and the dense tensors that cuDNN takes: named functors
// for any device.
#pragma once
#include <cstdint>

#include <segmed/backend/pack.hpp>
#include <segmed/backend/view.hpp>

namespace segmed {

/// Channels that are read or written at once.
inline constexpr int channels_together = 8;
template <class T>
using ChannelsTogether = Pack<T, channels_together>;
inline Index channel_blocks(Index channels) {
  return (channels + channels_together - 1) / channels_together;
}

/// Between weights (taps, in, out) and cuDNN's (out, taps, in). One item per (tap and block of
/// channels in, channel out): neighbours are neighbours in the weights, and a block is in the
/// filter.
struct FilterLayout {
  Index taps, in, out, in_there;  // channels in: of one group, and filled up; channels out: of all

  Index rows() const { return taps * channel_blocks(in_there); }
  struct Place {
    Index weight, filter, channel;  // of the block's first channel
  };
  SEGMED_HD Place at(Index row, Index k) const {
    const Index blocks = (in_there + channels_together - 1) / channels_together;
    const Index tap = row / blocks, c = row % blocks * channels_together;
    return {(tap * in + c) * out + k, (k * taps + tap) * in_there + c, c};
  }
  SEGMED_HD bool whole() const { return in_there % channels_together == 0; }
};
/// Channels that are filled up become zeros; also those out, over which this is launched too.
template <class T>
struct ToFilter {
  FilterLayout layout;
  const Wide<T>* from;
  T* to;  // aligned to 16 bytes
  SEGMED_HD void operator()(Index row, Index k) const {
    const FilterLayout::Place p = layout.at(row, k);
    ChannelsTogether<T> all;
    for (Index i = 0; i < channels_together; ++i) {
      const bool real = k < layout.out && p.channel + i < layout.in;
      all.x[i] = T(real ? from[p.weight + i * layout.out] : Wide<T>(0));
    }
    if (layout.whole()) {
      store_pack(to + p.filter, all);
    } else {
      for (Index i = 0; i < channels_together && p.channel + i < layout.in_there; ++i)
        to[p.filter + i] = all.x[i];
    }
  }
};
/// Adds a gradient of the filter to that of the weights.
template <class T>
struct AddFilter {
  FilterLayout layout;
  const T* from;  // aligned to 16 bytes
  Wide<T>* into;
  SEGMED_HD void operator()(Index row, Index k) const {
    const FilterLayout::Place p = layout.at(row, k);
    ChannelsTogether<T> all;
    if (layout.whole()) {
      all = load_pack<channels_together>(from + p.filter);
    } else {
      for (Index i = 0; i < channels_together && p.channel + i < layout.in_there; ++i)
        all.x[i] = from[p.filter + i];
    }
    for (Index i = 0; i < channels_together && p.channel + i < layout.in; ++i)
      into[p.weight + i * layout.out] += Wide<T>(all.x[i]);
  }
};

/// A feed as one dense tensor, channels filled up with zeros. One item per (row, block of
/// channels): what a row's channels share is found once.
template <class T>
struct WriteDense {
  Feed<T> from;
  Grid grid;
  Index channels;  // filled up
  T* to;           // aligned to 16 bytes
  SEGMED_HD void operator()(Index row, Index block) const {
    At p = grid.at(row, block * channels_together);
    ChannelsTogether<T> all;
    for (Index i = 0; i < channels_together; ++i, ++p.c)
      all.x[i] = T(p.c < grid.channels ? from(p) : Wide<T>(0));
    const Index first = block * channels_together;
    T* place = to + row * channels + first;
    if (channels % channels_together == 0) {
      store_pack(place, all);
    } else {
      for (Index i = 0; i < channels_together && first + i < channels; ++i) place[i] = all.x[i];
    }
  }
};

/// A dense tensor, whose filled-up channels are left out, to where a convolution writes; adds the
/// bias. May write where it reads. One item per (row, block of channels).
template <class T>
struct Drain {
  const T* from;
  Grid grid;
  Index channels;  // filled up
  Sink<T> out;
  bool together;  // what `drains_together` says
  SEGMED_HD void operator()(Index row, Index block) const {
    At p = grid.at(row, block * channels_together);
    const T* read = from + row * channels + p.c;
    if (!together) {
      for (Index i = 0; i < channels_together && p.c < grid.channels; ++i, ++p.c)
        out(p, with_bias(read[i], p.c));
      return;
    }
    const int part = p.c < out.grid[0].channels ? 0 : 1;
    if (!out.out[part]) return;
    const Index at = out.grid[part].index({p.n, p.v, part ? p.c - out.grid[0].channels : p.c});
    ChannelsTogether<T> all = load_pack<channels_together>(read), before;
    T* const place = out.out[part] + at;
    if (out.add[part]) before = load_pack<channels_together>(place);
    for (Index i = 0; i < channels_together; ++i) {
      const Wide<T> value = with_bias(all.x[i], p.c + i);
      all.x[i] = T(out.add[part] ? Wide<T>(before.x[i]) + value : value);
    }
    store_pack(place, all);
  }
  SEGMED_HD Wide<T> with_bias(T x, Index c) const {
    return out.bias ? Wide<T>(x) + out.bias[c] : Wide<T>(x);
  }
};

/// The tensor that a feed reads as it is, or null when work is pending.
template <class T>
const T* plain_data(const Feed<T>& feed) {
  const Incoming<T>& g = feed.gradient;
  const Reader<T>& values = feed.values;
  if (feed.is_gradient) return g.seen || g.moments ? nullptr : g.direct;
  return values.lane[1].grid.channels == 0 && values.lane[0].plain() ? values.lane[0].x : nullptr;
}
/// The one tensor that a sink overwrites, or null when it adds, or has two parts.
template <class T>
T* plain_place(const Sink<T>& sink) {
  return sink.grid[1].channels == 0 && !sink.add[0] ? sink.out[0] : nullptr;
}
/// What descriptors promise of every pointer.
inline constexpr std::uintptr_t cudnn_alignment = 16;
inline bool aligned(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % cudnn_alignment == 0;
}
/// Whether blocks of channels lie in one part each, at addresses where they can be stored at once.
template <class T>
bool drains_together(const Sink<T>& out, Index channels) {
  bool whole = channels % channels_together == 0;
  for (int part = 0; part < 2; ++part)
    whole = whole && out.grid[part].channels % channels_together == 0 && aligned(out.out[part]);
  return whole;
}

}  // namespace segmed
