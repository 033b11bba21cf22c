// SPDX-License-Identifier: Apache-2.0
// Convolutions of one tap between some channels and few, such as a network's head: each voxel's row
// times a small matrix. Read once per instruction set: see simd.hpp.
//
// Next to nothing is computed, so rows are read where they lie, one after the other, and what has
// to be written goes by whole lines of the cache: few channels of a voxel are part of one.
#include <segmed/backend/kernels/convolve.hpp>

namespace segmed::SEGMED_SET {

// Between whole vectors of channels and at most so many.
template <class T>
inline constexpr Index most_few = 16;
template <class T>
bool is_few(Index many, Index few) {
  return sizeof(T) == 4 && vector_bytes > 16 && few <= most_few<T> && many <= Pending<T>::most &&
         many % lanes<T> == 0;
}
template <class T>
bool is_projection(const Window& w) {
  for (int a = 0; a < 3; ++a)
    if (w.kernel[a] != 1 || w.stride[a] != 1 || w.padding[a] != 0) return false;
  return w.groups == 1 && (is_few<T>(w.fine.channels, w.coarse.channels) ||
                           is_few<T>(w.coarse.channels, w.fine.channels));
}

// The voxels of all cases in pieces, which are cut at cases, and these in tasks.
struct Pieces {
  static constexpr Index size = 64, of_task = 16;
  Index cases, voxels;

  Index of_case() const { return pieces(voxels, size); }
  Index count() const { return cases * of_case(); }
  Index first(Index i) const { return i % of_case() * size; }
  Index length(Index i) const { return std::min(size, voxels - first(i)); }
};

// Rows of a feed one piece after the other: where they lie if nothing is pending, else in scratch.
template <class T>
class PieceRows {
 public:
  // `dense` are the feed's numbers, if they may be read where they lie, or null.
  PieceRows(const Feed<T>& feed, const Grid& grid, const T* dense)
      : feed_(feed), grid_(grid), dense_(dense) {}
  // `scratch` has room for a piece.
  const T* at(Index n, Index first, Index voxels, T* scratch) {
    if (dense_) return dense_ + (n * grid_.voxels() + first) * grid_.channels;
    FeedRows<T>(feed_, n, 0, grid_.channels).read(first, voxels, scratch, grid_.channels);
    return scratch;
  }

