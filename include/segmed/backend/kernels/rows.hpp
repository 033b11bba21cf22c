// SPDX-License-Identifier: Apache-2.0
// Passes over whole feature maps. Read once per instruction set: see simd.hpp.
//
// A task is a span of voxels of one case; sums over voxels are kept per span in double and merged
// in the order of the spans. Within a task, pieces of at most 64 voxels and 64 channels stay in
// cache.
#include <segmed/backend/kernels/spans.hpp>

namespace segmed::SEGMED_SET {

template <class T>
void add_rows(T* to, Index to_step, const T* from, Index from_step, Index voxels, Index count) {
  const Index whole = count / lanes<T> * lanes<T>;
  const Part<T> rest(count - whole);
  for (Index v = 0; v < voxels; ++v, to += to_step, from += from_step) {
    for (Index c = 0; c < whole; c += lanes<T>) store(to + c, load(to + c) + load(from + c));
    if (rest) rest.write(to + whole, rest.read(to + whole) + rest.read(from + whole));
  }
}

template <class T>
struct Apply {
  Feed<T> a, b;
  bool two;
  T* y;
  Index channels;
  const SpanSums* sums;
  Spans spans;
  bool past = false;

  void operator()(Index begin, Index end) const {
    T* other = two ? thread_scratch<T, 0>(Spans::piece * Pending<T>::most) : nullptr;
    for (Index k = begin; k < end; ++k)
      for (Index c = 0; c < channels; c += Pending<T>::most) {
        const Index i = spans.backwards(k);
        const Index n = i / spans.per_case(), count = std::min(channels - c, Pending<T>::most);
        const FeedRows<T> rows(a, n, c, count), more(two ? b : a, n, c, count);
        for (Index v = spans.begin(i); v < spans.end(i); v += Spans::piece) {
          const Index voxels = std::min(Spans::piece, spans.end(i) - v);
          T* to = y + (n * spans.voxels + v) * channels + c;
          if (past) {
            rows.template read<Put::past>(v, voxels, to, channels);
            continue;
          }
          rows.read(v, voxels, to, channels);
          if (two) {
            more.read(v, voxels, other, count);
            add_rows(to, channels, other, count, voxels, count);
          }
          if (sums)
            add_moments(to, channels, voxels, count, sums->of(i, 0) + c, sums->of(i, 1) + c);
        }
      }
    if (past) finish_stores();
  }
};
template <class T>
void apply(const Reader<T>& a, const Reader<T>* b, T* y, double* moments) {
  Apply<T> work{{}, {}, b != nullptr, y, a.channels(), nullptr, Spans(a.lane[0].grid)};
  work.a.values = a;
  if (b) work.b.values = *b;
  if (!moments) {
    work.past = !b && is_put_past(y, a.lane[0].grid.with_channels(work.channels));
    parallel_for(work.spans.count(), 1, work);
    return;
  }
  const SpanSums sums(work.spans, work.channels, 2);
  work.sums = &sums;
  parallel_for(work.spans.count(), 1, work);
  parallel_for(work.spans.cases * work.channels, 64, WriteMoments{sums, moments});
}

template <class T>
struct Moments {
  Lane<T> lane;
  const SpanSums& sums;
  void operator()(Index begin, Index end) const {
    const Spans& spans = sums.spans;
    for (Index i = begin; i < end; ++i)
      for (Index v = spans.begin(i); v < spans.end(i); v += Spans::piece)
        add_moments(lane.x + (i / spans.per_case() * spans.voxels + v) * sums.channels,
                    sums.channels, std::min(Spans::piece, spans.end(i) - v), sums.channels,
                    sums.of(i, 0), sums.of(i, 1));
  }
};
template <class T>
void moments(const Lane<T>& x, double* out) {
  const SpanSums sums(Spans(x.grid), x.grid.channels, 2);
  parallel_for(sums.spans.count(), 1, Moments<T>{x, sums});
  parallel_for(x.grid.pairs(), 64, WriteMoments{sums, out});
}

template <class T>
struct Spread {
  Lane<T> view;
  const T* seen;
  T* raw_grad;
  bool by_slope;
  const SpanSums& sums;  // through_leak * raw, through_leak, seen * z below zero

  void operator()(Index begin, Index end) const {
    const Spans& spans = sums.spans;
    for (Index i = begin; i < end; ++i)
      for (Index c = 0; c < sums.channels; c += Pending<T>::most) {
        const Index n = i / spans.per_case();
        Pending<T> pending;
        pending.prepare(view, n, c, std::min(sums.channels - c, Pending<T>::most), true);
        for (Index v = spans.begin(i); v < spans.end(i); v += Spans::piece)
          piece(pending, i, (n * spans.voxels + v) * sums.channels + c,
                std::min(Spans::piece, spans.end(i) - v), c,
                std::min(sums.channels - c, Pending<T>::most));
      }
  }

