// SPDX-License-Identifier: Apache-2.0
// Passes over whole feature maps by teams, each one reading of the memory: what backend/cpu.hpp
// says of the functions of these names. Sums are kept in double.
#pragma once
#include <segmed/backend/teams/columns.hpp>

namespace segmed {

struct NothingShared {};

template <class T, int width, bool summed>
struct ApplyTeams {
  static constexpr int threads = TeamSpans::threads;
  using Sums = ColumnSums<2, width>;
  using Shared = std::conditional_t<summed, typename Sums::Shared, NothingShared>;
  TeamSpans spans;
  Reader<T> a, b;
  bool two;
  T* y;
  double* partial;

  template <class Team>
  SEGMED_HD void operator()(Team team, Shared& shared) const {
    using W = Wide<T>;
    const TeamPlace at = spans.place(team.index, team.thread);
    Sums sums;
    if (at.active) {
      const LaneColumns<T, width> first = columns_of<width>(a, at.n, at.channel);
      const LaneColumns<T, width> second = columns_of<width>(two ? b : a, at.n, at.channel);
      T* const to = y + at.n * spans.voxels * spans.channels + at.channel;
      for (Index v = at.first; v < at.last; v += spans.lines) {
        W value[width], other[width];
        first.read(v, value);
        if (two) {
          second.read(v, other);
          for (int j = 0; j < width; ++j) value[j] += other[j];
        }
        Pack<T, width> pack;
        for (int j = 0; j < width; ++j) pack.x[j] = T(value[j]);
        store_pack(to + v * spans.channels, pack);
        if constexpr (summed)
          for (int j = 0; j < width; ++j) {
            const double stored = double(W(pack.x[j]));
            sums.add(0, j, stored), sums.add(1, j, stored, stored);
          }
      }
    }
    if constexpr (summed) sums.put(team, shared, spans, at, partial);
  }
};

template <class T, int width>
struct MomentsTeams {
  static constexpr int threads = TeamSpans::threads;
  using Sums = ColumnSums<2, width>;
  using Shared = typename Sums::Shared;
  TeamSpans spans;
  const T* x;
  double* partial;

  template <class Team>
  SEGMED_HD void operator()(Team team, Shared& shared) const {
    const TeamPlace at = spans.place(team.index, team.thread);
    Sums sums;
    if (at.active) {
      const T* const from = x + at.n * spans.voxels * spans.channels + at.channel;
      for (Index v = at.first; v < at.last; v += spans.lines) {
        const Pack<T, width> pack = load_pack<width>(from + v * spans.channels);
        for (int j = 0; j < width; ++j) {
          const double value = double(Wide<T>(pack.x[j]));
          sums.add(0, j, value), sums.add(1, j, value, value);
        }
      }
    }
    sums.put(team, shared, spans, at, partial);
  }
};

/// `kinds` of sums: none, those of scale and shift, or that of the slope as well.
template <class T, int width, int kinds>
struct SpreadTeams {
  static constexpr int threads = TeamSpans::threads;
  using Sums = ColumnSums<kinds == 0 ? 1 : kinds, width>;
  using Shared = std::conditional_t<kinds == 0, NothingShared, typename Sums::Shared>;
  TeamSpans spans;
  Lane<T> view;
  const T* seen;
  T* raw_grad;
  double* partial;