 private:
  const Feed<T>& feed_;
  const Grid& grid_;
  const T* dense_;
};

// ---- Many channels to few
//
// A number of the source is wanted in as many lanes as there are outputs, and to read it from
// memory for each is the most that such a product costs. So a vector of the source is spread by
// fours: all lanes of a quarter get number s of the quarter, for s = 0 to 3. Then quarter q sums
// what channels 4 q to 4 q + 3 give to four outputs, and in the end quarters are added.

template <int s, class T, int... i>
[[gnu::always_inline]] inline Vector<T> spread_number(const Vector<T>& v,
                                                      std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(v, v, (i / 4 * 4 + s)...);
}
template <class T, int s>
[[gnu::always_inline]] inline Vector<T> spread_number(const Vector<T>& v) {
  return spread_number<s, T>(v, std::make_integer_sequence<int, int(lanes<T>)>{});
}

// Half of the sums of quarters: of a and of b those of the low halves plus those of the high ones,
// side by side.
template <class T, int... i>
[[gnu::always_inline]] inline Vector<T> add_halves(const Vector<T>& a, const Vector<T>& b,
                                                   std::integer_sequence<int, i...>) {
  constexpr int half = int(lanes<T>) / 2;
  return __builtin_shufflevector(a, b, (i < half ? i : i + half)...) +
         __builtin_shufflevector(a, b, (i < half ? i + half : i + 2 * half)...);
}
template <class T>
[[gnu::always_inline]] inline Vector<T> add_halves(const Vector<T>& a, const Vector<T>& b) {
  return add_halves<T>(a, b, std::make_integer_sequence<int, int(lanes<T>)>{});
}
// Quarters 0, 2, 0', 2' plus 1, 3, 1', 3'.
template <class T, int... i>
[[gnu::always_inline]] inline Vector<T> add_odd_quarters(const Vector<T>& a, const Vector<T>& b,
                                                         std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(a, b, (i / 4 * 8 + i % 4)...) +
         __builtin_shufflevector(a, b, (i / 4 * 8 + 4 + i % 4)...);
}

// The sums of four vectors' quarters, side by side at `to`.
template <class T>
[[gnu::always_inline]] inline void put_sums(const Vector<T>& a, const Vector<T>& b,
                                            const Vector<T>& c, const Vector<T>& d, T* to) {
  if constexpr (lanes<T> == 16) {
    store(to, add_odd_quarters<T>(add_halves<T>(a, b), add_halves<T>(c, d),
                                  std::make_integer_sequence<int, 16>{}));
  } else {
    store(to, add_halves<T>(a, b));
    store(to + 8, add_halves<T>(c, d));
  }
}

// Kept in a register: where it is wanted several times, g++ reads memory anew for each.
template <class T>
[[gnu::always_inline]] inline Vector<T> held(Vector<T> v) {
  if constexpr (vector_bytes == 64)
    asm("" : "+v"(v));
  else if constexpr (vector_bytes == 32)
    asm("" : "+x"(v));
  return v;
}

// Voxels at once, as sums find room in registers: 16 of 32, or 8 of 16.
template <class T, int fours>
inline constexpr std::size_t voxels_at_once = lanes<T> == 16 || fours == 1 ? 4 : 2;

// Adds what number s of each quarter gives.
template <class T, int fours, int s, std::size_t... v, std::size_t... k, std::size_t... o>
[[gnu::always_inline]] inline void add_number(const Vector<T>* from, const T* w, Vector<T>* sum,
                                              std::index_sequence<v...>, std::index_sequence<k...>,
                                              std::index_sequence<o...>) {
  const Vector<T> x[] = {spread_number<T, s>(from[v])...};
  const Vector<T> by[] = {held<T>(load(w + (s * fours + Index(o)) * lanes<T>))...};
  ((sum[k] = accumulate<T>(x[k / fours], by[k % fours], sum[k])), ...);
}
// `w` goes by vectors of the source, numbers of quarters and fours of outputs; `bias` by fours of
// outputs. Rows of `to` are written whole, and what is too much by the next one again.
template <class T, int fours, std::size_t... v, std::size_t... k>
[[gnu::always_inline]] inline void project_some(const T* const* row, Index many, const T* w,
                                                const T* bias, T* to, Index few,
                                                std::index_sequence<v...> voxels,
                                                std::index_sequence<k...> sums) {
  constexpr Index L = lanes<T>, ahead = 8192 / sizeof(T);
  constexpr std::make_index_sequence<std::size_t(fours)> outputs;
  const T* const x[] = {row[v]...};
  Vector<T> sum[] = {load(bias + Index(k) % fours * L)...};
  for (Index i = 0; i < many; i += L, w += 4 * fours * L) {
    const Vector<T> from[] = {held<T>(load(x[v] + i))...};
    (__builtin_prefetch(x[v] + i + ahead), ...);
    add_number<T, fours, 0>(from, w, sum, voxels, sums, outputs);
    add_number<T, fours, 1>(from, w, sum, voxels, sums, outputs);
    add_number<T, fours, 2>(from, w, sum, voxels, sums, outputs);
    add_number<T, fours, 3>(from, w, sum, voxels, sums, outputs);
  }
  if constexpr (fours == 1) {
    T made[16];
    put_sums<T>(sum[0], sum[1], sum[2], sum[3], made);
    (std::memcpy(to + Index(v) * few, made + 4 * v, 4 * sizeof(T)), ...);
  } else if constexpr (fours == 2 && L == 16) {
    T made[32];
    put_sums<T>(sum[0], sum[1], sum[2], sum[3], made);
    put_sums<T>(sum[4], sum[5], sum[6], sum[7], made + 16);
    (std::memcpy(to + Index(v) * few, made + 8 * v, 8 * sizeof(T)), ...);
  } else if constexpr (fours == 2) {
    (store(to + Index(v) * few, add_halves<T>(sum[2 * v], sum[2 * v + 1])), ...);
  } else {
    (put_sums<T>(sum[fours * v], sum[fours * v + 1], sum[fours * v + 2], sum[fours * v + fours - 1],
                 to + Index(v) * few),
     ...);
  }
}
// `to` has room for a few rows of 16 behind the last.
template <class T, int fours>
[[gnu::noinline]] void project_rows(const T* x, Index voxels, Index many, const T* w, const T* bias,
                                    T* to, Index few) {
  constexpr Index at_once = voxels_at_once<T, fours>;
  for (Index v = 0; v < voxels; v += at_once, to += at_once * few) {
    const T* row[at_once];
    for (Index i = 0; i < at_once; ++i) row[i] = x + std::min(v + i, voxels - 1) * many;
    project_some<T, fours>(row, many, w, bias, to, few, std::make_index_sequence<at_once>{},
                           std::make_index_sequence<at_once * fours>{});
  }
}

template <class T>
struct ProjectToFew {
  const Grid& source;
  Index few;
  bool to_coarse;
  const Feed<T>& feed;
  const Sink<T>& sink;
  const T* weight;
  double* moments;  // (task, sum or square, padded outputs)
  Pieces parts{source.cases, source.voxels()};
  Index fours = pieces(few, 4), padded = pieces(few, lanes<T>) * lanes<T>;
  bool simple = sink.out[0] && !sink.add[0] && sink.grid[1].channels == 0 && !moments;
  bool past = simple && sink.grid[0].size() * Index(sizeof(T)) >= Index(16) << 20;
  alignas(vector_bytes) T w[Pending<T>::most * most_few<T>] = {}, bias[4 * lanes<T>] = {};

