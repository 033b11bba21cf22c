// SPDX-License-Identifier: Apache-2.0
// Vectors of one instruction set. Read once per set, inside a region of targets.hpp that names the
// set's namespace by SEGMED_SET; hence no #pragma once.
#include <atomic>
#include <cstring>
#include <utility>

#include <segmed/backend/targets.hpp>

namespace segmed::SEGMED_SET {

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(vector_bytes)));
  typedef float half __attribute__((vector_size(vector_bytes / 2)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(vector_bytes)));
  typedef double half __attribute__((vector_size(vector_bytes / 2)));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
using Half = typename VectorOf<T>::half;

template <class T>
inline constexpr Index lanes = vector_bytes / Index(sizeof(T));

template <class T>
[[gnu::always_inline]] inline Vector<T> load(const T* p) {
  Vector<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
[[gnu::always_inline]] inline void store(T* p, const Vector<T>& v) {
  std::memcpy(p, &v, sizeof v);
}
// A store that leaves the caches to others, for what is read again only after they have been filled
// anew: memory is not read first to be written over. `p` is aligned to a vector;
// `finish_stores` before another thread may look.
template <class T>
[[gnu::always_inline]] inline void store_past_caches(T* p, const Vector<T>& v) {
  if constexpr (requires(Vector<T> * to) { __builtin_nontemporal_store(v, to); })
    __builtin_nontemporal_store(v, reinterpret_cast<Vector<T>*>(p));
  else if constexpr (requires { __builtin_ia32_movntps512(p, v); })
    __builtin_ia32_movntps512(p, v);
  else if constexpr (requires { __builtin_ia32_movntpd512(p, v); })
    __builtin_ia32_movntpd512(p, v);
  else if constexpr (requires { __builtin_ia32_movntps256(p, v); })
    __builtin_ia32_movntps256(p, v);
  else if constexpr (requires { __builtin_ia32_movntpd256(p, v); })
    __builtin_ia32_movntpd256(p, v);
  else if constexpr (requires { __builtin_ia32_movntps(p, v); })
    __builtin_ia32_movntps(p, v);
  else if constexpr (requires { __builtin_ia32_movntpd(p, v); })
    __builtin_ia32_movntpd(p, v);
  else
    store(p, v);
}
inline void finish_stores() { std::atomic_thread_fence(std::memory_order_seq_cst); }

template <class T>
[[gnu::always_inline]] inline Vector<T> all(T x) {
  return x - Vector<T>{};  // x - 0 is x, for -0 too
}

// How the numbers of a vector lie in memory: all of them ...
template <class T>
struct Whole {
  [[gnu::always_inline]] static Vector<T> read(const T* p) { return load(p); }
  [[gnu::always_inline]] static void write(T* p, const Vector<T>& v) { store(p, v); }
};
// ... or the first `live` of them: zeros are read for the others, and nothing behind is touched.
template <class T>
class Part {
 public:
  explicit Part(Index live) : live_(live) {}
  explicit operator bool() const { return live_ > 0; }
  [[gnu::always_inline]] Vector<T> read(const T* p) const {
    if (live_ == lanes<T> / 2) return widen(p, std::make_index_sequence<std::size_t(lanes<T>)>{});
    // Of masked reads a processor may not see where they go on.
    if constexpr (vector_bytes > 16) __builtin_prefetch(p + 1024 / sizeof(T));
    if constexpr (vector_bytes == 64 && sizeof(T) == 4) {
      return __builtin_ia32_loadups512_mask(p, Vector<T>{}, bits<unsigned short>());
    } else if constexpr (vector_bytes == 64) {
      return __builtin_ia32_loadupd512_mask(p, Vector<T>{}, bits<unsigned char>());
    } else if constexpr (vector_bytes == 32 && sizeof(T) == 4) {
      typedef int Mask __attribute__((vector_size(vector_bytes)));
      return __builtin_ia32_maskloadps256(reinterpret_cast<const Vector<T>*>(p), mask<Mask>());
    } else if constexpr (vector_bytes == 32) {
      typedef long long Mask __attribute__((vector_size(vector_bytes)));
      return __builtin_ia32_maskloadpd256(reinterpret_cast<const Vector<T>*>(p), mask<Mask>());
    } else {
      T part[lanes<T>] = {};
      for (Index i = 0; i < live_; ++i) part[i] = p[i];
      return load(part);
    }
  }
  [[gnu::always_inline]] void write(T* p, const Vector<T>& v) const {
    if (live_ == lanes<T> / 2) {  // what is read next may stand behind
      std::memcpy(p, &v, sizeof v / 2);
    } else if constexpr (vector_bytes == 64 && sizeof(T) == 4) {
      __builtin_ia32_storeups512_mask(p, v, bits<unsigned short>());
    } else if constexpr (vector_bytes == 64) {
      __builtin_ia32_storeupd512_mask(p, v, bits<unsigned char>());
    } else {  // masked stores of AVX2 take long on some processors
      T part[lanes<T>];
      store(part, v);
      write_pieces<lanes<T> / 2>(p, part);
    }
  }

 private:
  template <std::size_t... i>
  [[gnu::always_inline]] static Vector<T> widen(const T* p, std::index_sequence<i...>) {
    Half<T> half;
    std::memcpy(&half, p, sizeof half);
    return __builtin_shufflevector(half, Half<T>{}, i...);
  }
  template <class Bits>
  [[gnu::always_inline]] Bits bits() const {
    return Bits((1u << live_) - 1);
  }
  template <class Mask>
  [[gnu::always_inline]] Mask mask() const {
    static constexpr T numbers[] = {0, 1, 2, 3, 4, 5, 6, 7};
    return reinterpret_cast<Mask>(load(numbers) < all(T(live_)));
  }
  template <Index size>
  [[gnu::always_inline]] void write_pieces(T* to, const T* from) const {
    const Index here = live_ & size;
    if (here) std::memcpy(to, from, std::size_t(size) * sizeof(T));
    if constexpr (size > 1) write_pieces<size / 2>(to + here, from + here);
  }

  Index live_;
};

// A few numbers.
template <class T>
[[gnu::always_inline]] inline void copy(const T* from, Index count, T* to) {
  for (; count >= lanes<T>; count -= lanes<T>, from += lanes<T>, to += lanes<T>)
    store(to, load(from));
  if (const Part<T> rest(count); rest) rest.write(to, rest.read(from));
}

// Copies numbers past the caches, all but the ends, which share their lines with others;
// `finish_stores` before another thread may look.
template <class T>
void put_past(const T* from, Index count, T* to) {
  constexpr Index L = lanes<T>;
  const Index off = Index(reinterpret_cast<std::uintptr_t>(to) / sizeof(T)) % L;
  const Index before = std::min(count, (L - off) % L);
  copy(from, before, to);
  Index i = before;
  for (; i + L <= count; i += L) store_past_caches(to + i, load(from + i));
  copy(from + i, count - i, to + i);
}

// How rows are written: to the caches, or past them to memory (see store_past_caches).
enum class Put { cached, past };
template <Put put, class T>
[[gnu::always_inline]] inline void store_as(T* p, const Vector<T>& v) {
  if constexpr (put == Put::past)
    store_past_caches(p, v);
  else
    store(p, v);
}

// Whether a map is written past the caches: it has the bytes to fill them, and its rows are whole
// vectors.
template <class T>
bool is_put_past(const T* to, const Grid& grid, Index least = Index(16) << 20) {
  return grid.size() * Index(sizeof(T)) >= least && grid.channels % lanes<T> == 0 &&
         reinterpret_cast<std::uintptr_t>(to) % vector_bytes == 0;
}

// a * b + c, rounded once.
template <class T>
[[gnu::always_inline]] inline T fused(T a, T b, T c) {
  if constexpr (sizeof(T) == 4)
    return __builtin_fmaf(a, b, c);
  else
    return __builtin_fma(a, b, c);
}
template <class T, class V>
[[gnu::always_inline]] inline V fused_vectors(const V& a, const V& b, const V& c) {
  if constexpr (has_fma && sizeof(V) == 64 && sizeof(T) == 4) {
    return __builtin_ia32_vfmaddps512_mask(a, b, c, static_cast<unsigned short>(-1), 4);
  } else if constexpr (has_fma && sizeof(V) == 64) {
    return __builtin_ia32_vfmaddpd512_mask(a, b, c, static_cast<unsigned char>(-1), 4);
  } else if constexpr (has_fma && sizeof(V) == 32 && sizeof(T) == 4) {
    return __builtin_ia32_vfmaddps256(a, b, c);
  } else if constexpr (has_fma && sizeof(V) == 32) {
    return __builtin_ia32_vfmaddpd256(a, b, c);
  } else {
    V v = c;
    for (int i = 0; i < int(sizeof(V) / sizeof(T)); ++i) v[i] = fused<T>(a[i], b[i], c[i]);
    return v;
  }
}
template <class T>
[[gnu::always_inline]] inline Vector<T> fused(const Vector<T>& a, const Vector<T>& b,
                                              const Vector<T>& c) {
  return fused_vectors<T, Vector<T>>(a, b, c);
}

// Adds a * b to a sum: rounded once where the set can, twice where that would be a library call.
template <class T>
[[gnu::always_inline]] inline Vector<T> accumulate(const Vector<T>& a, const Vector<T>& b,
                                                   const Vector<T>& c) {
  if constexpr (has_fma)
    return fused<T>(a, b, c);
  else
    return a * b + c;
}

// A vector of doubles from as many numbers.
[[gnu::always_inline]] inline Vector<double> widened(const double* p) { return load(p); }
[[gnu::always_inline]] inline Vector<double> widened(const float* p) {
  Half<float> v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, Vector<double>);
}

