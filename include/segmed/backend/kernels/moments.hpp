// SPDX-License-Identifier: Apache-2.0
// Sums of numbers and of their squares over voxels. Read once per instruction set: see simd.hpp.
#include <segmed/backend/kernels/micro.hpp>

namespace segmed::SEGMED_SET {

// Voxels whose numbers T itself adds up before the sum goes on in double: so a sum costs little
// more than one operation a number. A power of two, so that `run_length` times a number is exact.
inline constexpr Index run_length = 16;

// Sums of x and x^2 over a run, as distances from its first number: nothing is lost where numbers
// are large beside their spread.
template <class T>
struct MomentsOfRun {
  Vector<T> first, near{}, near_squares{};

  [[gnu::always_inline]] void add(const Vector<T>& x) {
    const Vector<T> d = x - first;
    near = near + d, near_squares = accumulate<T>(d, d, near_squares);
  }
  // `count` numbers have been added, the first among them or not.
  [[gnu::always_inline]] void put(double* sums, double* squares, Index count = run_length) const {
    put_half<0>(sums, squares, count);
    if constexpr (sizeof(T) < sizeof(double))
      put_half<1>(sums + lanes<double>, squares + lanes<double>, count);
  }

 private:
  template <std::size_t half>
  [[gnu::always_inline]] void put_half(double* sums, double* squares, Index count) const {
    const Vector<double> from = half_of<half, T>(first), off = half_of<half, T>(near);
    const Vector<double> total = accumulate<double>(from, all<double>(double(count)), off);
    store(sums, load(sums) + total);
    store(squares,
          accumulate<double>(from, off + total, load(squares) + half_of<half, T>(near_squares)));
  }
};

// Of one vector or two of neighbours, in long runs: what has been added last is put when it is
// done.
template <class T, int vectors>
class MomentsOfRow {
 public:
  MomentsOfRow(double* sums, double* squares) : sums_(sums), squares_(squares) {}
  void add(const T* x, Index step, Index voxels) {
    if (count_ == 0) a_ = {load(x)}, b_ = {load(x + second)};
    MomentsOfRun<T> a = a_, b = b_;
    for (Index v = 0; v < voxels; ++v, x += step) {
      a.add(load(x));
      if constexpr (vectors == 2) b.add(load(x + second));
    }
    a_ = a, b_ = b, count_ += voxels;
    put_long();
  }
  // Rows in registers, one behind the other; `put_long` afterwards.
  template <std::size_t... k>
  [[gnu::always_inline]] void add(const Vector<T>* x, std::index_sequence<k...>) {
    if (count_ == 0) a_ = {x[0]}, b_ = {x[vectors - 1]};
    MomentsOfRun<T> a = a_, b = b_;
    ((k % vectors == 0 ? a.add(x[k]) : b.add(x[k])), ...);
    a_ = a, b_ = b, count_ += Index(sizeof...(k)) / vectors;
  }
  void put_long(Index most = 96) {
    if (count_ >= most) put();
  }
  void put() {
    if (count_ == 0) return;
    a_.put(sums_, squares_, count_);
    if constexpr (vectors == 2) b_.put(sums_ + second, squares_ + second, count_);
    count_ = 0;
  }

 private:
  static constexpr Index second = vectors == 2 ? lanes<T> : 0;

  MomentsOfRun<T> a_{}, b_{};
  double *sums_, *squares_;
  Index count_ = 0;
};

// Of one vector, a run.
template <class T, class Access>
[[gnu::always_inline]] inline void add_run(const T* x, Index step, double* sums, double* squares,
                                           const Access& at) {
  MomentsOfRun<T> one{at.read(x)};
  for (Index i = 1; i < run_length; ++i) one.add(at.read(x + i * step));
  one.put(sums, squares);
}

// Adds x and x^2 of `count` channels to sums and squares, which have room for whole vectors, run by
// run.
template <class T>
void add_moments(const T* x, Index step, Index voxels, Index count, double* sums, double* squares) {
  constexpr Index wide = 4 * lanes<T>;  // four sums do not wait for each other
  const Index whole = voxels / run_length * run_length, in_vectors = count / lanes<T> * lanes<T>;
  const Part<T> rest(count - in_vectors);
  for (Index v = 0; v < whole; v += run_length) {
    const T* const begin = x + v * step;
    Index c = 0;
    for (; c + wide <= count; c += wide) {
      const T* from = begin + c;
      MomentsOfRun<T> a{load(from)}, b{load(from + lanes<T>)}, d{load(from + 2 * lanes<T>)},
          e{load(from + 3 * lanes<T>)};
      for (Index i = 1; i < run_length; ++i) {
        from += step;
        a.add(load(from)), b.add(load(from + lanes<T>));
        d.add(load(from + 2 * lanes<T>)), e.add(load(from + 3 * lanes<T>));
      }
      a.put(sums + c, squares + c), b.put(sums + c + lanes<T>, squares + c + lanes<T>);
      d.put(sums + c + 2 * lanes<T>, squares + c + 2 * lanes<T>);
      e.put(sums + c + 3 * lanes<T>, squares + c + 3 * lanes<T>);
    }
    for (; c < in_vectors; c += lanes<T>)
      add_run(begin + c, step, sums + c, squares + c, Whole<T>());
    if (rest) add_run(begin + c, step, sums + c, squares + c, rest);
  }
  for (Index c = 0; c < count; ++c)
    for (Index v = whole; v < voxels; ++v) {
      const double d = double(x[v * step + c]);
      sums[c] += d, squares[c] = fused<double>(d, d, squares[c]);
    }
}

}  // namespace segmed::SEGMED_SET