 private:
  void piece(const Pending<T>& pending, Index span, Index at, Index voxels, Index c0,
             Index count) const {
    double* const sum[3] = {sums.of(span, 0) + c0, sums.of(span, 1) + c0, sums.of(span, 2) + c0};
    const Index step = sums.channels;
    for (Index v = 0; v < voxels; v += run_length) {
      const Index rows = std::min(run_length, voxels - v), first = at + v * step;
      Index c = 0;
      if (!raw_grad && !by_slope)
        for (; c + 4 * lanes<T> <= count; c += 4 * lanes<T>) four(pending, first + c, rows, c, sum);
      for (; c + lanes<T> <= count; c += lanes<T>)
        single(pending, first + c, rows, c, sum, Whole<T>());
      if (c < count) single(pending, first + c, rows, c, sum, Part<T>(count - c));
    }
  }
  // A run of one vector. The products with x, too, take x as the distance from the first of the
  // run. What is pending comes from the nearest cache each time.
  struct Run {
    Vector<T> by_x{}, alone{};

    [[gnu::always_inline]] void add(const Vector<T>& x, const Vector<T>& first,
                                    const Vector<T>& leaked) {
      by_x = accumulate<T>(leaked, x - first, by_x), alone = alone + leaked;
    }
    [[gnu::always_inline]] void put(const Vector<T>& first, double* scale, double* shift) const {
      DoubleSum<T> scaled(scale), shifted(shift);
      scaled.add(by_x), scaled.add_product(first, alone), shifted.add(alone);
      scaled.put(scale), shifted.put(shift);
    }
  };
  [[gnu::always_inline]] void add(Run& run_of, const Pending<T>& pending, Index c, const T* first,
                                  Index at) const {
    const Vector<T> x = load(view.x + at), g = load(seen + at);
    const Vector<T> z = fused<T>(load(pending.scale + c), x, load(pending.shift + c));
    run_of.add(x, load(first + c), z > Vector<T>{} ? g : load(pending.slope + c) * g);
  }
  // Four vectors, whose sums do not wait for each other, where only scale and shift are wanted.
  void four(const Pending<T>& pending, Index at, Index voxels, Index c,
            double* const (&sum)[3]) const {
    constexpr Index L = lanes<T>;
    const T* const first = view.x + at - c;
    Run p, q, r, s;
    for (Index v = 0; v < voxels; ++v, at += sums.channels) {
      add(p, pending, c, first, at), add(q, pending, c + L, first, at + L);
      add(r, pending, c + 2 * L, first, at + 2 * L), add(s, pending, c + 3 * L, first, at + 3 * L);
    }
    p.put(load(first + c), sum[0] + c, sum[1] + c);
    q.put(load(first + c + L), sum[0] + c + L, sum[1] + c + L);
    r.put(load(first + c + 2 * L), sum[0] + c + 2 * L, sum[1] + c + 2 * L);
    s.put(load(first + c + 3 * L), sum[0] + c + 3 * L, sum[1] + c + 3 * L);
  }
  template <class Access>
  void single(const Pending<T>& pending, Index at, Index voxels, Index c, double* const (&sum)[3],
              const Access& access) const {
    const Vector<T> scale = load(pending.scale + c), slope = load(pending.slope + c);
    const Vector<T> first = access.read(view.x + at);
    Run both;
    Vector<T> by_z{};
    for (Index v = 0; v < voxels; ++v, at += sums.channels) {
      const Vector<T> x = access.read(view.x + at), g = access.read(seen + at);
      const Vector<T> z = fused<T>(scale, x, load(pending.shift + c));
      const Vector<T> leaked = z > Vector<T>{} ? g : slope * g;
      if (raw_grad)
        access.write(raw_grad + at, fused<T>(leaked, scale, access.read(raw_grad + at)));
      both.add(x, first, leaked);
      if (by_slope) by_z = accumulate<T>(z > Vector<T>{} ? Vector<T>{} : g, z, by_z);
    }
    both.put(first, sum[0] + c, sum[1] + c);
    if (!by_slope) return;
    DoubleSum<T> sloped(sum[2] + c);
    sloped.add(by_z), sloped.put(sum[2] + c);
  }
};
struct AddSums {
  const SpanSums& sums;
  double* to[3];
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i)
      for (int kind = 0; kind < 3; ++kind)
        if (to[kind]) to[kind][i] += sums.total(i / sums.channels, kind, i % sums.channels);
  }
};
template <class T>
void spread(const Lane<T>& view, const T* seen, T* raw_grad, double* scale_grad, double* shift_grad,
            double* slope_grad) {
  const bool summed = scale_grad || shift_grad || slope_grad;
  const SpanSums sums(Spans(view.grid), view.grid.channels, 3);
  parallel_for(sums.spans.count(), 1, Spread<T>{view, seen, raw_grad, slope_grad != nullptr, sums});
  if (summed)
    parallel_for(view.grid.pairs(), 64, AddSums{sums, {scale_grad, shift_grad, slope_grad}});
}