  Index tasks_of_case() const { return pieces(parts.of_case(), Pieces::of_task); }
  Index tasks() const { return source.cases * tasks_of_case(); }
  void prepare() {
    constexpr Index L = lanes<T>;
    T* to = w;
    for (Index c0 = 0; c0 < source.channels; c0 += L)
      for (Index s = 0; s < 4; ++s)
        for (Index k = 0; k < fours; ++k, to += L)
          for (Index i = 0; i < L; ++i) {
            const Index c = c0 + i / 4 * 4 + s, o = 4 * k + i % 4;
            to[i] = o >= few    ? T(0)
                    : to_coarse ? weight[c * few + o]
                                : weight[o * source.channels + c];
          }
    for (Index o = 0; sink.bias && o < few; ++o) bias[o / 4 * L + o % 4] = sink.bias[o];
  }
  void operator()(Index begin, Index end) const {
    T* const rows = thread_scratch<T, 0>(Pieces::size * source.channels);
    T* const sums = thread_scratch<T, 1>((Pieces::size + 4) * few + 4 * most_few<T>);
    PieceRows<T> feed_rows(feed, source, dense_source(feed, source));
    for (Index i = begin; i < end; ++i) {
      const Index n = i / tasks_of_case(), first = i % tasks_of_case() * Pieces::of_task;
      for (Index p = first; p < std::min(parts.of_case(), first + Pieces::of_task); ++p) {
        const Index voxel = parts.first(p), voxels = parts.length(p);
        const T* const x = feed_rows.at(n, voxel, voxels, rows);
        if (fours == 1) project_rows<T, 1>(x, voxels, source.channels, w, bias, sums, few);
        if (fours == 2) project_rows<T, 2>(x, voxels, source.channels, w, bias, sums, few);
        if (fours == 3) project_rows<T, 3>(x, voxels, source.channels, w, bias, sums, few);
        if (fours == 4) project_rows<T, 4>(x, voxels, source.channels, w, bias, sums, few);
        put(i, n * parts.voxels + voxel, voxels, sums);
      }
    }
    if (past) finish_stores();
  }

