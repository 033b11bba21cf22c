// SPDX-License-Identifier: Apache-2.0
// Winograd's minimal filtering F(m, 3) along one axis, for m = 2 and 4 outputs from m + 2 inputs,
// and a plain copy for axes without a kernel (m = 1). Interpolation points 0, 1, -1, (2, -2,) and
// infinity. Read once per instruction set: see simd.hpp.
//
//   source   Winograd, Arithmetic complexity of computations, 1980; Lavin & Gray, Fast algorithms
//            for convolutional neural networks, 2016, arXiv:1509.09308, section 4, nested over
//            three axes
#include <segmed/backend/kernels/depthwise.hpp>

namespace segmed::SEGMED_SET {

// What a transform takes to what: inputs to frequencies, frequencies to outputs and its adjoint,
// weights to frequencies and its adjoint.
enum class Turn { input, output, output_adjoint, weights, weights_adjoint };

inline Index taps_of(Index m) { return m == 1 ? 1 : 3; }
inline Index reach_of(Index m) { return m + taps_of(m) - 1; }
inline Index before(Turn turn, Index m) {
  if (turn == Turn::output_adjoint) return m;
  return turn == Turn::weights ? taps_of(m) : reach_of(m);
}
inline Index after(Turn turn, Index m) {
  if (turn == Turn::output) return m;
  return turn == Turn::weights_adjoint ? taps_of(m) : reach_of(m);
}

// One line: vectors s apart at x to vectors r apart at y, which do not overlap. Names, not arrays,
// keep them in registers.
template <class T, int m, Turn turn>
[[gnu::always_inline]] inline void turn_line(const T* x, Index s, T* y, Index r) {
  using V = Vector<T>;
  if constexpr (m == 1) {
    store(y, load(x));
  } else if constexpr (m == 2 && turn == Turn::input) {
    const V x0 = load(x), x1 = load(x + s), x2 = load(x + 2 * s), x3 = load(x + 3 * s);
    store(y, x0 - x2), store(y + r, x1 + x2), store(y + 2 * r, x2 - x1), store(y + 3 * r, x1 - x3);
  } else if constexpr (m == 2 && turn == Turn::output) {
    const V x1 = load(x + s), x2 = load(x + 2 * s);
    store(y, load(x) + (x1 + x2)), store(y + r, (x1 - x2) - load(x + 3 * s));
  } else if constexpr (m == 2 && turn == Turn::output_adjoint) {
    const V x0 = load(x), x1 = load(x + s);
    store(y, x0), store(y + r, x0 + x1), store(y + 2 * r, x0 - x1), store(y + 3 * r, -x1);
  } else if constexpr (m == 2 && turn == Turn::weights) {
    const V x0 = load(x), x1 = load(x + s), x2 = load(x + 2 * s), half = all<T>(T(0.5));
    const V even = (x0 + x2) * half, odd = x1 * half;
    store(y, x0), store(y + r, even + odd), store(y + 2 * r, even - odd), store(y + 3 * r, x2);
  } else if constexpr (m == 2 && turn == Turn::weights_adjoint) {
    const V x1 = load(x + s), x2 = load(x + 2 * s), half = all<T>(T(0.5));
    const V even = (x1 + x2) * half, odd = (x1 - x2) * half;
    store(y, load(x) + even), store(y + r, odd), store(y + 2 * r, even + load(x + 3 * s));
  } else if constexpr (turn == Turn::input) {
    const V x1 = load(x + s), x2 = load(x + 2 * s), x3 = load(x + 3 * s), x4 = load(x + 4 * s);
    const V four = all<T>(T(4)), five = all<T>(T(-5)), two = all<T>(T(2));
    const V a = accumulate<T>(-four, x2, x4), b = accumulate<T>(-four, x1, x3);
    const V c = x4 - x2, d = (x3 - x1) * two;
    const V first = accumulate<T>(four, load(x), accumulate<T>(five, x2, x4));
    const V last = accumulate<T>(four, x1, accumulate<T>(five, x3, load(x + 5 * s)));
    store(y, first), store(y + r, a + b), store(y + 2 * r, a - b);
    store(y + 3 * r, c + d), store(y + 4 * r, c - d), store(y + 5 * r, last);
  } else if constexpr (turn == Turn::output) {
    const V x1 = load(x + s), x2 = load(x + 2 * s), x3 = load(x + 3 * s), x4 = load(x + 4 * s);
    const V s1 = x1 + x2, d1 = x1 - x2, s2 = x3 + x4, d2 = x3 - x4;
    const V first = load(x) + (s1 + s2), last = load(x + 5 * s);
    store(y, first), store(y + r, accumulate<T>(all<T>(T(2)), d2, d1));
    store(y + 2 * r, accumulate<T>(all<T>(T(4)), s2, s1));
    store(y + 3 * r, accumulate<T>(all<T>(T(8)), d2, d1) + last);
  } else if constexpr (turn == Turn::output_adjoint) {
    const V x0 = load(x), x1 = load(x + s), x2 = load(x + 2 * s), x3 = load(x + 3 * s);
    const V four = all<T>(T(4)), even = x0 + x2, odd = x1 + x3;
    const V even2 = accumulate<T>(four, x2, x0);
    const V odd2 = accumulate<T>(four, x3, x1) * all<T>(T(2));
    store(y, x0), store(y + r, even + odd), store(y + 2 * r, even - odd);
    store(y + 3 * r, even2 + odd2), store(y + 4 * r, even2 - odd2), store(y + 5 * r, x3);
  } else if constexpr (turn == Turn::weights) {
    const V x0 = load(x), x1 = load(x + s), x2 = load(x + 2 * s);
    const V sixth = all<T>(T(1) / T(6)), even = (x0 + x2) * -sixth, odd = x1 * sixth;
    const V even2 = accumulate<T>(sixth, x2, x0 * all<T>(T(1) / T(24)));
    const V odd2 = x1 * all<T>(T(1) / T(12));
    store(y, x0 * all<T>(T(0.25))), store(y + r, even - odd), store(y + 2 * r, even + odd);
    store(y + 3 * r, even2 + odd2), store(y + 4 * r, even2 - odd2), store(y + 5 * r, x2);
  } else {
    const V x1 = load(x + s), x2 = load(x + 2 * s), x3 = load(x + 3 * s), x4 = load(x + 4 * s);
    const V sixth = all<T>(T(1) / T(6)), near = (x1 + x2) * -sixth, far = x3 + x4;
    const V first =
        accumulate<T>(all<T>(T(0.25)), load(x), accumulate<T>(all<T>(T(1) / T(24)), far, near));
    const V middle = accumulate<T>(all<T>(T(1) / T(12)), x3 - x4, (x2 - x1) * sixth);
    const V last = accumulate<T>(sixth, far, near) + load(x + 5 * s);
    store(y, first), store(y + r, middle), store(y + 2 * r, last);
  }
}

// `count` lines; the next line starts x_next and y_next further.
template <class T>
using TurnLines = void (*)(const T* x, Index s, Index x_next, T* y, Index r, Index y_next,
                           Index count);
template <class T, int m, Turn turn>
void turn_lines(const T* x, Index s, Index x_next, T* y, Index r, Index y_next, Index count) {
  for (; count > 0; --count, x += x_next, y += y_next) turn_line<T, m, turn>(x, s, y, r);
}
template <class T, Turn turn>
TurnLines<T> lines_of(Index m) {
  if (m == 4) return turn_lines<T, 4, turn>;
  return m == 2 ? turn_lines<T, 2, turn> : turn_lines<T, 1, turn>;
}

// A slice of vectors turned along width and height.
template <class T, Turn turn>
class TurnPlane {
 public:
  explicit TurnPlane(const Index (&m)[3])
      : along_height_(lines_of<T, turn>(m[1])),
        along_width_(lines_of<T, turn>(m[2])),
        rows_(before(turn, m[1])),
        columns_(after(turn, m[2])),
        count_(after(turn, m[1]) * columns_) {}
  // How many vectors come out.
  Index count() const { return count_; }
  // From vectors at x, x_row and x_step apart, to vectors y_step apart at y.
  void operator()(const T* x, Index x_row, Index x_step, T* y, Index y_step) const {
    constexpr Index L = lanes<T>;
    alignas(vector_bytes) T rows[6 * 6 * L];
    along_width_(x, x_step, x_row, rows, L, columns_ * L, rows_);
    along_height_(rows, columns_ * L, L, y, columns_ * y_step, y_step, columns_);
  }

 private:
  TurnLines<T> along_height_, along_width_;
  Index rows_, columns_, count_;
};

}  // namespace segmed::SEGMED_SET