template <class T>
struct Deposit {
  Feed<T> gradient;
  Sink<T> out;
  Spans spans;
  bool whole, past;  // one part, and straight into it; past the caches

  Deposit(const Incoming<T>& g, const Sink<T>& to) : out(to), spans(g.view.grid) {
    gradient.gradient = g, gradient.is_gradient = true;
    whole = to.out[0] && !to.add[0] && to.grid[0].channels == g.view.grid.channels;
    past = whole && is_put_past(to.out[0], g.view.grid);
  }

  void operator()(Index begin, Index end) const {
    const Index channels = gradient.gradient.view.grid.channels, split = out.grid[0].channels;
    T* values = thread_scratch<T, 0>(Spans::piece * Pending<T>::most);
    for (Index k = begin; k < end; ++k)
      for (Index c = 0; c < channels; c += Pending<T>::most) {
        const Index i = spans.backwards(k);
        const Index n = i / spans.per_case(), count = std::min(channels - c, Pending<T>::most);
        const FeedRows<T> rows(gradient, n, c, count);
        const Index before = std::clamp<Index>(split - c, 0, count);
        for (Index v = spans.begin(i); v < spans.end(i); v += Spans::piece) {
          const Index voxels = std::min(Spans::piece, spans.end(i) - v);
          const Index voxel = n * spans.voxels + v;
          if (past) {
            rows.template read<Put::past>(v, voxels, out.out[0] + voxel * channels + c, channels);
          } else if (whole) {
            rows.read(v, voxels, out.out[0] + voxel * channels + c, channels);
          } else {
            rows.read(v, voxels, values, count);
            write(0, voxel, c, values, count, voxels, before);
            write(1, voxel, std::max<Index>(0, c - split), values + before, count, voxels,
                  count - before);
          }
        }
      }
    if (past) finish_stores();
  }

 private:
  void write(int part, Index voxel, Index c, const T* values, Index step, Index voxels,
             Index count) const {
    if (!out.out[part] || count == 0) return;
    const Index channels = out.grid[part].channels;
    T* to = out.out[part] + voxel * channels + c;
    if (out.add[part])
      add_rows(to, channels, values, step, voxels, count);
    else
      for (Index v = 0; v < voxels; ++v)
        std::memcpy(to + v * channels, values + v * step, std::size_t(count) * sizeof(T));
  }
};
template <class T>
void deposit(const Incoming<T>& g, const Sink<T>& out) {
  const Deposit<T> work(g, out);
  parallel_for(work.spans.count(), 1, work);
}

// The sum of an incoming gradient over all voxels, by channel.
template <class T>
struct Totals {
  const Feed<T>& gradient;
  const SpanSums& sums;

  void operator()(Index begin, Index end) const {
    const Spans& spans = sums.spans;
    T* values = thread_scratch<T, 0>(Spans::piece * Pending<T>::most);
    for (Index i = begin; i < end; ++i)
      for (Index c = 0; c < sums.channels; c += Pending<T>::most) {
        const Index count = std::min(sums.channels - c, Pending<T>::most);
        const FeedRows<T> rows(gradient, i / spans.per_case(), c, count);
        for (Index v = spans.begin(i); v < spans.end(i); v += Spans::piece) {
          const Index voxels = std::min(Spans::piece, spans.end(i) - v);
          rows.read(v, voxels, values, count);
          add_totals(values, voxels, count, sums.of(i, 0) + c);
        }
      }
  }

 private:
  static void add_totals(const T* x, Index voxels, Index count, double* totals) {
    Index c = 0;
    for (; c + lanes<T> <= count; c += lanes<T>)
      add_total(x + c, voxels, count, totals + c, Whole<T>());
    if (c < count) add_total(x + c, voxels, count, totals + c, Part<T>(count - c));
  }
  template <class Access>
  static void add_total(const T* x, Index voxels, Index step, double* total, const Access& at) {
    DoubleSum<T> sum(total);
    for (Index v = 0; v < voxels; v += run_length) {
      Vector<T> part{};
      for (Index i = v; i < std::min(voxels, v + run_length); ++i)
        part = part + at.read(x + i * step);
      sum.add(part);
    }
    sum.put(total);
  }
};
template <class T>
void total(const Incoming<T>& g, T* sums) {
  Feed<T> gradient;
  gradient.gradient = g, gradient.is_gradient = true;
  const Grid& grid = g.view.grid;
  const SpanSums parts(Spans(grid), grid.channels, 1);
  parallel_for(parts.spans.count(), 1, Totals<T>{gradient, parts});
  for (Index c = 0; c < grid.channels; ++c) {
    double sum = 0;
    for (Index n = 0; n < grid.cases; ++n) sum += parts.total(n, 0, c);
    sums[c] += T(sum);
  }
}

}  // namespace segmed::SEGMED_SET
