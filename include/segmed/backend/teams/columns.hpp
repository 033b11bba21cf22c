// SPDX-License-Identifier: Apache-2.0
// How teams walk over a feature map: each thread stays in a few neighbouring channels and goes from
// voxel to voxel, so that what belongs to a (case, channel) is loaded once and stays in registers.
#pragma once
#include <algorithm>

#include <segmed/backend/pack.hpp>
#include <segmed/backend/teams/sums.hpp>
#include <segmed/backend/view.hpp>

namespace segmed {

/// For threads that keep several sums per number in their registers.
template <class T>
inline constexpr int summed_pack = whole_pack<T> < 4 ? whole_pack<T> : 4;

/// Whether rows of so many channels from `p` on can be moved in packs.
template <class T>
bool in_packs(const T* p, Index channels, int width) {
  return channels % width == 0 &&
         reinterpret_cast<std::uintptr_t>(p) % (std::size_t(width) * sizeof(T)) == 0;
}
template <class T>
bool in_packs(const Reader<T>& reader, int width) {
  bool all = true;
  for (const Lane<T>& lane : reader.lane) all &= in_packs(lane.x, lane.grid.channels, width);
  return all;
}
template <class T>
bool in_packs(const Incoming<T>& g, int width) {
  const Index channels = g.view.grid.channels;
  return in_packs(g.view.x, channels, width) && in_packs(g.direct, channels, width) &&
         in_packs(g.seen, channels, width);
}
template <class T>
bool in_packs(const Sink<T>& sink, int width) {
  return in_packs(sink.out[0], sink.grid[0].channels, width) &&
         in_packs(sink.out[1], sink.grid[1].channels, width);
}

/// Where a thread stands: it takes the voxels first, first + lines, ... before last of case n, and
/// the channels of one column.
struct TeamPlace {
  Index n, first, last, channel;
  bool active, leads;  // has something to do; is in line 0
};

/// A map dealt out to teams. A team takes a span of voxels of one case and neighbouring columns;
/// its threads stand in lines, a line reads the columns of one voxel at once.
struct TeamSpans {
  static constexpr int threads = 256;
  static constexpr Index widest = 64;                 // columns of a team
  static constexpr Index teams = 2048, shortest = 4;  // teams that fill a large GPU; voxels each
  Index cases, voxels, channels;
  Index tiles, span, spans;  // teams side by side; voxels of a span; spans of a case
  int width, columns, lines;

  TeamSpans(const Grid& grid, int pack)
      : cases(grid.cases), voxels(grid.voxels()), channels(grid.channels), width(pack) {
    const Index all = channels / width;
    tiles = (all + widest - 1) / widest;
    columns = int((all + tiles - 1) / tiles);
    lines = threads / columns;
    const Index rounds = (voxels + lines - 1) / lines;
    const Index wanted = std::max<Index>(1, teams / (cases * tiles));
    span = std::max(shortest, (rounds + wanted - 1) / wanted) * lines;
    spans = (voxels + span - 1) / span;
  }
  Index count() const { return cases * spans * tiles; }

  SEGMED_HD TeamPlace place(Index team, int thread) const {
    const Index at = team / tiles, begin = at % spans * span;
    const int line = thread / columns;
    const Index channel = (team % tiles * columns + thread % columns) * width;
    const Index end = begin + span < voxels ? begin + span : voxels;
    return {at / spans, begin + line, end, channel, line < lines && channel < channels, line == 0};
  }
};

/// Some channels of a lane in one case.
template <class T, int width>
struct LaneColumns {
  using W = Wide<T>;
  const T* x;  // of the case's first voxel
  Index channels;
  W scale[width], shift[width], slope[width];

  SEGMED_HD LaneColumns(const Lane<T>& lane, Index n, Index c) : channels(lane.grid.channels) {
    x = lane.x + n * lane.grid.voxels() * channels + c;
    const Index pair = n * channels + c;
    for (int j = 0; j < width; ++j) {
      scale[j] = lane.scale ? lane.scale[pair + j] : W(1);
      shift[j] = lane.scale ? lane.shift[pair + j] : W(-0.0);  // which leaves a zero its sign
      slope[j] = lane.slope ? lane.slope[pair + j] : lane.leak;
    }
  }
  SEGMED_HD W before_leak(int j, W raw) const { return std::fma(scale[j], raw, shift[j]); }
  SEGMED_HD W leaked(int j, W z, W g) const { return z > W(0) ? g : slope[j] * g; }
  /// What readers see of voxel v.
  SEGMED_HD void read(Index v, W (&seen)[width]) const {
    const Pack<T, width> raw = load_pack<width>(x + v * channels);
    for (int j = 0; j < width; ++j) {
      const W z = before_leak(j, W(raw.x[j]));
      seen[j] = leaked(j, z, z);
    }
  }
};
/// The lane that holds channel c, and its columns from there on.
template <int width, class T>
SEGMED_HD LaneColumns<T, width> columns_of(const Reader<T>& reader, Index n, Index c) {
  const Index first = reader.lane[0].grid.channels;
  if (c < first) return {reader.lane[0], n, c};
  return {reader.lane[1], n, c - first};
}

/// Some channels of an incoming gradient in one case.
template <class T, int width>
struct IncomingColumns {
  using W = Wide<T>;
  LaneColumns<T, width> view;
  const T *direct, *seen;
  bool moments;
  W by_sum[width], by_square[width];