 private:
  void put(Index task, Index row, Index voxels, const T* sums) const {
    if (past)
      put_past(sums, voxels * few, sink.out[0] + row * few);
    else if (simple)
      std::memcpy(sink.out[0] + row * few, sums, std::size_t(voxels * few) * sizeof(T));
    else
      put_box(sink, {1, 1, voxels}, row, {0, 0, 1}, 0, few, sums, {0, 0, few},
              static_cast<const T*>(nullptr), moments ? moments + task * 2 * padded : nullptr,
              padded);
  }
};

// ---- The gradient of weights between many channels and few
//
// Products of rows of few with rows of many: sums of some of the few times two vectors stay in
// registers over a piece, are kept in T for some pieces and then added in double.

template <class T, int vectors, std::size_t... o>
[[gnu::always_inline]] inline void add_outer_row(const T* few, const Vector<T>* many,
                                                 Vector<T>* sum, std::index_sequence<o...>) {
  const Vector<T> a = held<T>(all(*few));
  ((sum[o] = accumulate<T>(a, many[o], sum[o])), ...);
}
template <class T, int vectors, std::size_t... r, std::size_t... k, std::size_t... o>
[[gnu::always_inline]] inline void add_outer(const T* few, Index few_step, const T* many,
                                             Index many_step, Index voxels, T* to,
                                             std::index_sequence<r...>, std::index_sequence<k...>,
                                             std::index_sequence<o...> both) {
  constexpr Index L = lanes<T>, ahead = 8192 / sizeof(T);
  Vector<T> sum[] = {load(to + Index(k) / vectors * many_step + Index(k) % vectors * L)...};
  for (Index v = 0; v < voxels; ++v, few += few_step, many += many_step) {
    const Vector<T> row[] = {held<T>(load(many + Index(o) * L))...};
    (__builtin_prefetch(many + Index(o) * L + ahead), ...);
    (add_outer_row<T, vectors>(few + r, row, sum + vectors * r, both), ...);
  }
  (store(to + Index(k) / vectors * many_step + Index(k) % vectors * L, sum[k]), ...);
}
// to[r * many_step][...] += the sum over voxels of few[r] * many[...].
template <class T, int vectors, int rows>
[[gnu::noinline]] void add_outer(const T* few, Index few_step, const T* many, Index many_step,
                                 Index voxels, T* to) {
  add_outer<T, vectors>(
      few, few_step, many, many_step, voxels, to, std::make_index_sequence<rows>{},
      std::make_index_sequence<rows * vectors>{}, std::make_index_sequence<vectors>{});
}

template <class T>
struct WeighProjection {
  static constexpr int rows =
      vector_bytes == 64 ? 4 : 2;  // sums go by one, two or three times so many

  const Grid& grid;  // of the many
  Index few;
  const Feed<T>&from_many, &from_few;
  Pieces parts{grid.cases, grid.voxels()};
  Index partials = std::clamp<Index>(parts.count() / Pieces::of_task, 1, 32);
  double* sums = nullptr;  // (partial, few, many)

  void operator()(Index begin, Index end) const {
    const Index many = grid.channels;
    const Grid few_grid = grid.with_channels(few);
    T* const many_rows = thread_scratch<T, 0>(Pieces::size * many);
    T* const few_rows = thread_scratch<T, 1>(Pieces::size * few + most_few<T>);
    T* const sum = thread_scratch<T, 3>(most_few<T> * many);
    std::fill_n(few_rows + Pieces::size * few, most_few<T>, T(0));
    PieceRows<T> of_many(from_many, grid, dense_source(from_many, grid)),
        of_few(from_few, few_grid, nullptr);
    for (Index i = begin; i < end; ++i) {
      const Index last = (i + 1) * parts.count() / partials;
      double* const total = sums + i * few * many;
      std::fill_n(total, few * many, 0.0);
      std::fill_n(sum, most_few<T> * many, T(0));
      Index added = 0;
      for (Index p = i * parts.count() / partials; p < last; ++p) {
        const Index n = p / parts.of_case(), voxel = parts.first(p), voxels = parts.length(p);
        const T* const x = of_many.at(n, voxel, voxels, many_rows);
        of_few.at(n, voxel, voxels, few_rows);
        Index c = 0;
        for (; c + 2 * lanes<T> <= many; c += 2 * lanes<T>)
          add<2>(few_rows, x + c, voxels, sum + c);
        if (c < many) add<1>(few_rows, x + c, voxels, sum + c);
        if (++added % Pieces::of_task != 0 && p + 1 < last) continue;
        for (Index k = 0; k < few * many; k += lanes<double>)
          store(total + k, load(total + k) + widened(sum + k));
        std::fill_n(sum, most_few<T> * many, T(0));
      }
    }
  }

