// SPDX-License-Identifier: Apache-2.0
// Passes over whole feature maps. Read once per instruction set: see simd.hpp.
//
// A task is a span of voxels of one case; sums over voxels are kept per span in double and merged
// in the order of the spans. Within a task, pieces of at most 64 voxels and 64 channels stay in
// cache.
#include <segmed/backend/kernels/winograd_weigh.hpp>

namespace segmed::SEGMED_SET {

struct Spans {
  static constexpr Index piece = 64;
  Index cases, voxels, span;

  explicit Spans(const Grid& grid)
      : cases(grid.cases), voxels(grid.voxels()), span(std::max(4 * piece, pieces(voxels, 64))) {}
  Index per_case() const { return pieces(voxels, span); }
  Index count() const { return cases * per_case(); }
  Index begin(Index i) const { return i % per_case() * span; }
  Index end(Index i) const { return std::min(voxels, begin(i) + span); }
};

// Sums of spans, `kinds` of them a channel; [span][kind][channel].
struct SpanSums {
  Spans spans;
  Index channels, kinds;
  Scratch<double> sums;

  SpanSums(const Spans& s, Index c, Index k)
      : spans(s), channels(c), kinds(k), sums(s.count() * c * k) {
    std::fill_n(sums.data(), spans.count() * channels * kinds, 0.0);
  }
  double* of(Index span, Index kind) const {
    return sums.data() + (span * kinds + kind) * channels;
  }
  double total(Index n, Index kind, Index c) const {
    double sum = 0;
    for (Index i = n * spans.per_case(); i < (n + 1) * spans.per_case(); ++i) sum += of(i, kind)[c];
    return sum;
  }
};

// Voxels whose numbers T itself adds up before the sum goes on in double: so a sum costs little
// more than one operation a number. A power of two, so that `run` times a number is exact.
inline constexpr Index run = 16;

// Sums of x and x^2 over a run, as distances from its first number: nothing is lost where numbers
// are large beside their spread.
template <class T>
struct MomentsOfRun {
  Vector<T> first, near{}, near_squares{};

  [[gnu::always_inline]] void add(const Vector<T>& x) {
    const Vector<T> d = x - first;
    near = near + d, near_squares = accumulate<T>(d, d, near_squares);
  }
  [[gnu::always_inline]] void put(double* sums, double* squares) const {
    DoubleSum<T> sum(sums), square(squares);
    sum.add(near), sum.add_product(first, all<T>(T(run)));
    square.add(near_squares), square.add_product(first, near + near);
    square.add_product(first, first * all<T>(T(run)));
    sum.put(sums), square.put(squares);
  }
};

// Adds x and x^2 of `count` channels to sums and squares.
template <class T>
void add_moments(const T* x, Index step, Index voxels, Index count, double* sums, double* squares) {
  const Index whole = voxels / run * run;
  Index c = 0;
  for (; c + 2 * lanes<T> <= count; c += 2 * lanes<T>)  // two sums do not wait for each other
    for (Index v = 0; v < whole; v += run) {
      const T* from = x + v * step + c;
      MomentsOfRun<T> low{load(from)}, high{load(from + lanes<T>)};
      for (Index i = 1; i < run; ++i) {
        from += step;
        low.add(load(from)), high.add(load(from + lanes<T>));
      }
      low.put(sums + c, squares + c), high.put(sums + c + lanes<T>, squares + c + lanes<T>);
    }
  for (; c + lanes<T> <= count; c += lanes<T>)
    for (Index v = 0; v < whole; v += run) {
      MomentsOfRun<T> one{load(x + v * step + c)};
      for (Index i = 1; i < run; ++i) one.add(load(x + (v + i) * step + c));
      one.put(sums + c, squares + c);
    }
  const Index in_vectors = c;
  for (c = 0; c < count; ++c)
    for (Index v = c < in_vectors ? whole : 0; v < voxels; ++v) {
      const double d = double(x[v * step + c]);
      sums[c] += d, squares[c] = fused<double>(d, d, squares[c]);
    }
}

struct WriteMoments {
  const SpanSums& sums;
  double* moments;
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i)
      for (Index kind = 0; kind < 2; ++kind)
        moments[2 * i + kind] = sums.total(i / sums.channels, kind, i % sums.channels);
  }
};

