// SPDX-License-Identifier: Apache-2.0
// Maps on another number of voxels: upsampling.
#pragma once
#include <algorithm>
#include <vector>

#include <segmed/autograd/features.hpp>
#include <segmed/backend/cpu.hpp>

namespace segmed {

/// What an output position of one axis reads.
struct StretchTap {
  Index first, second;
  double weight;  // of the second
};
/// An output position that reads an input position, and with which weight.
struct StretchReader {
  Index at;
  double weight;
};
/// How one axis is stretched, both ways round: nearest, or linear between pixel centres with the
/// edge repeated (PyTorch's align_corners = False).
template <Device D>
class AxisStretch {
 public:
  struct View {
    const StretchTap* taps;        // of each output position
    const StretchReader* readers;  // of input position i those from begin[i] to begin[i + 1],
    const Index* begin;            // in the order of the output
  };
  AxisStretch(Index in, Index out, bool linear) {
    std::vector<StretchTap> taps;
    std::vector<std::vector<StretchReader>> readers(static_cast<std::size_t>(in));
    for (Index o = 0; o < out; ++o) {
      const StretchTap tap =
          linear ? between(o, in, out) : StretchTap{o * in / out, o * in / out, 0};
      taps.push_back(tap);
      const bool one = tap.first == tap.second;
      readers[std::size_t(tap.first)].push_back({o, one ? 1 : 1 - tap.weight});
      if (!one && tap.weight > 0) readers[std::size_t(tap.second)].push_back({o, tap.weight});
    }
    std::vector<Index> begin{0};
    std::vector<StretchReader> all;
    for (const auto& list : readers) {
      all.insert(all.end(), list.begin(), list.end());
      begin.push_back(Index(all.size()));
    }
    taps_ = Storage<StretchTap, D>(taps);
    readers_ = Storage<StretchReader, D>(all);
    begin_ = Storage<Index, D>(begin);
  }
  View view() const { return {taps_.read(), readers_.read(), begin_.read()}; }

 private:
  static StretchTap between(Index o, Index in, Index out) {
    const double at = std::max(0.0, (double(o) + 0.5) * double(in) / double(out) - 0.5);
    const Index first = Index(at);
    return {first, std::min(first + 1, in - 1), at - double(first)};
  }
  Storage<StretchTap, D> taps_;
  Storage<StretchReader, D> readers_;
  Storage<Index, D> begin_;
};

/// Output voxels from input voxels.
template <class T, Device D>
struct StretchKernel {
  using Axis = typename AxisStretch<D>::View;
  Grid in, out;
  bool linear;
  Axis z, y, x;
  const T* from;
  T* to;
  SEGMED_HD void operator()(Index row, Index c) const {
    using W = Wide<T>;
    const Index v = row % out.voxels(), w = v % out.width, dh = v / out.width;
    const StretchTap tz = z.taps[dh / out.height], ty = y.taps[dh % out.height], tx = x.taps[w];
    const T* const base = from + row / out.voxels() * in.voxels() * in.channels + c;
    const auto at = [&](Index d, Index h, Index i) {
      return base[((d * in.height + h) * in.width + i) * in.channels];
    };
    T& put = to[row * out.channels + c];
    if (!linear) {
      put = at(tz.first, ty.first, tx.first);
      return;
    }
    W sum = 0;
    for (int d = 0; d < 2; ++d)
      for (int h = 0; h < 2; ++h) {
        const Index dz = d ? tz.second : tz.first, dy = h ? ty.second : ty.first;
        const W by = W((d ? tz.weight : 1 - tz.weight) * (h ? ty.weight : 1 - ty.weight));
        sum += W(at(dz, dy, tx.first)) * (by * W(1 - tx.weight)) +
               W(at(dz, dy, tx.second)) * (by * W(tx.weight));
      }
    put = T(sum);
  }
};
/// The same on the processor, one item per line of output voxels along x: the lines that it reads
/// are mixed first, then voxels of that mixture, so that most of the work is done on long rows.
template <class T>
struct StretchLine {
  using Axis = typename AxisStretch<Cpu>::View;
  Grid in, out;
  bool linear;
  Axis z, y, x;
  const T* from;
  T* to;

