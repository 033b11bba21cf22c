// SPDX-License-Identifier: Apache-2.0
// Convolutions in which each channel has a kernel of its own. Read once per instruction set: see
// simd.hpp.
//
// As in convolve.hpp a task packs the source box of a tile of cells; here vectors are of channels,
// and a number of the source meets one weight per tap.
#include <segmed/backend/kernels/weigh.hpp>

namespace segmed::SEGMED_SET {

inline bool is_depthwise(const Window& w) {
  return w.groups > 1 && w.groups == w.fine.channels && w.groups == w.coarse.channels;
}

// As many neighbouring cells as there are r: the sums over taps of a vector of channels. Tap t
// reads offset[t] behind a cell; its weights are w_step behind those before.
template <class T, std::size_t... r>
[[gnu::always_inline]] inline void sum_cells(const T* from, Index step, const Index* offset,
                                             Index taps, const T* w, Index w_step, T* to,
                                             Index to_step, std::index_sequence<r...>) {
  Vector<T> sum[] = {(static_cast<void>(r), Vector<T>{})...};
  for (Index t = 0; t < taps; ++t, w += w_step) {
    const T* const at = from + offset[t];
    const Vector<T> weight = load(w);
    ((sum[r] = accumulate<T>(load(at + Index(r) * step), weight, sum[r])), ...);
  }
  ((store(to + Index(r) * to_step, sum[r])), ...);
}
// A row of cells. The last ones are made with some before them once more.
template <class T, Index count>
[[gnu::noinline]] void sum_row(const T* from, Index step, const Index* offset, Index taps,
                               const T* w, Index w_step, Index cells, T* to, Index to_step) {
  for (Index x = 0; x < cells; x += count) {
    const Index i = std::min(x, cells - count);
    sum_cells<T>(from + i * step, step, offset, taps, w, w_step, to + i * to_step, to_step,
                 std::make_index_sequence<std::size_t(count)>{});
  }
}

// Channels in chunks whose boxes stay in the second-level cache.
struct ChannelChunks {
  static constexpr Index most = 64;
  Index channels, padded;

  Index count() const { return pieces(channels, most); }
  Index first(Index i) const { return i * most; }
  Index live(Index i) const { return std::min(most, channels - first(i)); }
  Index width(Index i) const { return std::min(most, padded - first(i)); }
};

// Where the taps of a plan read in a box whose voxels are `width` numbers apart.
template <int place>
const Index* tap_offsets(const Plan& plan, const Box& box, Index width) {
  Index* const offset = thread_scratch<Index, place>(Index(plan.taps.size()));
  for (std::size_t t = 0; t < plan.taps.size(); ++t) {
    const Index(&at)[3] = plan.taps[t].offset;
    offset[t] = (((at[0] - plan.low[0]) * box.size[1] + at[1] - plan.low[1]) * box.size[2] + at[2] -
                 plan.low[2]) *
                width;
  }
  return offset;
}
// Zeros where channels do not exist.
template <class T>
void read_channels(const Feed<T>& feed, const Grid& grid, Index n, const ChannelChunks& chunks,
                   Index chunk, const Box& box, T* to) {
  const Index width = chunks.width(chunk), live = chunks.live(chunk);
  if (live < width) std::fill_n(to, box.voxels() * width, T(0));
  read_box(FeedRows<T>(feed, n, chunks.first(chunk), live), grid, box, width, to);
}

template <class T>
struct Depthwise {
  const Plan& plan;
  const ChannelChunks& chunks;
  const Feed<T>& feed;
  const Sink<T>& sink;
  const T* weights;  // (tap of the plan, padded channels)
  double* moments;   // (case, tile, sum or square, padded channels)