// Half 0 or 1 of a vector, its numbers as doubles; of doubles all are half 0.
template <class T, std::size_t which, std::size_t... i>
[[gnu::always_inline]] inline Half<T> pick(const Vector<T>& x, std::index_sequence<i...>) {
  return __builtin_shufflevector(x, x, (which * sizeof...(i) + i)...);
}
template <std::size_t which, class T>
[[gnu::always_inline]] inline Vector<double> half_of(const Vector<T>& x) {
  if constexpr (sizeof(T) < sizeof(double))
    return __builtin_convertvector(
        pick<T, which>(x, std::make_index_sequence<std::size_t(lanes<double>)>{}), Vector<double>);
  else
    return x;
}

// Sums in double, one to each number of a vector of T. Two named halves: g++ keeps no array that a
// loop runs over in registers.
template <class T>
class DoubleSum {
 public:
  [[gnu::always_inline]] explicit DoubleSum(const double* p) : low_(load(p)), high_{} {
    if constexpr (two) high_ = load(p + lanes<double>);
  }
  [[gnu::always_inline]] void put(double* p) const {
    store(p, low_);
    if constexpr (two) store(p + lanes<double>, high_);
  }
  [[gnu::always_inline]] void add(const Vector<T>& x) {
    low_ = low_ + half_of<0, T>(x);
    if constexpr (two) high_ = high_ + half_of<1, T>(x);
  }
  [[gnu::always_inline]] void add_product(const Vector<T>& x, const Vector<T>& y) {
    low_ = accumulate<double>(half_of<0, T>(x), half_of<0, T>(y), low_);
    if constexpr (two) high_ = accumulate<double>(half_of<1, T>(x), half_of<1, T>(y), high_);
  }