  void operator()(Index line) const {
    using W = Wide<T>;
    const Index channels = in.channels, width = in.width * channels;
    const StretchTap ty = y.taps[line % out.height], tz = z.taps[line / out.height % out.depth];
    const Index slices = line / out.height / out.depth * in.depth;
    const auto at = [&](Index d, Index h) { return from + ((slices + d) * in.height + h) * width; };
    T* put = to + line * out.width * channels;
    if (!linear) {
      const T* const read = at(tz.first, ty.first);
      for (Index o = 0; o < out.width; ++o, put += channels)
        std::copy_n(read + x.taps[o].first * channels, channels, put);
      return;
    }
    const T *const a = at(tz.first, ty.first), *const b = at(tz.first, ty.second),
                   *const c = at(tz.second, ty.first), *const d = at(tz.second, ty.second);
    const W by_a = W((1 - tz.weight) * (1 - ty.weight)), by_b = W((1 - tz.weight) * ty.weight),
            by_c = W(tz.weight * (1 - ty.weight)), by_d = W(tz.weight * ty.weight);
    W* const row = thread_scratch<W, 0>(width);
    for (Index k = 0; k < width; ++k)
      row[k] = W(a[k]) * by_a + W(b[k]) * by_b + W(c[k]) * by_c + W(d[k]) * by_d;
    for (Index o = 0; o < out.width; ++o, put += channels) {
      const StretchTap tx = x.taps[o];
      const W near = W(1 - tx.weight), far = W(tx.weight);
      const W *const left = row + tx.first * channels, *const right = row + tx.second * channels;
      for (Index k = 0; k < channels; ++k) put[k] = T(left[k] * near + right[k] * far);
    }
  }
};
/// The gradient of input voxels, each from the output voxels that read it.
template <class T, Device D>
struct StretchPull {
  using Axis = typename AxisStretch<D>::View;
  Grid in, out;
  Axis z, y, x;
  const T* g;
  Additions<T> gx;
  SEGMED_HD void operator()(Index row, Index c) const { columns<1>(row, c); }
  template <int n>
  SEGMED_HD void columns(Index row, Index c) const {
    using W = Wide<T>;
    const Index v = row % in.voxels();
    const Index w = v % in.width, h = v / in.width % in.height, d = v / in.width / in.height;
    const T* const base = g + row / in.voxels() * out.voxels() * out.channels + c;
    W total[n];
    for (int k = 0; k < n; ++k) total[k] = 0;
    for (Index i = z.begin[d]; i < z.begin[d + 1]; ++i)
      for (Index j = y.begin[h]; j < y.begin[h + 1]; ++j)
        for (Index l = x.begin[w]; l < x.begin[w + 1]; ++l) {
          const StretchReader rz = z.readers[i], ry = y.readers[j], rx = x.readers[l];
          const W by = W(rz.weight * ry.weight * rx.weight);
          const T* const from =
              base + ((rz.at * out.height + ry.at) * out.width + rx.at) * out.channels;
          for (int k = 0; k < n; ++k) total[k] += by * W(from[k]);
        }
    for (int k = 0; k < n; ++k) gx.add(row * in.channels + c + k, total[k]);
  }
};

/// The same on the processor for few channels, one item per line of input voxels along x: the lines
/// that read it are summed first, so that most of the work is done on long rows.
template <class T>
struct StretchLinePull {
  using Axis = typename AxisStretch<Cpu>::View;
  Grid in, out;
  Axis z, y, x;
  const T* g;
  Additions<T> gx;