  template <class Team>
  SEGMED_HD void operator()(Team team, Shared& shared) const {
    using W = Wide<T>;
    const TeamPlace at = spans.place(team.index, team.thread);
    Sums sums;
    if (at.active) {
      const LaneColumns<T, width> lane(view, at.n, at.channel);
      const Index first = at.n * spans.voxels * spans.channels + at.channel;
      for (Index v = at.first; v < at.last; v += spans.lines) {
        const Index i = v * spans.channels;
        const Pack<T, width> x = load_pack<width>(lane.x + i),
                             s = load_pack<width>(seen + first + i);
        W leaked[width];
        for (int j = 0; j < width; ++j) {
          const W g = W(s.x[j]), z = lane.before_leak(j, W(x.x[j]));
          leaked[j] = lane.leaked(j, z, g);
          if constexpr (kinds > 0) {
            sums.add(0, j, double(leaked[j]), double(W(x.x[j])));
            sums.add(1, j, double(leaked[j]));
          }
          if constexpr (kinds > 2) sums.add(2, j, z > W(0) ? 0 : double(g), double(z));
        }
        if (!raw_grad) continue;
        Pack<T, width> raw = load_pack<width>(static_cast<const T*>(raw_grad + first + i));
        for (int j = 0; j < width; ++j)
          raw.x[j] = T(std::fma(leaked[j], lane.scale[j], W(raw.x[j])));
        store_pack(raw_grad + first + i, raw);
      }
    }
    if constexpr (kinds > 0) sums.put(team, shared, spans, at, partial);
  }
};

template <class T, int width>
struct DepositTeams {
  static constexpr int threads = TeamSpans::threads;
  using Shared = NothingShared;
  TeamSpans spans;
  Incoming<T> g;
  Sink<T> out;

  template <class Team>
  SEGMED_HD void operator()(Team team, Shared&) const {
    const TeamPlace at = spans.place(team.index, team.thread);
    if (!at.active) return;
    const SinkColumns<T, width> to(out, at.n, at.channel);
    if (!to.out) return;
    const IncomingColumns<T, width> from(g, at.n, at.channel);
    for (Index v = at.first; v < at.last; v += spans.lines) {
      Wide<T> value[width];
      from.read(v, value);
      to.write(v, value);
    }
  }
};

template <class T, int width>
struct TotalTeams {
  static constexpr int threads = TeamSpans::threads;
  using Sums = ColumnSums<1, width>;
  using Shared = typename Sums::Shared;
  TeamSpans spans;
  Incoming<T> g;
  double* partial;

  template <class Team>
  SEGMED_HD void operator()(Team team, Shared& shared) const {
    const TeamPlace at = spans.place(team.index, team.thread);
    Sums sums;
    if (at.active) {
      const IncomingColumns<T, width> from(g, at.n, at.channel);
      for (Index v = at.first; v < at.last; v += spans.lines) {
        Wide<T> value[width];
        from.read(v, value);
        for (int j = 0; j < width; ++j) sums.add(0, j, double(value[j]));
      }
    }
    sums.put(team, shared, spans, at, partial);
  }
};

struct StoreMoments {
  double* moments;
  Index channels;
  SEGMED_HD void operator()(Index n, Index k, double sum) const {
    moments[2 * (n * channels + k % channels) + k / channels] = sum;
  }
};
struct AddSpread {
  double* to[3];
  Index channels;
  SEGMED_HD void operator()(Index n, Index k, double sum) const {
    double* const into = to[k / channels];
    if (into) into[n * channels + k % channels] += sum;
  }
};
template <class W>
struct AddTotals {
  W* to;
  SEGMED_HD void operator()(Index, Index k, double sum) const { to[k] += W(sum); }
};

/// The passes of a device that has teams: `struct Mine : TeamRows<Mine>`.
template <class D>
struct TeamRows {
  template <class T>
  static void apply(const Reader<T>& a, const Reader<T>* b, T* y, double* moments) {
    const auto fits = [&](int width) {
      return in_packs(a, width) && (!b || in_packs(*b, width)) && in_packs(y, a.channels(), width);
    };
    if (moments)
      return fits(summed_pack<T>) ? apply_by<summed_pack<T>, true>(a, b, y, moments)
                                  : apply_by<1, true>(a, b, y, moments);
    return fits(whole_pack<T>) ? apply_by<whole_pack<T>, false>(a, b, y, nullptr)
                               : apply_by<1, false>(a, b, y, nullptr);
  }
  template <class T>
  static void spread(const Lane<T>& view, const T* seen, T* raw_grad, double* scale_grad,
                     double* shift_grad, double* slope_grad) {
    constexpr int pack = summed_pack<T>;
    const Index channels = view.grid.channels;
    const bool fits = in_packs(view.x, channels, pack) && in_packs(seen, channels, pack) &&
                      in_packs<T>(raw_grad, channels, pack);
    double* const sums[3] = {scale_grad, shift_grad, slope_grad};
    fits ? spread_by<pack>(view, seen, raw_grad, sums) : spread_by<1>(view, seen, raw_grad, sums);
  }
  template <class T>
  static void deposit(const Incoming<T>& g, const Sink<T>& out) {
    if (in_packs(g, whole_pack<T>) && in_packs(out, whole_pack<T>)) {
      const TeamSpans spans(g.view.grid, whole_pack<T>);
      D::launch_teams(spans.count(), DepositTeams<T, whole_pack<T>>{spans, g, out});
    } else {
      const TeamSpans spans(g.view.grid, 1);
      D::launch_teams(spans.count(), DepositTeams<T, 1>{spans, g, out});
    }
  }
  template <class T>
  static void total(const Incoming<T>& g, Wide<T>* sums) {
    in_packs(g, summed_pack<T>) ? total_by<summed_pack<T>>(g, sums) : total_by<1>(g, sums);
  }
  template <class T>
  static void moments(const Lane<T>& x, double* moments) {
    in_packs(x.x, x.grid.channels, summed_pack<T>) ? moments_by<summed_pack<T>>(x, moments)
                                                   : moments_by<1>(x, moments);
  }

