// SPDX-License-Identifier: Apache-2.0
// Between rows of channels, as maps lie in memory, and columns of voxels, as losses read them. Read
// once per instruction set: see simd.hpp.
#include <segmed/backend/kernels/rows.hpp>

namespace segmed::SEGMED_SET {

// Fours of numbers from places `step` apart, as one vector.
template <int bytes>
struct Apart {
  typedef float V __attribute__((vector_size(bytes)));
  static constexpr int half = bytes / 8;  // of its numbers
  using Half = typename Apart<bytes / 2>::V;

  [[gnu::always_inline]] static V read(const float* p, Index step) {
    return joined(Apart<bytes / 2>::read(p, step),
                  Apart<bytes / 2>::read(p + half / 4 * step, step),
                  std::make_integer_sequence<int, 2 * half>{});
  }

 private:
  template <int... i>
  [[gnu::always_inline]] static V joined(const Half& a, const Half& b,
                                         std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(a, b, i...);
  }
};
template <>
struct Apart<16> {
  typedef float V __attribute__((vector_size(16)));
  [[gnu::always_inline]] static V read(const float* p, Index) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
};

// Four channels of as many voxels as a vector holds. Quarters of a vector are fours of
// voxels, so that turning rows to columns moves nothing from one quarter to another. Four named
// vectors: g++ keeps no array that a loop runs over in registers.
struct Fours {
  using V = Vector<float>;
  V a, b, c, d;

  // Voxel 4 q + k of the rows is quarter q of vector k.
  [[gnu::always_inline]] void read_rows(const float* row, Index step) {
    a = Apart<vector_bytes>::read(row, 4 * step);
    b = Apart<vector_bytes>::read(row + step, 4 * step);
    c = Apart<vector_bytes>::read(row + 2 * step, 4 * step);
    d = Apart<vector_bytes>::read(row + 3 * step, 4 * step);
  }
  // In the order of memory: see to_rows.
  [[gnu::always_inline]] void write_rows(float* row, Index step) const {
    write_rows(row, step, std::make_integer_sequence<int, vector_bytes / 16>{});
  }
  // The first `live` columns.
  template <int live>
  [[gnu::always_inline]] void read_columns(const float* from, Index step) {
    a = load(from);
    b = live > 1 ? load(from + step) : a;
    c = live > 2 ? load(from + 2 * step) : a;
    d = live > 3 ? load(from + 3 * step) : a;
  }
  template <int live>
  [[gnu::always_inline]] void write_columns(float* to, Index step) const {
    store(to, a);
    if constexpr (live > 1) store(to + step, b);
    if constexpr (live > 2) store(to + 2 * step, c);
    if constexpr (live > 3) store(to + 3 * step, d);
  }
  [[gnu::always_inline]] void turn() { turn(std::make_integer_sequence<int, int(lanes<float>)>{}); }

 private:
  template <int... q>
  [[gnu::always_inline]] void write_rows(float* row, Index step,
                                         std::integer_sequence<int, q...>) const {
    ((write_quarter<q>(row + 4 * q * step, a), write_quarter<q>(row + (4 * q + 1) * step, b),
      write_quarter<q>(row + (4 * q + 2) * step, c), write_quarter<q>(row + (4 * q + 3) * step, d)),
     ...);
  }
  template <int q>
  [[gnu::always_inline]] static void write_quarter(float* to, const V& v) {
    const auto quarter = __builtin_shufflevector(v, v, 4 * q, 4 * q + 1, 4 * q + 2, 4 * q + 3);
    std::memcpy(to, &quarter, sizeof quarter);
  }
  // The member of two vectors that stands at i when their quarters are joined by pairs.
  static constexpr int joined(int i, bool high) {
    return i / 4 * 4 + (high ? 2 : 0) + i % 4 / 2 + (i % 2 == 0 ? 0 : int(lanes<float>));
  }
  static constexpr int halves(int i, bool high) {
    return i / 4 * 4 + (high ? 2 : 0) + i % 2 + (i % 4 < 2 ? 0 : int(lanes<float>));
  }
  template <int... i>
  [[gnu::always_inline]] void turn(std::integer_sequence<int, i...>) {
    const V e = __builtin_shufflevector(a, b, joined(i, false)...),
            f = __builtin_shufflevector(a, b, joined(i, true)...),
            g = __builtin_shufflevector(c, d, joined(i, false)...),
            h = __builtin_shufflevector(c, d, joined(i, true)...);
    a = __builtin_shufflevector(e, g, halves(i, false)...);
    b = __builtin_shufflevector(e, g, halves(i, true)...);
    c = __builtin_shufflevector(f, h, halves(i, false)...);
    d = __builtin_shufflevector(f, h, halves(i, true)...);
  }
};

// As many vectors of rows as there are channels, which are few, hold as many voxels as a vector of
// a column: each column is picked from all of them, each vector of rows from all columns.
template <int channels>
struct Few {
  using V = Vector<float>;
  static constexpr int L = int(lanes<float>);