  void operator()(Index line) const {
    using W = Wide<T>;
    const Index h = line % in.height, d = line / in.height % in.depth, channels = in.channels;
    const Index slices = line / in.height / in.depth * out.depth, width = out.width * channels;
    const Index many = (z.begin[d + 1] - z.begin[d]) * (y.begin[h + 1] - y.begin[h]);
    Reading* const lines = thread_scratch<Reading, 0>(many);
    Reading* last = lines;
    for (Index i = z.begin[d]; i < z.begin[d + 1]; ++i)
      for (Index j = y.begin[h]; j < y.begin[h + 1]; ++j)
        *last++ = {g + ((slices + z.readers[i].at) * out.height + y.readers[j].at) * width,
                   W(z.readers[i].weight * y.readers[j].weight)};
    // Pieces of many lines, which no processor foresees: those of the next item are asked for.
    const Index soon = h + 1 < in.height ? out.height / in.height * width : 0;
    W* const row = thread_scratch<W, 0>(width);
    in_vectors(width, [&](auto n, Index k) {
      W sum[n] = {};
      for (const Reading* l = lines; l != last; ++l) {
        const T* const from = l->from + k;
        for (Index i = 0; i < n; i += 64 / Index(sizeof(T))) __builtin_prefetch(from + soon + i);
        for (int i = 0; i < n; ++i) sum[i] += l->by * W(from[i]);
      }
      for (int i = 0; i < n; ++i) row[k + i] = sum[i];
    });
    Index to = line * in.width * channels;
    for (Index w = 0; w < in.width; ++w, to += channels)
      in_vectors(channels, [&](auto n, Index c) {
        W sum[n] = {};
        for (Index l = x.begin[w]; l < x.begin[w + 1]; ++l) {
          const W by = W(x.readers[l].weight);
          const W* const from = row + x.readers[l].at * channels + c;
          for (int i = 0; i < n; ++i) sum[i] += by * from[i];
        }
        gx.add(to + c, sum);
      });
  }

 private:
  /// A line of the gradient, and its weight.
  struct Reading {
    const T* from;
    Wide<T> by;
  };
};

/// The same for many channels, one item per block of lines of input voxels along x. Lines of the
/// gradient are read once, one after the other: what each gives to the voxels of a line is summed
/// first, and then added to those lines of the block that it was made of.
template <class T>
struct StretchBlockPull {
  using Axis = typename AxisStretch<Cpu>::View;
  using W = Wide<T>;
  static constexpr Index deep = 4, high = 8;  // of a block; what several blocks read costs each
  Grid in, out;
  Axis z, y, x;
  const T* g;
  Additions<T> gx;

  static Index items(const Grid& in) {
    return in.cases * ((in.depth + deep - 1) / deep) * ((in.height + high - 1) / high);
  }
  void operator()(Index item) const {
    const Index across = (in.height + high - 1) / high, along = (in.depth + deep - 1) / deep;
    const Index n = item / across / along, width = in.width * in.channels;
    const Part ds(z, item / across % along * deep, deep, in.depth);
    const Part hs(y, item % across * high, high, in.height);
    W* const row = thread_scratch<W, 0>(width);
    W* const sums = thread_scratch<W, 1>(ds.count * hs.count * width);
    std::fill_n(sums, ds.count * hs.count * width, W(0));
    for (Index oz = ds.begin; oz < ds.end; ++oz)
      for (Index oy = hs.begin; oy < hs.end; ++oy) {
        sum_line(g + ((n * out.depth + oz) * out.height + oy) * out.width * out.channels, row);
        ds.each(z.taps[oz], [&](Index d, double by_z) {
          hs.each(y.taps[oy], [&](Index h, double by_y) {
            W* const sum = sums + (d * hs.count + h) * width;
            const W by = W(by_z * by_y);
            for (Index k = 0; k < width; ++k) sum[k] += by * row[k];
          });
        });
      }
    for (Index d = 0; d < ds.count; ++d) {
      const Index line = (n * in.depth + ds.first + d) * in.height + hs.first;
      const W* const from = sums + d * hs.count * width;
      in_vectors(hs.count * width, [&](auto m, Index k) {
        W sum[m];
        for (int l = 0; l < m; ++l) sum[l] = from[k + l];
        gx.add(line * width + k, sum);
      });
    }
  }

 private:
  /// Some neighbouring input positions of an axis, and the output positions that read them.
  struct Part {
    Index first, count, begin = 0, end = 0;

