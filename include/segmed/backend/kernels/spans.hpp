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

// Sums of spans, `kinds` of them a channel; [span][kind][channel], with room for whole vectors.
struct SpanSums {
  Spans spans;
  Index channels, kinds, step;
  Scratch<double> sums;

  SpanSums(const Spans& s, Index c, Index k)
      : spans(s),
        channels(c),
        kinds(k),
        step(pieces(c, lanes<float>) * lanes<float>),
        sums(s.count() * step * k) {
    std::fill_n(sums.data(), spans.count() * step * kinds, 0.0);
  }
  double* of(Index span, Index kind) const { return sums.data() + (span * kinds + kind) * step; }
  double total(Index n, Index kind, Index c) const {
    double sum = 0;
    for (Index i = n * spans.per_case(); i < (n + 1) * spans.per_case(); ++i) sum += of(i, kind)[c];
    return sum;
  }
};

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