  Index tasks() const { return plan.target.cases * plan.tiles() * chunks.count(); }
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) run(i / chunks.count(), i % chunks.count());
  }

 private:
  void run(Index case_tile, Index chunk) const {
    constexpr Index L = lanes<T>;
    const Index n = case_tile / plan.tiles(), c0 = chunks.first(chunk);
    const Index width = chunks.width(chunk), padded = chunks.padded;
    Index first[3], extent[3];
    plan.locate(case_tile % plan.tiles(), first, extent);
    const Box box = plan.source_box(first, extent);
    T* const packed = thread_scratch<T, 0>(box.voxels() * width);
    read_channels(feed, plan.source, n, chunks, chunk, box, packed);
    const Index* const offset = tap_offsets<2>(plan, box, width);
    T* const sums = thread_scratch<T, 1>(extent[2] * width);
    double* const total = moments ? moments + case_tile * 2 * padded + c0 : nullptr;
    const T* const bias = sink.bias ? sink.bias + c0 : nullptr;
    const Index step = plan.source_step[2] * width;
    for (const Phase& phase : plan.phases) {
      const Plan::Place place = plan.place_of(first, extent, phase);
      const T* const w = weights + phase.first_tap * padded + c0;
      for (Index z = 0; z < place.size[0]; ++z)
        for (Index y = 0; y < place.size[1]; ++y) {
          const T* const from =
              packed + (z * plan.source_step[0] * box.size[1] + y * plan.source_step[1]) *
                           box.size[2] * width;
          const auto sum = place.size[2] >= 8   ? sum_row<T, 8>
                           : place.size[2] >= 4 ? sum_row<T, 4>
                                                : sum_row<T, 1>;
          for (Index c = 0; c < width; c += L)
            sum(from + c, step, offset + phase.first_tap, phase.taps, w + c, padded, place.size[2],
                sums + c, width);
          put_box(sink, {1, 1, place.size[2]}, plan.voxel_at(n, place, z, y),
                  {0, 0, plan.target_step[2]}, c0, chunks.live(chunk), sums, {0, 0, width}, bias,
                  total, padded);
        }
    }
  }
};

template <class T>
void convolve_depthwise(const Window& w, bool to_coarse, const Feed<T>& feed, const T* weight,
                        const Sink<T>& sink) {
  Plan plan(w, to_coarse);
  const Index channels = w.groups, taps = Index(plan.taps.size());
  const ChannelChunks chunks{channels, pieces(channels, lanes<T>) * lanes<T>};
  const auto cells = [&] { return plan.tile[0] * plan.tile[1] * plan.tile[2]; };
  std::copy(plan.cells, plan.cells + 3, plan.tile);
  cut_tile(plan.tile, std::max<Index>(32, 1024 / Index(plan.phases.size())));
  while (plan.target.cases * plan.tiles() * chunks.count() < 16 && cells() > 64)
    cut_tile(plan.tile, cells() - 1);

  const Scratch<T> turned(taps * chunks.padded);
  std::fill_n(turned.data(), taps * chunks.padded, T(0));
  for (Index t = 0; t < taps; ++t)
    std::copy_n(weight + plan.taps[std::size_t(t)].weight * channels, channels,
                turned.data() + t * chunks.padded);
  Scratch<double> parts;
  const Index all = plan.target.cases * plan.tiles() * 2 * chunks.padded;
  if (sink.moments) std::fill_n(parts.grow(all), all, 0.0);
  const Depthwise<T> work{plan, chunks, feed, sink, turned.data(), parts.data()};
  parallel_for(work.tasks(), 1, work);
  if (sink.moments)
    parallel_for(plan.target.pairs(), 64,
                 MergeMoments{parts.data(), plan.tiles(), channels, channels, chunks.padded,
                              chunks.padded, sink.moments});
}

// Sums over cells of the products with as many taps as there are r, rows of cells at each of
// runs.start.
template <class T, std::size_t... r>
[[gnu::noinline]] void sum_products(const T* from, const Index* offset, const Runs& runs,
                                    const T* g, Index g_step, T* to, std::index_sequence<r...>) {
  const T* const at[] = {from + offset[r]...};
  Vector<T> sum[] = {(static_cast<void>(r), Vector<T>{})...};
  for (Index k = 0; k < runs.count; ++k)
    for (Index x = 0, i = runs.start[k]; x < runs.length; ++x, i += runs.step, g += g_step) {
      const Vector<T> value = load(g);
      ((sum[r] = accumulate<T>(load(at[r] + i), value, sum[r])), ...);
    }
  ((store(to + Index(r) * lanes<T>, sum[r])), ...);
}

// A tile's sums are made in T, then added in double.
template <class T>
struct WeighDepthwise {
  static constexpr Index at_once = 9;  // taps