    Part(const Axis& axis, Index from, Index most, Index all)
        : first(from), count(std::min(most, all - from)) {
      const StretchReader *const readers = axis.readers + axis.begin[first],
                                 *const last = axis.readers + axis.begin[first + count];
      if (readers < last) begin = readers->at, end = last[-1].at + 1;
    }
    /// Calls visit(which, weight) for those that an output position reads.
    template <class Visit>
    void each(const StretchTap& tap, const Visit& visit) const {
      const bool one = tap.first == tap.second;
      if (const Index i = tap.first - first; i >= 0 && i < count)
        visit(i, one ? 1 : 1 - tap.weight);
      if (const Index i = tap.second - first; !one && tap.weight > 0 && i >= 0 && i < count)
        visit(i, tap.weight);
    }
  };
  /// What a line of the gradient gives to a line of input voxels.
  void sum_line(const T* line, W* to) const {
    const Index channels = in.channels, read = out.width * channels / in.width;
    const T* ahead = line + 8192 / Index(sizeof(T));  // memory is asked for it
    for (Index w = 0; w < in.width; ++w, to += channels, ahead += read) {
      for (Index c = 0; c < read; c += 64 / Index(sizeof(T))) __builtin_prefetch(ahead + c);
      std::fill_n(to, channels, W(0));
      for (Index i = x.begin[w]; i < x.begin[w + 1]; ++i) {
        const W by = W(x.readers[i].weight);
        const T* const from = line + x.readers[i].at * channels;
        for (Index c = 0; c < channels; ++c) to[c] += by * W(from[c]);
      }
    }
  }
};

/// Resamples a map onto another number of voxels.
template <FeatureMap F>
F stretch(const F& input, const std::array<Index, F::dim>& extent, Interpolation how) {
  using T = typename F::value_type;
  using D = typename F::device;
  const F source = value(input);
  const Grid in = source.grid();
  Grid out = in;
  Index* const to[3] = {&out.depth, &out.height, &out.width};
  for (std::size_t a = 0; a < F::dim; ++a) {
    require(extent[a] > 0, "stretch", "extent ", extent[a], " on axis ", a);
    *to[a + 3 - F::dim] = extent[a];
  }
  const bool linear = how == Interpolation::linear;
  const AxisStretch<D> z(in.depth, out.depth, linear), y(in.height, out.height, linear),
      x(in.width, out.width, linear);
  F result(out, source.tracked());
  if constexpr (std::same_as<D, Cpu>)
    D::launch_blocks(out.cases * out.depth * out.height,
                     StretchLine<T>{in, out, linear, z.view(), y.view(), x.view(), source.data(),
                                    result.mutable_data()});
  else
    D::launch_rows(out.rows(), out.channels,
                   StretchKernel<T, D>{in, out, linear, z.view(), y.view(), x.view(), source.data(),
                                       result.mutable_data()});
  forget(input, source);
  record_dense(result, {}, [=](const T* g) {
    const Additions<T> gx = source.gradient_additions();
    if constexpr (!std::same_as<D, Cpu>)
      D::launch_rows(in.rows(), in.channels,
                     StretchPull<T, D>{in, out, z.view(), y.view(), x.view(), g, gx});
    else if (in.channels < 16)
      D::launch_blocks(in.cases * in.depth * in.height,
                       StretchLinePull<T>{in, out, z.view(), y.view(), x.view(), g, gx});
    else
      D::launch_blocks(StretchBlockPull<T>::items(in),
                       StretchBlockPull<T>{in, out, z.view(), y.view(), x.view(), g, gx});
  });
  return result;
}
/// Stretches every axis by its factor.
template <FeatureMap F>
F upsample(const F& x, const std::array<Index, F::dim>& factor, Interpolation how) {
  const Grid g = x.grid();
  const Index extents[3] = {g.depth, g.height, g.width};
  std::array<Index, F::dim> extent;
  for (std::size_t a = 0; a < F::dim; ++a) extent[a] = extents[a + 3 - F::dim] * factor[a];
  return stretch(x, extent, how);
}

}  // namespace segmed