  [[gnu::always_inline]] static void to_columns(const float* rows, float* columns, Index step) {
    const V a = load(rows), b = load(rows + L), c = channels > 2 ? load(rows + 2 * L) : a,
            d = channels > 3 ? load(rows + 3 * L) : a;
    store(columns, column<0>(a, b, c, d, Each{}));
    store(columns + step, column<1>(a, b, c, d, Each{}));
    if constexpr (channels > 2) store(columns + 2 * step, column<2>(a, b, c, d, Each{}));
    if constexpr (channels > 3) store(columns + 3 * step, column<3>(a, b, c, d, Each{}));
  }
  [[gnu::always_inline]] static void to_rows(const float* columns, Index step, float* rows) {
    const V a = load(columns), b = load(columns + step),
            c = channels > 2 ? load(columns + 2 * step) : a,
            d = channels > 3 ? load(columns + 3 * step) : a;
    store(rows, row<0>(a, b, c, d, Each{}));
    store(rows + L, row<1>(a, b, c, d, Each{}));
    if constexpr (channels > 2) store(rows + 2 * L, row<2>(a, b, c, d, Each{}));
    if constexpr (channels > 3) store(rows + 3 * L, row<3>(a, b, c, d, Each{}));
  }

 private:
  using Each = std::make_integer_sequence<int, L>;