  SEGMED_HD IncomingColumns(const Incoming<T>& g, Index n, Index c)
      : view(g.view, n, c), moments(g.moments != nullptr) {
    const Index first = n * g.view.grid.voxels() * view.channels + c;
    direct = g.direct ? g.direct + first : nullptr;
    seen = g.seen ? g.seen + first : nullptr;
    const Index pair = n * view.channels + c;
    for (int j = 0; j < width; ++j) {
      by_sum[j] = moments ? W(g.moments[2 * (pair + j)]) : W(0);
      by_square[j] = moments ? W(2) * W(g.moments[2 * (pair + j) + 1]) : W(0);
    }
  }
  SEGMED_HD void read(Index v, W (&g)[width]) const {
    const Index at = v * view.channels;
    for (int j = 0; j < width; ++j) g[j] = 0;
    if (direct) {
      const Pack<T, width> part = load_pack<width>(direct + at);
      for (int j = 0; j < width; ++j) g[j] = W(part.x[j]);
    }
    if (!seen && !moments) return;
    const Pack<T, width> raw = load_pack<width>(view.x + at);
    if (seen) {
      const Pack<T, width> part = load_pack<width>(seen + at);
      for (int j = 0; j < width; ++j) {
        const W z = view.before_leak(j, W(raw.x[j]));
        g[j] = std::fma(view.leaked(j, z, W(part.x[j])), view.scale[j], g[j]);
      }
    }
    if (moments)
      for (int j = 0; j < width; ++j) g[j] += std::fma(by_square[j], W(raw.x[j]), by_sum[j]);
  }
};

/// Some channels of a sink in one case; without `out` nobody wants them.
template <class T, int width>
struct SinkColumns {
  using W = Wide<T>;
  T* out;
  Index channels;
  bool add;

  SEGMED_HD SinkColumns(const Sink<T>& sink, Index n, Index c) {
    const bool second = c >= sink.grid[0].channels;
    const Grid& grid = second ? sink.grid[1] : sink.grid[0];
    out = second ? sink.out[1] : sink.out[0];
    add = second ? sink.add[1] : sink.add[0];
    channels = grid.channels;
    if (out) out += n * grid.voxels() * channels + (second ? c - sink.grid[0].channels : c);
  }
  SEGMED_HD void write(Index v, const W (&value)[width]) const {
    T* const to = out + v * channels;
    Pack<T, width> pack;
    if (add) {
      pack = load_pack<width>(static_cast<const T*>(to));
      for (int j = 0; j < width; ++j) pack.x[j] = T(W(pack.x[j]) + value[j]);
    } else {
      for (int j = 0; j < width; ++j) pack.x[j] = T(value[j]);
    }
    store_pack(to, pack);
  }
};

/// The sums of a thread's channels, `kinds` for each, to a team's place in (cases * spans, kinds,
/// channels).
template <int kinds, int width>
struct ColumnSums {
  using Shared = LineSums<kinds * width, TeamSpans::threads>;
  double own[kinds * width] = {};

  /// Adds a number, or a product, to the sum of channel j.
  SEGMED_HD void add(int kind, int j, double x) { own[kind * width + j] += x; }
  SEGMED_HD void add(int kind, int j, double x, double y) {
    own[kind * width + j] = std::fma(x, y, own[kind * width + j]);
  }
  template <class Team>
  SEGMED_HD void put(Team team, Shared& shared, const TeamSpans& spans, const TeamPlace& place,
                     double* partial) {
    sum_lines(team, shared, spans.lines, spans.columns, own);
    if (!place.active || !place.leads) return;
    double* const to = partial + team.index / spans.tiles * kinds * spans.channels + place.channel;
    for (int kind = 0; kind < kinds; ++kind)
      for (int j = 0; j < width; ++j) to[kind * spans.channels + j] = own[kind * width + j];
  }
};

}  // namespace segmed
