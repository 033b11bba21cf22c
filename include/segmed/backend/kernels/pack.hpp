// SPDX-License-Identifier: Apache-2.0
// Boxes of what a convolution reads, copied into scratch with pending work done and zeros around.
// Read once per instruction set: see simd.hpp.
#include <segmed/backend/kernels/micro.hpp>

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
  }
  [[gnu::always_inline]] Vector<T> before_leak(const T* x, Index c) const {
    return fused<T>(load(scale + c), load(x + c), load(shift + c));
  }
  [[gnu::always_inline]] Vector<T> values(const T* x, Index c) const {
    const Vector<T> z = before_leak(x, c);
    return z > Vector<T>{} ? z : load(slope + c) * z;
  }
  [[gnu::always_inline]] T value(const T* x, Index c) const {
    const T z = fused<T>(scale[c], x[c], shift[c]);
    return z > T(0) ? z : slope[c] * z;
  }
};

// to[v][c] = lane(v, c), `count` channels of `voxels` neighbours; rows of `to` are `to_step` apart.
template <class T>
[[gnu::noinline]] void read_lane(const Lane<T>& lane, const Pending<T>& pending, Index first,
                                 Index voxels, Index c0, Index count, T* to, Index to_step) {
  const Index channels = lane.grid.channels;
  const T* x = lane.x + first * channels + c0;
  if (pending.plain && count == channels && count == to_step) {
    std::memcpy(to, x, std::size_t(voxels * channels) * sizeof(T));
    return;
  }
  const Index whole = count / lanes<T> * lanes<T>;
  for (Index v = 0; v < voxels; ++v, x += channels, to += to_step) {
    Index c = 0;
    if (pending.plain) {
      for (; c < whole; c += lanes<T>) store(to + c, load(x + c));
      for (; c < count; ++c) to[c] = x[c];
    } else {
      for (; c < whole; c += lanes<T>) store(to + c, pending.values(x, c));
      for (; c < count; ++c) to[c] = pending.value(x, c);
    }
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
  }
};
template <class T>
[[gnu::noinline]] void read_gradient(const Incoming<T>& g, const PendingGradient<T>& p, Index first,
                                     Index voxels, Index c0, Index count, T* to, Index to_step) {
  const Index channels = g.view.grid.channels, whole = count / lanes<T> * lanes<T>;
  for (Index v = 0; v < voxels; ++v, to += to_step) {
    const Index at = (first + v) * channels + c0;
    const T* const direct = g.direct ? g.direct + at : nullptr;
    const T* const seen = g.seen ? g.seen + at : nullptr;
    const T* const x = seen || g.moments ? g.view.x + at : nullptr;
    Index c = 0;
    for (; c < whole; c += lanes<T>) {
      Vector<T> sum = direct ? load(direct + c) : Vector<T>{};
      if (seen) {
        const Vector<T> s = load(seen + c);
        const Vector<T> leaked =
            p.view.before_leak(x, c) > Vector<T>{} ? s : load(p.view.slope + c) * s;
        sum = fused<T>(leaked, load(p.view.scale + c), sum);
      }
      if (g.moments) sum = sum + fused<T>(load(p.squares + c), load(x + c), load(p.sum + c));
      store(to + c, sum);
    }
    for (; c < count; ++c) {
      T sum = direct ? direct[c] : T(0);
      if (seen) {
        const bool open = fused<T>(p.view.scale[c], x[c], p.view.shift[c]) > T(0);
        sum = fused<T>(open ? seen[c] : p.view.slope[c] * seen[c], p.view.scale[c], sum);
      }
      if (g.moments) sum = sum + fused<T>(p.squares[c], x[c], p.sum[c]);
      to[c] = sum;
    }
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
  [[gnu::noinline]] void read(Index voxel, Index voxels, T* to, Index to_step) const {
    if (feed_.is_gradient) {
      read_gradient(feed_.gradient, gradient_, base_ + voxel, voxels, from_[0], count_, to,
                    to_step);
      return;
    }
    for (int i = 0; i < 2; ++i)
      if (part_[i])
        read_lane(feed_.values.lane[i], pending_[i], base_ + voxel, voxels, from_[i], part_[i],
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
};

// to[voxel of the box][c], zero outside of the grid.
template <class T>
[[gnu::noinline]] void read_box(const FeedRows<T>& rows, const Grid& grid, const Box& box,
                                Index count, T* to) {
  const Index left = std::clamp<Index>(-box.low[2], 0, box.size[2]);
  const Index right = std::clamp<Index>(grid.width - box.low[2], left, box.size[2]);
  for (Index a = 0; a < box.size[0]; ++a)
    for (Index b = 0; b < box.size[1]; ++b, to += box.size[2] * count) {
      const Index z = box.low[0] + a, y = box.low[1] + b;
      const bool inside = z >= 0 && z < grid.depth && y >= 0 && y < grid.height && right > left;
      const Index begin = inside ? left : box.size[2];
      std::memset(to, 0, std::size_t(begin * count) * sizeof(T));
      if (!inside) continue;
      rows.read((z * grid.height + y) * grid.width + box.low[2] + left, right - left,
                to + left * count, count);
      std::memset(to + right * count, 0, std::size_t((box.size[2] - right) * count) * sizeof(T));
    }
}

}  // namespace segmed::SEGMED_SET
