// SPDX-License-Identifier: Apache-2.0
// Boxes of what a convolution reads, copied into scratch with pending work done and zeros around.
// Read once per instruction set: see simd.hpp.
#include <segmed/backend/kernels/moments.hpp>

namespace segmed::SEGMED_SET {

// A lane's pending work for `count` channels of one case from channel c0 on, always spelled out:
// fma(1, x, -0) is x for every x.
template <class T>
struct Pending {
  static constexpr Index most = 64;
  T scale[most], shift[most], slope[most];
  bool plain;

  void prepare(const Lane<T>& lane, Index n, Index c0, Index count, bool always = false) {
    plain = lane.plain();
    if (plain && !always) return;
    const Index p = n * lane.grid.channels + c0;
    for (Index c = 0; c < count; ++c) {
      scale[c] = lane.scale ? lane.scale[p + c] : T(1);
      shift[c] = lane.scale ? lane.shift[p + c] : T(-0.0);
      slope[c] = lane.slope ? lane.slope[p + c] : lane.leak;
    }
    // The last vector is read whole.
    for (Index c = count; c % lanes<T> != 0; ++c) scale[c] = shift[c] = slope[c] = T(0);
  }
};

// The same of one vector of channels from c on.
template <class T>
struct PendingVector {
  Vector<T> scale, shift, slope;

  [[gnu::always_inline]] PendingVector(const Pending<T>& p, Index c)
      : scale(load(p.scale + c)), shift(load(p.shift + c)), slope(load(p.slope + c)) {}
  [[gnu::always_inline]] Vector<T> value(const Vector<T>& x) const {
    const Vector<T> z = fused<T>(scale, x, shift);
    return z > Vector<T>{} ? z : slope * z;
  }
  // sum + the gradient of what was seen, with respect to x.
  [[gnu::always_inline]] Vector<T> through(const Vector<T>& x, const Vector<T>& seen,
                                           const Vector<T>& sum) const {
    const auto open = fused<T>(scale, x, shift) > Vector<T>{};
    return fused<T>(open ? seen : slope * seen, scale, sum);
  }
};
// Rows of one vector or two, as convolutions read them: what is pending stays in registers.
template <bool two, class T, class Last>
[[gnu::always_inline]] inline void read_held(const Pending<T>& pending, const T* x, Index step,
                                             Index voxels, T* to, Index to_step, const Last& last) {
  constexpr Index second = two ? lanes<T> : 0;
  const PendingVector<T> a(pending, 0), b(pending, second);
  for (Index v = 0; v < voxels; ++v, x += step, to += to_step) {
    if constexpr (two) store(to, a.value(load(x)));
    last.write(to + second, b.value(last.read(x + second)));
  }
}
// to[v][c] = lane(v, c), `count` channels of `voxels` neighbours; rows of `to` are `to_step` apart.
// Row by row, as memory lies: what is pending on long rows comes from the nearest cache each time.
template <Put put, class T>
[[gnu::noinline]] void read_lane(const Lane<T>& lane, const Pending<T>& pending, Index first,
                                 Index voxels, Index c0, Index count, T* to, Index to_step) {
  const Index channels = lane.grid.channels, whole = count / lanes<T> * lanes<T>;
  const Part<T> rest(count - whole);
  const T* x = lane.x + first * channels + c0;
  if constexpr (put == Put::cached) {
    if (pending.plain && count == channels && count == to_step) {
      std::memcpy(to, x, std::size_t(voxels * channels) * sizeof(T));
      return;
    }
    if (!pending.plain && count == 2 * lanes<T>)
      return read_held<true>(pending, x, channels, voxels, to, to_step, Whole<T>());
    if (!pending.plain && count == lanes<T>)
      return read_held<false>(pending, x, channels, voxels, to, to_step, Whole<T>());
    if (!pending.plain && count < lanes<T>)
      return read_held<false>(pending, x, channels, voxels, to, to_step, rest);
  }
  for (Index v = 0; v < voxels; ++v, x += channels, to += to_step) {
    if (pending.plain) {
      for (Index c = 0; c < whole; c += lanes<T>) store_as<put>(to + c, load(x + c));
      if (rest) rest.write(to + whole, rest.read(x + whole));
      continue;
    }
    for (Index c = 0; c < whole; c += lanes<T>)
      store_as<put>(to + c, PendingVector<T>(pending, c).value(load(x + c)));
    if (rest) rest.write(to + whole, PendingVector<T>(pending, whole).value(rest.read(x + whole)));
  }
}

// What an incoming gradient needs of `count` channels of one case.
template <class T>
struct PendingGradient {
  Pending<T> view;
  T sum[Pending<T>::most], squares[Pending<T>::most];

