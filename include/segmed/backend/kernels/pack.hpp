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
  // Vectors of channels one by one, so that what is pending on them stays in registers.
  Index c = 0;
  for (; c + lanes<T> <= count; c += lanes<T>) {
    if (pending.plain) {
      for (Index v = 0; v < voxels; ++v) store(to + v * to_step + c, load(x + v * channels + c));
      continue;
    }
    const Vector<T> scale = load(pending.scale + c), shift = load(pending.shift + c),
                    slope = load(pending.slope + c);
    for (Index v = 0; v < voxels; ++v) {
      const Vector<T> z = fused<T>(scale, load(x + v * channels + c), shift);
      store(to + v * to_step + c, z > Vector<T>{} ? z : slope * z);
    }
  }
  for (; c < count; ++c)
    for (Index v = 0; v < voxels; ++v)
      to[v * to_step + c] =
          pending.plain ? x[v * channels + c] : pending.value(x + v * channels, c);
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
  const Index channels = g.view.grid.channels, at = first * channels + c0;
  const T* const direct = g.direct ? g.direct + at : nullptr;
  const T* const seen = g.seen ? g.seen + at : nullptr;
  const T* const x = seen || g.moments ? g.view.x + at : nullptr;
  Index c = 0;
  for (; c + lanes<T> <= count; c += lanes<T>) {
    const Vector<T> none{};
    const Vector<T> scale = seen ? load(p.view.scale + c) : none;
    const Vector<T> shift = seen ? load(p.view.shift + c) : none;
    const Vector<T> slope = seen ? load(p.view.slope + c) : none;
    const Vector<T> mean = g.moments ? load(p.sum + c) : none;
    const Vector<T> spread = g.moments ? load(p.squares + c) : none;
    for (Index v = 0; v < voxels; ++v) {
      const Index i = v * channels + c;
      Vector<T> sum = direct ? load(direct + i) : none;
      if (seen) {
        const Vector<T> s = load(seen + i);
        const auto open = fused<T>(scale, load(x + i), shift) > none;
        sum = fused<T>(open ? s : slope * s, scale, sum);
      }
      if (g.moments) sum = sum + fused<T>(spread, load(x + i), mean);
      store(to + v * to_step + c, sum);
    }
  }
  for (; c < count; ++c)
    for (Index v = 0; v < voxels; ++v) {
      const Index i = v * channels + c;
      T sum = direct ? direct[i] : T(0);
      if (seen) {
        const bool open = fused<T>(p.view.scale[c], x[i], p.view.shift[c]) > T(0);
        sum = fused<T>(open ? seen[i] : p.view.slope[c] * seen[i], p.view.scale[c], sum);
      }
      if (g.moments) sum = sum + fused<T>(p.squares[c], x[i], p.sum[c]);
      to[v * to_step + c] = sum;
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

}  // namespace segmed::SEGMED_SET