 private:
  template <int width, bool summed, class T>
  static void apply_by(const Reader<T>& a, const Reader<T>* b, T* y, double* moments) {
    const Grid grid = a.lane[0].grid.with_channels(a.channels());
    const TeamSpans spans(grid, width);
    const Index parts = summed ? 2 * spans.spans * grid.pairs() : 0;
    const Workspace<D, double> partial(parts);
    D::launch_teams(spans.count(), ApplyTeams<T, width, summed>{spans, a, b ? *b : Reader<T>{},
                                                                b != nullptr, y, partial.data()});
    if (summed)
      merge_by_teams<D>(grid.cases, spans.spans, 2 * grid.channels, partial.data(),
                        StoreMoments{moments, grid.channels});
  }
  template <int width, class T>
  static void moments_by(const Lane<T>& x, double* moments) {
    const TeamSpans spans(x.grid, width);
    const Workspace<D, double> partial(2 * spans.spans * x.grid.pairs());
    D::launch_teams(spans.count(), MomentsTeams<T, width>{spans, x.x, partial.data()});
    merge_by_teams<D>(x.grid.cases, spans.spans, 2 * x.grid.channels, partial.data(),
                      StoreMoments{moments, x.grid.channels});
  }
  template <int width, class T>
  static void spread_by(const Lane<T>& view, const T* seen, T* raw_grad, double* const (&sums)[3]) {
    if (sums[2])
      spread_sums<width, 3>(view, seen, raw_grad, sums);
    else if (sums[0] || sums[1])
      spread_sums<width, 2>(view, seen, raw_grad, sums);
    else
      spread_sums<width, 0>(view, seen, raw_grad, sums);
  }
  template <int width, int kinds, class T>
  static void spread_sums(const Lane<T>& view, const T* seen, T* raw_grad,
                          double* const (&sums)[3]) {
    const TeamSpans spans(view.grid, width);
    const Workspace<D, double> partial(kinds * spans.spans * view.grid.pairs());
    D::launch_teams(spans.count(),
                    SpreadTeams<T, width, kinds>{spans, view, seen, raw_grad, partial.data()});
    if (kinds > 0)
      merge_by_teams<D>(view.grid.cases, spans.spans, kinds * view.grid.channels, partial.data(),
                        AddSpread{{sums[0], sums[1], sums[2]}, view.grid.channels});
  }
  template <int width, class T>
  static void total_by(const Incoming<T>& g, Wide<T>* sums) {
    const TeamSpans spans(g.view.grid, width);
    const Workspace<D, double> partial(spans.spans * g.view.grid.pairs());
    D::launch_teams(spans.count(), TotalTeams<T, width>{spans, g, partial.data()});
    merge_by_teams<D>(1, g.view.grid.cases * spans.spans, g.view.grid.channels, partial.data(),
                      AddTotals<Wide<T>>{sums});
  }
};

}  // namespace segmed
