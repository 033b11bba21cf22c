// SPDX-License-Identifier: Apache-2.0
// What the processor can do at most, measured in the process that is timed: fused multiply-adds in
// registers, and the triad of the STREAM benchmark on arrays that no cache holds.
#pragma once
#include <algorithm>
#include <chrono>
#include <map>
#include <vector>

#include <segmed/backend/cpu.hpp>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bench {
using segmed::Index;

/// The seconds that `work` takes.
template <class Work>
double seconds_of(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Roofline {
  double flops = 0, bytes = 0;  // per second
  /// The share that a run reaches of what its arithmetic or its memory traffic allows; 0 if neither
  /// was counted.
  double share(double run_flops, double run_bytes, double seconds) const {
    return std::max(run_flops / flops, run_bytes / bytes) / seconds;
  }
};

// Twelve independent chains of named registers: enough for two units with a latency of four to five
// cycles, and nothing that a compiler could put on the stack. They start from the 16 numbers at
// `out`, so that no two are the same, and return operations per round.
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) inline double fma_rounds_256(Index rounds, float* out) {
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
  __m256 a = _mm256_set1_ps(out[0]), b = _mm256_set1_ps(out[1]), c = _mm256_set1_ps(out[2]),
         d = _mm256_set1_ps(out[3]), e = _mm256_set1_ps(out[4]), f = _mm256_set1_ps(out[5]),
         g = _mm256_set1_ps(out[6]), h = _mm256_set1_ps(out[7]), i = _mm256_set1_ps(out[8]),
         j = _mm256_set1_ps(out[9]), k = _mm256_set1_ps(out[10]), l = _mm256_set1_ps(out[11]);
  for (Index n = 0; n < rounds; ++n) {
    a = _mm256_fmadd_ps(a, x, y), b = _mm256_fmadd_ps(b, x, y), c = _mm256_fmadd_ps(c, x, y);
    d = _mm256_fmadd_ps(d, x, y), e = _mm256_fmadd_ps(e, x, y), f = _mm256_fmadd_ps(f, x, y);
    g = _mm256_fmadd_ps(g, x, y), h = _mm256_fmadd_ps(h, x, y), i = _mm256_fmadd_ps(i, x, y);
    j = _mm256_fmadd_ps(j, x, y), k = _mm256_fmadd_ps(k, x, y), l = _mm256_fmadd_ps(l, x, y);
  }
  a = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
  e = _mm256_add_ps(_mm256_add_ps(e, f), _mm256_add_ps(g, h));
  i = _mm256_add_ps(_mm256_add_ps(i, j), _mm256_add_ps(k, l));
  _mm256_storeu_ps(out, _mm256_add_ps(_mm256_add_ps(a, e), i));
  return 12 * 8 * 2;
}
__attribute__((target("avx512f"))) inline double fma_rounds_512(Index rounds, float* out) {
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
  __m512 a = _mm512_set1_ps(out[0]), b = _mm512_set1_ps(out[1]), c = _mm512_set1_ps(out[2]),
         d = _mm512_set1_ps(out[3]), e = _mm512_set1_ps(out[4]), f = _mm512_set1_ps(out[5]),
         g = _mm512_set1_ps(out[6]), h = _mm512_set1_ps(out[7]), i = _mm512_set1_ps(out[8]),
         j = _mm512_set1_ps(out[9]), k = _mm512_set1_ps(out[10]), l = _mm512_set1_ps(out[11]);
  for (Index n = 0; n < rounds; ++n) {
    a = _mm512_fmadd_ps(a, x, y), b = _mm512_fmadd_ps(b, x, y), c = _mm512_fmadd_ps(c, x, y);
    d = _mm512_fmadd_ps(d, x, y), e = _mm512_fmadd_ps(e, x, y), f = _mm512_fmadd_ps(f, x, y);
    g = _mm512_fmadd_ps(g, x, y), h = _mm512_fmadd_ps(h, x, y), i = _mm512_fmadd_ps(i, x, y);
    j = _mm512_fmadd_ps(j, x, y), k = _mm512_fmadd_ps(k, x, y), l = _mm512_fmadd_ps(l, x, y);
  }
  a = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
  e = _mm512_add_ps(_mm512_add_ps(e, f), _mm512_add_ps(g, h));
  i = _mm512_add_ps(_mm512_add_ps(i, j), _mm512_add_ps(k, l));
  _mm512_storeu_ps(out, _mm512_add_ps(_mm512_add_ps(a, e), i));
  return 12 * 16 * 2;
}
#endif
inline double fma_rounds_plain(Index rounds, float* out) {
  float sum[16];
  for (int i = 0; i < 16; ++i) sum[i] = out[i];
  for (Index n = 0; n < rounds; ++n)
    for (float& s : sum) s = s * 0.999f + 1e-3f;
  for (int i = 0; i < 16; ++i) out[i] = sum[i];
  return 16 * 2;
}
inline double fma_rounds(Index rounds, float* out) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return fma_rounds_512(rounds, out);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return fma_rounds_256(rounds, out);
#endif
  return fma_rounds_plain(rounds, out);
}

/// Floating-point operations per second with the threads that are set; the best of some tries.
inline double measured_flops() {
  const Index parts = 4 * segmed::threads(), rounds = 1 << 19;
  std::vector<float> out(std::size_t(16 * parts));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = 1e-3f * float(i);
  double per_round = 0, best = 1e30;
  for (int i = 0; i < 8; ++i)
    best = std::min(best, seconds_of([&] {
                      segmed::parallel_for(parts, 1, [&](Index begin, Index end) {
                        for (Index p = begin; p < end; ++p) {
                          const double each = fma_rounds(rounds, &out[std::size_t(16 * p)]);
                          if (p == 0) per_round = each;
                        }
                      });
                    }));
  return per_round * double(rounds * parts) / best;
}
/// Bytes per second of a = b + s c, counted as STREAM does: two reads and one write.
inline double measured_bytes() {
  const Index size = Index(16) << 20;
  segmed::Scratch<float> a(size), b(size), c(size);
  double best = 1e30;
  for (int i = 0; i < 8; ++i) {
    const double seconds = seconds_of([&] {
      segmed::parallel_for(size, 1 << 16, [&](Index begin, Index end) {
        float* to = a.data();
        const float *x = b.data(), *y = c.data();
        for (Index k = begin; k < end; ++k) to[k] = i == 0 ? 1.0f : x[k] + 3.0f * y[k];
      });
      // The first try touches the memory of all three.
      if (i == 0) std::fill_n(b.data(), size, 1.0f), std::fill_n(c.data(), size, 1.0f);
    });
    if (i > 0) best = std::min(best, seconds);
  }
  return 3.0 * sizeof(float) * double(size) / best;
}
/// Of the threads that are set; measured once for each number of them.
inline const Roofline& roofline() {
  static std::map<int, Roofline> known;
  Roofline& r = known[segmed::threads()];
  if (r.flops == 0) r = {measured_flops(), measured_bytes()};
  return r;
}

}  // namespace bench