  const Plan& plan;
  const ChannelChunks& chunks;
  const Feed<T>&fine, &coarse;
  Index partials;
  double* sums;  // (partial, tap, padded channels)

  Index tasks() const { return partials * chunks.count(); }
  void operator()(Index begin, Index end) const {
    for (Index i = begin; i < end; ++i) run(i / chunks.count(), i % chunks.count());
  }

 private:
  void run(Index partial, Index chunk) const {
    constexpr Index L = lanes<T>;
    const Index taps = Index(plan.taps.size()), width = chunks.width(chunk);
    double* const total = sums + partial * taps * chunks.padded + chunks.first(chunk);
    for (Index t = 0; t < taps; ++t) std::fill_n(total + t * chunks.padded, width, 0.0);
    const Index tiles = plan.target.cases * plan.tiles();
    for (Index i = partial * tiles / partials; i < (partial + 1) * tiles / partials; ++i) {
      Index first[3], extent[3];
      plan.locate(i % plan.tiles(), first, extent);
      const Box box = plan.source_box(first, extent);
      const Box own{{first[0], first[1], first[2]}, {extent[0], extent[1], extent[2]}};
      T* const values = thread_scratch<T, 0>(box.voxels() * width);
      T* const grads = thread_scratch<T, 1>(own.voxels() * width);
      read_channels(fine, plan.source, i / plan.tiles(), chunks, chunk, box, values);
      read_channels(coarse, plan.target, i / plan.tiles(), chunks, chunk, own, grads);
      const Index* const offset = tap_offsets<2>(plan, box, width);
      Index* const start = thread_scratch<Index, 5>(extent[0] * extent[1]);
      for (Index z = 0; z < extent[0]; ++z)
        for (Index y = 0; y < extent[1]; ++y)
          start[z * extent[1] + y] =
              (z * plan.source_step[0] * box.size[1] + y * plan.source_step[1]) * box.size[2] *
              width;
      const Runs runs{start, extent[0] * extent[1], extent[2], plan.source_step[2] * width};
      alignas(vector_bytes) T made[at_once * L];
      for (Index c = 0; c < width; c += L)
        for (Index t = 0; t < taps; t += at_once) {
          const Index here = std::min(at_once, taps - t);
          if (here == at_once)
            sum_products(values + c, offset + t, runs, grads + c, width, made,
                         std::make_index_sequence<std::size_t(at_once)>{});
          else
            for (Index k = 0; k < here; ++k)
              sum_products(values + c, offset + t + k, runs, grads + c, width, made + k * L,
                           std::make_index_sequence<1>{});
          for (Index k = 0; k < here; ++k)
            for (Index o = 0; o < L; o += lanes<double>) {
              double* const sum = total + (t + k) * chunks.padded + c + o;
              store(sum, load(sum) + widened(made + k * L + o));
            }
        }
    }
  }
};

template <class T>
void weigh_depthwise(const Window& w, const Feed<T>& fine, const Feed<T>& coarse, T* weight_grad) {
  Plan plan(w, true);
  const Index channels = w.groups, taps = Index(plan.taps.size());
  const ChannelChunks chunks{channels, pieces(channels, lanes<T>) * lanes<T>};
  std::copy(plan.cells, plan.cells + 3, plan.tile);
  cut_tile(plan.tile, 512);
  const Index tiles = plan.target.cases * plan.tiles(), numbers = taps * chunks.padded;
  const Index most = (Index(16) << 20) / Index(sizeof(double)) / numbers;
  const Index partials = std::max<Index>(1, std::min({tiles / 2, most, Index(32)}));
  const Scratch<double> sums(partials * numbers);
  const WeighDepthwise<T> work{plan, chunks, fine, coarse, partials, sums.data()};
  parallel_for(work.tasks(), 1, work);
  for (Index t = 0; t < taps; ++t) {
    T* const to = weight_grad + plan.taps[std::size_t(t)].weight * channels;
    for (Index c = 0; c < channels; ++c) {
      double total = 0;
      for (Index p = 0; p < partials; ++p)
        total += sums.data()[p * numbers + t * chunks.padded + c];
      to[c] += T(total);
    }
  }
}

}  // namespace segmed::SEGMED_SET
