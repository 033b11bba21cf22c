// SPDX-License-Identifier: Apache-2.0
// The inner loop of every convolution. Read once per instruction set: see simd.hpp.
#include <type_traits>
#include <utility>

#include <segmed/backend/kernels/simd.hpp>

namespace segmed::SEGMED_SET {

// How many rows a block of sums has: two vectors in each fill 12 of 16 registers, or 16 of 32.
// More make g++ 12 spill.
template <int vectors>
inline constexpr Index block_rows = vector_bytes == 64 || vectors == 1 ? 8 : 6;

// Runs that start at each of `start` within a row, `length` numbers `step` apart; none is empty and
// there is at least one.
// `next` numbers behind each line of vectors lies one that is wanted soon, if not 0; or behind the
// first number of a run in the first row, and from there on `pace` further with each number.
// With gaps, behind each start stands how many lines of vectors are left out before the run.
struct Runs {
  const Index* start;
  Index count, length, step, next = 0, pace = 0;
};
enum class Ask { nothing, lines, runs };
// Who looks at sums while they are in registers: nobody.
struct Unseen {};

template <class T, int vectors, Put put, Ask asks, bool gaps, class Seen, std::size_t... r,
          std::size_t... k>
[[gnu::always_inline]] inline void multiply_rows(const T* const* row, const Runs& runs, const T* w,
                                                 const T* from, Index from_step, T* to,
                                                 Index to_step, Seen& seen,
                                                 std::index_sequence<r...>,
                                                 std::index_sequence<k...> sums) {
  constexpr Index L = lanes<T>;
  const Index step = runs.step, next = runs.next;
  const T* const at[] = {row[r]...};
  Vector<T> sum[] = {load(from + Index(k / vectors) * from_step + Index(k % vectors) * L)...};
  constexpr Index pair = gaps ? 2 : 1;
  const Index *start = runs.start, *const last = start + pair * runs.count;
  do {
    Index i = *start;
    if constexpr (gaps) w += start[1] * (vectors * L);
    [[maybe_unused]] const T* ask = at[0] + i + next;
    const T* const end = w + runs.length * vectors * L;
    do {
      if constexpr (asks == Ask::lines) __builtin_prefetch(w + next);
      if constexpr (asks == Ask::runs) __builtin_prefetch(ask), ask += runs.pace;
      ((sum[k] = accumulate<T>(all(at[k / vectors][i]), load(w + k % vectors * L), sum[k])), ...);
      i += step, w += vectors * L;
    } while (w != end);
  } while ((start += pair) != last);
  if constexpr (!std::is_same_v<Seen, Unseen>) seen.add(sum, sums);
  ((store_as<put>(to + Index(k / vectors) * to_step + Index(k % vectors) * L, sum[k])), ...);
}

// to[row * to_step][...] = from[row * from_step][...] + the sum over all runs of row[i] * w[...];
// `w` goes on by one line of vectors with each number. The order of the sum is that of the runs.
template <class T, int vectors, Put put = Put::cached, Index rows = block_rows<vectors>,
          bool asks = false, bool gaps = false>
[[gnu::noinline]] void multiply(const T* const* row, const Runs& runs, const T* w, const T* from,
                                Index from_step, T* to, Index to_step) {
  Unseen nobody;
  multiply_rows<T, vectors, put, asks ? Ask::lines : Ask::nothing, gaps>(
      row, runs, w, from, from_step, to, to_step, nobody,
      std::make_index_sequence<std::size_t(rows)>{},
      std::make_index_sequence<std::size_t(rows * vectors)>{});
}
// The same, perhaps asking for what stands behind the runs, and shown to `seen`.
template <class T, int vectors, Put put, Ask asks, bool gaps = false, class Seen>
[[gnu::noinline]] void multiply_for(const T* const* row, const Runs& runs, const T* w,
                                    const T* from, Index from_step, T* to, Index to_step,
                                    Seen& seen) {
  constexpr std::size_t rows = block_rows<vectors>;
  multiply_rows<T, vectors, put, asks, gaps>(row, runs, w, from, from_step, to, to_step, seen,
                                             std::make_index_sequence<rows>{},
                                             std::make_index_sequence<rows * vectors>{});
}

}  // namespace segmed::SEGMED_SET