 private:
  static constexpr bool two = sizeof(T) < sizeof(double);

  Vector<double> low_, high_;
};

// A square of numbers turned over its diagonal, log2 steps of pairs of rows: in step s, rows i and
// i + s exchange the numbers whose places differ in that bit.
template <class T, int s, int... j>
[[gnu::always_inline]] inline void exchange(Vector<T>& a, Vector<T>& b,
                                            std::integer_sequence<int, j...>) {
  constexpr int L = int(lanes<T>);
  const Vector<T> low = __builtin_shufflevector(a, b, (j & s ? L + j - s : j)...);
  b = __builtin_shufflevector(a, b, (j & s ? L + j : j + s)...);
  a = low;
}
template <class T, int s, std::size_t... i>
[[gnu::always_inline]] inline void exchange_rows(Vector<T>* row, std::index_sequence<i...>) {
  (exchange<T, s>(row[i / s * 2 * s + i % s], row[i / s * 2 * s + i % s + s],
                  std::make_integer_sequence<int, int(lanes<T>)>{}),
   ...);
}
template <class T, std::size_t... i>
[[gnu::always_inline]] inline void transpose(const T* from, Index from_step, T* to, Index to_step,
                                             std::index_sequence<i...>) {
  using Half = std::make_index_sequence<sizeof...(i) / 2>;
  Vector<T> row[] = {load(from + Index(i) * from_step)...};
  if constexpr (lanes < T >> 1) exchange_rows<T, 1>(row, Half{});
  if constexpr (lanes < T >> 2) exchange_rows<T, 2>(row, Half{});
  if constexpr (lanes < T >> 4) exchange_rows<T, 4>(row, Half{});
  if constexpr (lanes < T >> 8) exchange_rows<T, 8>(row, Half{});
  (store(to + Index(i) * to_step, row[i]), ...);
}
// to[i * to_step + j] = from[j * from_step + i], for as many of each as a vector holds.
template <class T>
[[gnu::noinline]] void transpose(const T* from, Index from_step, T* to, Index to_step) {
  transpose(from, from_step, to, to_step, std::make_index_sequence<std::size_t(lanes<T>)>{});
}

}  // namespace segmed::SEGMED_SET