  void prepare(const Incoming<T>& g, Index n, Index c0, Index count) {
    if (g.seen) view.prepare(g.view, n, c0, count, true);
    if (g.moments)
      for (Index c = 0; c < count; ++c) {
        const double* m = g.moments + 2 * (n * g.view.grid.channels + c0 + c);
        sum[c] = T(m[0]), squares[c] = T(2) * T(m[1]);
      }
    for (Index c = count; c % lanes<T> != 0; ++c) sum[c] = squares[c] = T(0);
  }
  // One vector of channels from c on, which is number i of the tensor.
  template <class Access>
  [[gnu::always_inline]] Vector<T> value(const Incoming<T>& g, Index i, Index c,
                                         const Access& at) const {
    Vector<T> total = g.direct ? at.read(g.direct + i) : Vector<T>{};
    if (g.seen)
      total = PendingVector<T>(view, c).through(at.read(g.view.x + i), at.read(g.seen + i), total);
    if (g.moments)
      total = total + fused<T>(load(squares + c), at.read(g.view.x + i), load(sum + c));
    return total;
  }
};
// The same, held, of what is seen through a normalisation and perhaps directly as well.
template <class T, bool direct>
struct GradientVector {
  PendingVector<T> view;
  Vector<T> sum, squares;

  [[gnu::always_inline]] GradientVector(const PendingGradient<T>& p, Index c)
      : view(p.view, c), sum(load(p.sum + c)), squares(load(p.squares + c)) {}
  template <class Access>
  [[gnu::always_inline]] Vector<T> operator()(const Incoming<T>& g, Index i,
                                              const Access& at) const {
    const Vector<T> x = at.read(g.view.x + i),
                    before = direct ? at.read(g.direct + i) : Vector<T>{};
    return view.through(x, at.read(g.seen + i), before) + fused<T>(squares, x, sum);
  }
};
template <bool two, bool direct, class T, class Last>
[[gnu::always_inline]] inline void read_held_gradient(const Incoming<T>& g,
                                                      const PendingGradient<T>& p, Index at,
                                                      Index voxels, T* to, Index to_step,
                                                      const Last& last) {
  constexpr Index second = two ? lanes<T> : 0;
  const Incoming<T> from = g;
  const Index channels = g.view.grid.channels;
  const GradientVector<T, direct> a(p, 0), b(p, second);
  for (Index v = 0; v < voxels; ++v, at += channels, to += to_step) {
    if constexpr (two) store(to, a(from, at, Whole<T>()));
    last.write(to + second, b(from, at + second, last));
  }
}
template <Put put, class T>
[[gnu::noinline]] void read_gradient(const Incoming<T>& g, const PendingGradient<T>& p, Index first,
                                     Index voxels, Index c0, Index count, T* to, Index to_step) {
  const Index channels = g.view.grid.channels, whole = count / lanes<T> * lanes<T>;
  const Part<T> rest(count - whole);
  const Whole<T> all_of;
  Index at = first * channels + c0;
  if constexpr (put == Put::cached) {
    if (!g.seen && !g.moments && g.direct && count == channels && count == to_step) {
      std::memcpy(to, g.direct + at, std::size_t(voxels * channels) * sizeof(T));
      return;
    }
    if (g.seen && g.moments && count == 2 * lanes<T>)
      return g.direct ? read_held_gradient<true, true>(g, p, at, voxels, to, to_step, all_of)
                      : read_held_gradient<true, false>(g, p, at, voxels, to, to_step, all_of);
    if (g.seen && g.moments && count == lanes<T>)
      return g.direct ? read_held_gradient<false, true>(g, p, at, voxels, to, to_step, all_of)
                      : read_held_gradient<false, false>(g, p, at, voxels, to, to_step, all_of);
    if (g.seen && g.moments && count < lanes<T>)
      return g.direct ? read_held_gradient<false, true>(g, p, at, voxels, to, to_step, rest)
                      : read_held_gradient<false, false>(g, p, at, voxels, to, to_step, rest);
  }
  for (Index v = 0; v < voxels; ++v, at += channels, to += to_step) {
    for (Index c = 0; c < whole; c += lanes<T>)
      store_as<put>(to + c, p.value(g, at + c, c, all_of));
    if (rest) rest.write(to + whole, p.value(g, at + whole, whole, rest));
  }
}

// A feed prepared for `count` channels of case n: rows of voxels on demand.
template <class T>
class FeedRows {
 public:
  [[gnu::noinline]] FeedRows(const Feed<T>& feed, Index n, Index c0, Index count)
      : feed_(feed), count_(count) {
    if (feed.is_gradient) {
      base_ = n * feed.gradient.view.grid.voxels(), from_[0] = c0;
      gradient_.prepare(feed.gradient, n, c0, count);
      return;
    }
    const Index split = feed.values.lane[0].grid.channels;
    base_ = n * feed.values.lane[0].grid.voxels();
    from_[0] = c0, part_[0] = std::clamp<Index>(split - c0, 0, count);
    from_[1] = std::max<Index>(0, c0 - split), part_[1] = count - part_[0];
    for (int i = 0; i < 2; ++i)
      if (part_[i]) pending_[i].prepare(feed.values.lane[i], n, from_[i], part_[i]);
  }
  template <Put put = Put::cached>
  [[gnu::noinline]] void read(Index voxel, Index voxels, T* to, Index to_step) const {
    if (feed_.is_gradient) {
      read_gradient<put>(feed_.gradient, gradient_, base_ + voxel, voxels, from_[0], count_, to,
                         to_step);
      return;
    }
    for (int i = 0; i < 2; ++i)
      if (part_[i])
        read_lane<put>(feed_.values.lane[i], pending_[i], base_ + voxel, voxels, from_[i], part_[i],
                       to + (i ? part_[0] : 0), to_step);
  }