 private:
  template <int vectors>
  void add(const T* y, const T* x, Index voxels, T* to) const {
    for (Index r = 0; r < few;) {
      const Index left = few - r;
      if (left > 2 * rows)
        add_outer<T, vectors, 3 * rows>(y + r, few, x, grid.channels, voxels, to);
      else if (left > rows)
        add_outer<T, vectors, 2 * rows>(y + r, few, x, grid.channels, voxels, to);
      else
        add_outer<T, vectors, rows>(y + r, few, x, grid.channels, voxels, to);
      const Index made = left > 2 * rows ? 3 * rows : left > rows ? 2 * rows : rows;
      r += made, to += made * grid.channels;
    }
  }
};

template <class T>
void weigh_projection(const Window& w, const Feed<T>& fine, const Feed<T>& coarse, T* weight_grad) {
  const bool to_few = is_few<T>(w.fine.channels, w.coarse.channels);
  const Grid& grid = to_few ? w.fine : w.coarse;
  const Index few = to_few ? w.coarse.channels : w.fine.channels, many = grid.channels;
  WeighProjection<T> weighing{grid, few, to_few ? fine : coarse, to_few ? coarse : fine};
  const Scratch<double> sums(weighing.partials * few * many);
  weighing.sums = sums.data();
  parallel_for(weighing.partials, 1, weighing);
  for (Index c = 0; c < many; ++c)
    for (Index o = 0; o < few; ++o) {
      double total = 0;
      for (Index p = 0; p < weighing.partials; ++p) total += sums.data()[(p * few + o) * many + c];
      weight_grad[to_few ? c * few + o : o * many + c] += T(total);
    }
}

// ---- Few channels to many

template <class T, int vectors, Put put, std::size_t... r, std::size_t... k, std::size_t... o>
[[gnu::always_inline]] inline void widen_some(const T* x, Index few, const T* w, Index many,
                                              const T* bias, T* to, std::index_sequence<r...>,
                                              std::index_sequence<k...>,
                                              std::index_sequence<o...> both) {
  constexpr Index L = lanes<T>, ahead = 4096 / sizeof(T);
  Vector<T> sum[] = {load(bias + Index(k) % vectors * L)...};
  (__builtin_prefetch(x + Index(r) * few + ahead), ...);
  for (Index c = 0; c < few; ++c, ++x, w += many) {
    const Vector<T> row[] = {held<T>(load(w + Index(o) * L))...};
    (add_outer_row<T, vectors>(x + Index(r) * few, row, sum + vectors * r, both), ...);
  }
  (store_as<put>(to + Index(k) / vectors * many + Index(k) % vectors * L, sum[k]), ...);
}
template <class T, int vectors, Put put>
[[gnu::noinline]] void widen_rows(const T* x, Index voxels, Index few, const T* w, Index many,
                                  const T* bias, T* to) {
  constexpr Index rows = vector_bytes == 64 ? 8 : 4;
  constexpr std::make_index_sequence<std::size_t(vectors)> both;
  for (; voxels >= rows; voxels -= rows, x += rows * few, to += rows * many)
    widen_some<T, vectors, put>(x, few, w, many, bias, to,
                                std::make_index_sequence<std::size_t(rows)>{},
                                std::make_index_sequence<std::size_t(rows * vectors)>{}, both);
  for (; voxels > 0; --voxels, x += few, to += many)
    widen_some<T, vectors, put>(x, few, w, many, bias, to, std::index_sequence<0>{}, both, both);
}

template <class T>
struct ProjectToMany {
  const Grid& source;
  Index many;
  bool to_coarse;
  const Feed<T>& feed;
  const Sink<T>& sink;
  const T* weight;
  double* moments;  // (task, sum or square, outputs)
  Pieces parts{source.cases, source.voxels()};
  bool simple = sink.out[0] && !sink.add[0] && sink.grid[1].channels == 0 && !moments;
  bool past = simple && is_put_past(sink.out[0], sink.grid[0]);
  alignas(vector_bytes) T w[Pending<T>::most * most_few<T>] = {}, bias[Pending<T>::most] = {};

