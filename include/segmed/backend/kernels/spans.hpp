// SPDX-License-Identifier: Apache-2.0
// Spans of voxels, and sums over them. Read once per instruction set: see simd.hpp.
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
  // The last first: the pass before, which began with the first, left the last in the caches.
  Index backwards(Index i) const { return count() - 1 - i; }
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
    put<0>(sums, squares);
    if constexpr (sizeof(T) < sizeof(double)) put<1>(sums + lanes<double>, squares + lanes<double>);
  }

 private:
  template <std::size_t half>
  [[gnu::always_inline]] void put(double* sums, double* squares) const {
    const Vector<double> from = half_of<half, T>(first), off = half_of<half, T>(near);
    const Vector<double> total = accumulate<double>(from, all<double>(double(run)), off);
    store(sums, load(sums) + total);
    store(squares,
          accumulate<double>(from, off + total, load(squares) + half_of<half, T>(near_squares)));
  }
};

// Adds x and x^2 of `count` channels to sums and squares, run by run.
template <class T>
void add_moments(const T* x, Index step, Index voxels, Index count, double* sums, double* squares) {
  constexpr Index wide = 4 * lanes<T>;  // four sums do not wait for each other
  const Index whole = voxels / run * run, in_vectors = count / lanes<T> * lanes<T>;
  for (Index v = 0; v < whole; v += run) {
    const T* const begin = x + v * step;
    Index c = 0;
    for (; c + wide <= count; c += wide) {
      const T* from = begin + c;
      MomentsOfRun<T> a{load(from)}, b{load(from + lanes<T>)}, d{load(from + 2 * lanes<T>)},
          e{load(from + 3 * lanes<T>)};
      for (Index i = 1; i < run; ++i) {
        from += step;
        a.add(load(from)), b.add(load(from + lanes<T>));
        d.add(load(from + 2 * lanes<T>)), e.add(load(from + 3 * lanes<T>));
      }
      a.put(sums + c, squares + c), b.put(sums + c + lanes<T>, squares + c + lanes<T>);
      d.put(sums + c + 2 * lanes<T>, squares + c + 2 * lanes<T>);
      e.put(sums + c + 3 * lanes<T>, squares + c + 3 * lanes<T>);
    }
    for (; c < in_vectors; c += lanes<T>) {
      MomentsOfRun<T> one{load(begin + c)};
      for (Index i = 1; i < run; ++i) one.add(load(begin + i * step + c));
      one.put(sums + c, squares + c);
    }
  }
  for (Index c = 0; c < count; ++c)
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

}  // namespace segmed::SEGMED_SET