 private:
  const Feed<T>& feed_;
  Index count_, base_ = 0, from_[2] = {0, 0}, part_[2] = {0, 0};
  Pending<T> pending_[2];
  PendingGradient<T> gradient_;
};

struct Box {
  Index low[3], size[3];  // depth, height, width
  Index voxels() const { return size[0] * size[1] * size[2]; }
  bool inside(const Grid& grid) const {
    const Index extent[3] = {grid.depth, grid.height, grid.width};
    bool all = true;
    for (int a = 0; a < 3; ++a) all = all && low[a] >= 0 && low[a] + size[a] <= extent[a];
    return all;
  }
};

// to[voxel of the box][c], voxels `step` apart, zero outside of the grid.
template <class T>
[[gnu::noinline]] void read_box(const FeedRows<T>& rows, const Grid& grid, const Box& box,
                                Index step, T* to) {
  const Index left = std::clamp<Index>(-box.low[2], 0, box.size[2]);
  const Index right = std::clamp<Index>(grid.width - box.low[2], left, box.size[2]);
  for (Index a = 0; a < box.size[0]; ++a)
    for (Index b = 0; b < box.size[1]; ++b, to += box.size[2] * step) {
      const Index z = box.low[0] + a, y = box.low[1] + b;
      const bool inside = z >= 0 && z < grid.depth && y >= 0 && y < grid.height && right > left;
      const Index begin = inside ? left : box.size[2];
      std::memset(to, 0, std::size_t(begin * step) * sizeof(T));
      if (!inside) continue;
      rows.read((z * grid.height + y) * grid.width + box.low[2] + left, right - left,
                to + left * step, step);
      std::memset(to + right * step, 0, std::size_t((box.size[2] - right) * step) * sizeof(T));
    }
}

// A box that is read next: its lines of memory are asked for part by part while others are worked
// on. Boxes are short runs of rows, too short for the processor to foresee.
template <class T>
class BoxAhead {
 public:
  BoxAhead(const Feed<T>& feed, const Grid& grid, const Box& box, Index n, Index c0, Index count)
      : grid_(grid), box_(box), n_(n) {
    // What the caches keep needs no asking.
    if (grid.size() * Index(sizeof(T)) < Index(8) << 20) return;
    if (feed.is_gradient) {
      const Incoming<T>& g = feed.gradient;
      add(g.direct, g.view.grid.channels, c0, count);
      add(g.seen, g.view.grid.channels, c0, count);
      if (g.seen || g.moments) add(g.view.x, g.view.grid.channels, c0, count);
      return;
    }
    const Index split = feed.values.lane[0].grid.channels;
    const Index before = std::clamp<Index>(split - c0, 0, count);
    add(feed.values.lane[0].x, split, c0, before);
    add(feed.values.lane[1].x, feed.values.lane[1].grid.channels, std::max<Index>(0, c0 - split),
        count - before);
  }
  void ask(Index part, Index parts) const {
    const Index rows = sources_ > 0 ? box_.size[0] * box_.size[1] * cuts : 0;
    for (Index i = part * rows / parts; i < (part + 1) * rows / parts; ++i) {
      const Index row = i / cuts, cut = i % cuts;
      const Index z = box_.low[0] + row / box_.size[1], y = box_.low[1] + row % box_.size[1];
      if (z < 0 || z >= grid_.depth || y < 0 || y >= grid_.height) continue;
      const Index x = std::max<Index>(0, box_.low[2]);
      const Index voxels = std::min(grid_.width, box_.low[2] + box_.size[2]) - x;
      const Index first = n_ * grid_.voxels() + (z * grid_.height + y) * grid_.width + x;
      const Index begin = cut * voxels / cuts, end = (cut + 1) * voxels / cuts;
      for (Index s = 0; s < sources_; ++s) source_[s].ask(first + begin, end - begin);
    }
  }

 private:
  static constexpr Index cuts = 4;  // of a row

  struct Source {
    const T* x;
    Index channels, count;
    void ask(Index first, Index voxels) const {
      asm volatile("");  // g++ drops calls of functions that do nothing but ask
      constexpr Index line = 64 / Index(sizeof(T));
      const bool dense = 2 * count >= channels;
      const Index step = dense ? line : channels, end = dense ? voxels * channels : count;
      for (Index v = 0; v < (dense ? 1 : voxels); ++v)
        for (Index i = 0; i < end; i += line)
          __builtin_prefetch(x + first * channels + v * step + i);
    }
  };
  void add(const T* x, Index channels, Index c0, Index count) {
    if (x && count > 0) source_[sources_++] = {x + c0, channels, count};
  }

  const Grid& grid_;
  Box box_;
  Index n_, sources_ = 0;
  Source source_[3];
};

}  // namespace segmed::SEGMED_SET