  Index tasks_of_case() const { return pieces(parts.of_case(), Pieces::of_task); }
  Index tasks() const { return source.cases * tasks_of_case(); }
  void prepare() {
    for (Index c = 0; c < source.channels; ++c)
      for (Index o = 0; o < many; ++o)
        w[c * many + o] = to_coarse ? weight[c * many + o] : weight[o * source.channels + c];
    for (Index o = 0; sink.bias && o < many; ++o) bias[o] = sink.bias[o];
  }
  void operator()(Index begin, Index end) const {
    const Index few = source.channels;
    T* const rows = thread_scratch<T, 0>(Pieces::size * few);
    T* const sums = thread_scratch<T, 1>(Pieces::size * many);
    PieceRows<T> feed_rows(feed, source, dense_source(feed, source));
    for (Index i = begin; i < end; ++i) {
      const Index n = i / tasks_of_case(), first = i % tasks_of_case() * Pieces::of_task;
      for (Index p = first; p < std::min(parts.of_case(), first + Pieces::of_task); ++p) {
        const Index voxel = parts.first(p), voxels = parts.length(p);
        const Index row = n * parts.voxels + voxel;
        const T* const x = feed_rows.at(n, voxel, voxels, rows);
        if (past)
          make<Put::past>(x, voxels, sink.out[0] + row * many);
        else
          make<Put::cached>(x, voxels, simple ? sink.out[0] + row * many : sums);
        if (!simple)
          put_box(sink, {1, 1, voxels}, row, {0, 0, 1}, 0, many, sums, {0, 0, many},
                  static_cast<const T*>(nullptr), moments ? moments + i * 2 * many : nullptr, many);
      }
    }
    if (past) finish_stores();
  }

 private:
  template <Put put>
  void make(const T* x, Index voxels, T* to) const {
    Index c = 0;
    for (; c + 2 * lanes<T> <= many; c += 2 * lanes<T>)
      widen_rows<T, 2, put>(x, voxels, source.channels, w + c, many, bias + c, to + c);
    if (c < many) widen_rows<T, 1, put>(x, voxels, source.channels, w + c, many, bias + c, to + c);
  }
};

template <class T, class Project>
void project(Project&& made, Index outputs, Index padded, const Sink<T>& sink) {
  Scratch<double> sums;
  const Index all = made.tasks() * 2 * padded;
  if (sink.moments) {
    made.moments = sums.grow(all), made.simple = made.past = false;
    std::fill_n(made.moments, all, 0.0);
  }
  made.prepare();
  parallel_for(made.tasks(), 1, made);
  if (sink.moments)
    parallel_for(made.source.cases * outputs, 64,
                 MergeMoments{sums.data(), made.tasks_of_case(), outputs, outputs, padded, padded,
                              sink.moments});
}
// Between maps of which either has few channels.
template <class T>
void convolve_projection(const Window& w, bool to_coarse, const Feed<T>& feed, const T* weight,
                         const Sink<T>& sink) {
  const Grid& source = to_coarse ? w.fine : w.coarse;
  const Index outputs = to_coarse ? w.coarse.channels : w.fine.channels;
  if (is_few<T>(source.channels, outputs))
    project<T>(ProjectToFew<T>{source, outputs, to_coarse, feed, sink, weight, nullptr}, outputs,
               pieces(outputs, lanes<T>) * lanes<T>, sink);
  else
    project<T>(ProjectToMany<T>{source, outputs, to_coarse, feed, sink, weight, nullptr}, outputs,
               outputs, sink);
}

}  // namespace segmed::SEGMED_SET