  // Where number i of column c stands: in the first two vectors, or in vector k.
  static constexpr int in_rows(int i, int c, int k) {
    const int at = i * channels + c;
    return k == 0 ? (at < 2 * L ? at : 0) : at / L == k ? L + at % L : i;
  }
  template <int c, int... i>
  [[gnu::always_inline]] static V column(const V& x, const V& y, const V& z, const V& w,
                                         std::integer_sequence<int, i...>) {
    V v = __builtin_shufflevector(x, y, in_rows(i, c, 0)...);
    if constexpr (channels > 2) v = __builtin_shufflevector(v, z, in_rows(i, c, 2)...);
    if constexpr (channels > 3) v = __builtin_shufflevector(v, w, in_rows(i, c, 3)...);
    return v;
  }
  // The same of number i of vector r of the rows.
  static constexpr int in_columns(int i, int r, int k) {
    const int at = r * L + i, c = at % channels, voxel = at / channels;
    return k == 0 ? (c < 2 ? c * L + voxel : 0) : c == k ? L + voxel : i;
  }
  template <int r, int... i>
  [[gnu::always_inline]] static V row(const V& x, const V& y, const V& z, const V& w,
                                      std::integer_sequence<int, i...>) {
    V v = __builtin_shufflevector(x, y, in_columns(i, r, 0)...);
    if constexpr (channels > 2) v = __builtin_shufflevector(v, z, in_columns(i, r, 2)...);
    if constexpr (channels > 3) v = __builtin_shufflevector(v, w, in_columns(i, r, 3)...);
    return v;
  }
};
// Where two vectors are picked from in one instruction.
inline constexpr bool picks_freely = vector_bytes == 64;

// How many voxels from the first on may be moved as fours of channels without touching what lies
// behind the last.
inline Index voxels_by_fours(Index voxels, Index channels) {
  const Index behind = channels < 4 ? pieces(4 - channels, channels) : 0;
  return std::max<Index>(0, voxels - behind) / lanes<float> * lanes<float>;
}
template <int channels>
void few_to_columns(const float* rows, Index voxels, float* columns, Index step) {
  for (Index v = 0; v < voxels; v += lanes<float>)
    Few<channels>::to_columns(rows + v * channels, columns + v, step);
}
template <int channels>
void few_to_rows(const float* columns, Index step, Index voxels, float* rows) {
  for (Index v = 0; v < voxels; v += lanes<float>)
    Few<channels>::to_rows(columns + v, step, rows + v * channels);
}
// `live` channels, down all voxels.
template <int live>
void fours_to_columns(const float* rows, Index voxels, Index channels, float* columns, Index step) {
  for (Index v = 0; v < voxels; v += lanes<float>) {
    Fours fours;
    fours.read_rows(rows + v * channels, channels);
    fours.turn();
    fours.write_columns<live>(columns + v, step);
  }
}
template <int live>
void fours_to_rows(const float* columns, Index step, Index voxels, Index channels, float* rows) {
  for (Index v = 0; v < voxels; v += lanes<float>) {
    Fours fours;
    fours.read_columns<live>(columns + v, step);
    fours.turn();
    fours.write_rows(rows + v * channels, channels);
  }
}

// Columns of `step` numbers, a channel each, from rows.
template <class T>
void to_columns(const T* rows, Index voxels, Index channels, T* columns, Index step) {
  Index done = 0;
  if constexpr (sizeof(T) == 4) {
    const Index whole = voxels / lanes<T> * lanes<T>;
    done = voxels_by_fours(voxels, channels);
    if (picks_freely && channels == 2)
      few_to_columns<2>(rows, done = whole, columns, step);
    else if (picks_freely && channels == 3)
      few_to_columns<3>(rows, done = whole, columns, step);
    else if (channels == 3)
      fours_to_columns<3>(rows, done, channels, columns, step);
    else if (channels == 2)
      fours_to_columns<2>(rows, done, channels, columns, step);
    else if (channels == 1)
      fours_to_columns<1>(rows, done, channels, columns, step);
    else
      for (Index next = 0; next < channels; next += 4) {
        const Index c = std::min(next, channels - 4);  // the last four overlap the ones before
        fours_to_columns<4>(rows + c, done, channels, columns + c * step, step);
      }
  }
  for (Index v = done; v < voxels; ++v)
    for (Index c = 0; c < channels; ++c) columns[c * step + v] = rows[v * channels + c];
}
// Rows from columns. Fours of fewer than four channels reach into the next row, which is written
// after them.
template <class T>
void to_rows(const T* columns, Index step, Index voxels, Index channels, T* rows) {
  Index done = 0;
  if constexpr (sizeof(T) == 4) {
    const Index whole = voxels / lanes<T> * lanes<T>;
    done = voxels_by_fours(voxels, channels);
    if (picks_freely && channels == 2)
      few_to_rows<2>(columns, step, done = whole, rows);
    else if (picks_freely && channels == 3)
      few_to_rows<3>(columns, step, done = whole, rows);
    else if (channels == 3)
      fours_to_rows<3>(columns, step, done, channels, rows);
    else if (channels == 2)
      fours_to_rows<2>(columns, step, done, channels, rows);
    else if (channels == 1)
      fours_to_rows<1>(columns, step, done, channels, rows);
    else
      for (Index next = 0; next < channels; next += 4) {
        const Index c = std::min(next, channels - 4);
        fours_to_rows<4>(columns + c * step, step, done, channels, rows + c);
      }
  }
  for (Index v = done; v < voxels; ++v)
    for (Index c = 0; c < channels; ++c) rows[v * channels + c] = columns[c * step + v];
}

}  // namespace segmed::SEGMED_SET