template <class T>
void add_rows(T* to, Index to_step, const T* from, Index from_step, Index voxels, Index count) {
  for (Index v = 0; v < voxels; ++v, to += to_step, from += from_step) {
    Index c = 0;
    for (; c + lanes<T> <= count; c += lanes<T>) store(to + c, load(to + c) + load(from + c));
    for (; c < count; ++c) to[c] += from[c];
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

  void operator()(Index begin, Index end) const {
    T* other = two ? thread_scratch<T, 0>(Spans::piece * Pending<T>::most) : nullptr;
    for (Index i = begin; i < end; ++i)
      for (Index c = 0; c < channels; c += Pending<T>::most) {
        const Index n = i / spans.per_case(), count = std::min(channels - c, Pending<T>::most);
        const FeedRows<T> rows(a, n, c, count), more(two ? b : a, n, c, count);
        for (Index v = spans.begin(i); v < spans.end(i); v += Spans::piece) {
          const Index voxels = std::min(Spans::piece, spans.end(i) - v);
          T* to = y + (n * spans.voxels + v) * channels + c;
          rows.read(v, voxels, to, channels);
          if (two) {
            more.read(v, voxels, other, count);
            add_rows(to, channels, other, count, voxels, count);
          }
          if (sums)
            add_moments(to, channels, voxels, count, sums->of(i, 0) + c, sums->of(i, 1) + c);
        }
      }
  }
};
template <class T>
void apply(const Reader<T>& a, const Reader<T>* b, T* y, double* moments) {
  Apply<T> work{{}, {}, b != nullptr, y, a.channels(), nullptr, Spans(a.lane[0].grid)};
  work.a.values = a;
  if (b) work.b.values = *b;
  if (!moments) {
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
    Index c = 0;
    for (; c + lanes<T> <= count; c += lanes<T>) whole(pending, at + c, voxels, c, sum);
    for (; c < count; ++c) one(pending, at + c, voxels, c, sum);
  }
  // The runs of the products with x, too, take x as the distance from the first of the run.
  void whole(const Pending<T>& pending, Index at, Index voxels, Index c,
             double* const (&sum)[3]) const {
    const Vector<T> scale = load(pending.scale + c), slope = load(pending.slope + c);
    DoubleSum<T> scaled(sum[0] + c), shifted(sum[1] + c), sloped(sum[2] + c);
    for (Index v = 0; v < voxels; v += run) {
      const Index end = std::min(run, voxels - v);
      const Vector<T> first = load(view.x + at);
      Vector<T> by_x{}, alone{}, by_z{};
      for (Index i = 0; i < end; ++i, at += sums.channels) {
        const Vector<T> x = load(view.x + at), s = load(seen + at);
        const Vector<T> z = fused<T>(scale, x, load(pending.shift + c));
        const Vector<T> leaked = z > Vector<T>{} ? s : slope * s;
        if (raw_grad) store(raw_grad + at, fused<T>(leaked, scale, load(raw_grad + at)));
        by_x = accumulate<T>(leaked, x - first, by_x), alone = alone + leaked;
        if (by_slope) by_z = accumulate<T>(z > Vector<T>{} ? Vector<T>{} : s, z, by_z);
      }
      scaled.add(by_x), scaled.add_product(first, alone);
      shifted.add(alone), sloped.add(by_z);
    }
    scaled.put(sum[0] + c), shifted.put(sum[1] + c), sloped.put(sum[2] + c);
  }
  void one(const Pending<T>& pending, Index at, Index voxels, Index c,
           double* const (&sum)[3]) const {
    for (Index v = 0; v < voxels; ++v, at += sums.channels) {
      const T x = view.x[at], s = seen[at];
      const T z = fused<T>(pending.scale[c], x, pending.shift[c]);
      const T leaked = z > T(0) ? s : pending.slope[c] * s;
      if (raw_grad) raw_grad[at] = fused<T>(leaked, pending.scale[c], raw_grad[at]);
      sum[0][c] = fused<double>(double(leaked), double(x), sum[0][c]);
      sum[1][c] += double(leaked);
      if (by_slope && !(z > T(0))) sum[2][c] = fused<double>(double(s), double(z), sum[2][c]);
    }
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

  void operator()(Index begin, Index end) const {
    const Index channels = gradient.gradient.view.grid.channels, split = out.grid[0].channels;
    T* values = thread_scratch<T, 0>(Spans::piece * Pending<T>::most);
    for (Index i = begin; i < end; ++i)
      for (Index c = 0; c < channels; c += Pending<T>::most) {
        const Index n = i / spans.per_case(), count = std::min(channels - c, Pending<T>::most);
        const FeedRows<T> rows(gradient, n, c, count);
        const Index before = std::clamp<Index>(split - c, 0, count);
        for (Index v = spans.begin(i); v < spans.end(i); v += Spans::piece) {
          const Index voxels = std::min(Spans::piece, spans.end(i) - v);
          const Index voxel = n * spans.voxels + v;
          rows.read(v, voxels, values, count);
          write(0, voxel, c, values, count, voxels, before);
          write(1, voxel, std::max<Index>(0, c - split), values + before, count, voxels,
                count - before);
        }
      }
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
  Deposit<T> work{{}, out, Spans(g.view.grid)};
  work.gradient.gradient = g, work.gradient.is_gradient = true;
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
    for (; c + lanes<T> <= count; c += lanes<T>) {
      DoubleSum<T> sum(totals + c);
      for (Index v = 0; v < voxels; v += run) {
        Vector<T> part{};
        for (Index i = v; i < std::min(voxels, v + run); ++i) part = part + load(x + i * count + c);
        sum.add(part);
      }
      sum.put(totals + c);
    }
    for (; c < count; ++c)
      for (Index v = 0; v < voxels; ++v) totals[c] += double(x[v * count + c]);
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
