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
// voxels, so that turning rows to columns moves nothing from one quarter to another.
struct Fours {
  using V = Vector<float>;
  V of[4];

  // Voxel 4 q + k of the rows is quarter q of of[k].
  [[gnu::always_inline]] void read_rows(const float* row, Index step) {
    for (Index k = 0; k < 4; ++k) of[k] = Apart<vector_bytes>::read(row + k * step, 4 * step);
  }
  // In the order of memory: see to_rows.
  [[gnu::always_inline]] void write_rows(float* row, Index step) const {
    write_rows(row, step, std::make_integer_sequence<int, vector_bytes / 16>{});
  }
  [[gnu::always_inline]] void turn() { turn(std::make_integer_sequence<int, int(lanes<float>)>{}); }

 private:
  template <int... q>
  [[gnu::always_inline]] void write_rows(float* row, Index step,
                                         std::integer_sequence<int, q...>) const {
    (write_quarter<q>(row + 4 * q * step, step), ...);
  }
  template <int q>
  [[gnu::always_inline]] void write_quarter(float* row, Index step) const {
    for (Index k = 0; k < 4; ++k) {
      const auto quarter =
          __builtin_shufflevector(of[k], of[k], 4 * q, 4 * q + 1, 4 * q + 2, 4 * q + 3);
      std::memcpy(row + k * step, &quarter, sizeof quarter);
    }
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
    const V a = __builtin_shufflevector(of[0], of[1], joined(i, false)...),
            b = __builtin_shufflevector(of[0], of[1], joined(i, true)...),
            c = __builtin_shufflevector(of[2], of[3], joined(i, false)...),
            d = __builtin_shufflevector(of[2], of[3], joined(i, true)...);
    of[0] = __builtin_shufflevector(a, c, halves(i, false)...);
    of[1] = __builtin_shufflevector(a, c, halves(i, true)...);
    of[2] = __builtin_shufflevector(b, d, halves(i, false)...);
    of[3] = __builtin_shufflevector(b, d, halves(i, true)...);
  }
};

// How many voxels from the first on may be moved as fours of channels without touching what lies
// behind the last.
inline Index voxels_by_fours(Index voxels, Index channels) {
  const Index behind = channels < 4 ? pieces(4 - channels, channels) : 0;
  return std::max<Index>(0, voxels - behind) / lanes<float> * lanes<float>;
}

// Columns of `step` numbers, a channel each, from rows.
template <class T>
void to_columns(const T* rows, Index voxels, Index channels, T* columns, Index step) {
  Index done = 0;
  if constexpr (sizeof(T) == 4) {
    done = voxels_by_fours(voxels, channels);
    for (Index v = 0; v < done; v += lanes<T>)
      for (Index next = 0; next < channels; next += 4) {
        // The last four overlap the ones before.
        const Index c = std::max<Index>(0, std::min(next, channels - 4));
        Fours fours;
        fours.read_rows(rows + v * channels + c, channels);
        fours.turn();
        float* to = columns + c * step + v;
        store(to, fours.of[0]);  // no loop of unknown length: it would keep them in memory
        if (channels > 1) store(to + step, fours.of[1]);
        if (channels > 2) store(to + 2 * step, fours.of[2]);
        if (channels > 3) store(to + 3 * step, fours.of[3]);
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
    done = voxels_by_fours(voxels, channels);
    for (Index v = 0; v < done; v += lanes<T>)
      for (Index next = 0; next < channels; next += 4) {
        const Index c = std::max<Index>(0, std::min(next, channels - 4));
        Fours fours;
        for (Index k = 0; k < 4; ++k)
          fours.of[k] = load(columns + std::min(c + k, channels - 1) * step + v);
        fours.turn();
        fours.write_rows(rows + v * channels + c, channels);
      }
  }
  for (Index v = done; v < voxels; ++v)
    for (Index c = 0; c < channels; ++c) rows[v * channels + c] = columns[c * step + v];
}

}  // namespace segmed::SEGMED_SET
