// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include <doctest/doctest.h>

#include <segmed/backend/convolution.hpp>
#include <segmed/backend/cpu.hpp>
#include <segmed/core/random.hpp>

namespace {
using namespace segmed;

// Numbers in plain vectors, as a convolution takes them.
template <class T>
struct Problem {
  Window w;
  bool two_sources = false, two_parts = false, pending = false, gradient = false, add = false;
  std::uint64_t seed = 1;

  std::vector<T> random(Index n, std::uint64_t stream) const {
    std::vector<T> x(std::size_t(std::max<Index>(n, 0)));
    const Philox philox{seed, Purpose::noise, std::uint32_t(stream), 0};
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = T(philox.normal(Index(i)));
    return x;
  }
};

// A feed over a grid, with everything that it points to.
template <class T>
struct Fed {
  Feed<T> feed;
  std::vector<T> x[2], scale[2], shift[2], slope[2], direct, seen;
  std::vector<double> moments;

  Fed(const Problem<T>& p, const Grid& grid, std::uint64_t stream) {
    const Index first = p.two_sources ? (grid.channels + 1) / 2 : grid.channels;
    for (int i = 0; i < 2; ++i) {
      const Grid part = grid.with_channels(i ? grid.channels - first : first);
      if (part.channels == 0) continue;
      Lane<T>& lane = p.gradient ? feed.gradient.view : feed.values.lane[i];
      if (p.gradient && i == 1) continue;
      const std::uint64_t s = stream + 10 * std::uint64_t(i);
      lane.grid = p.gradient ? grid : part;
      x[i] = p.random(lane.grid.size(), s);
      lane.x = x[i].data();
      if (!p.pending) continue;
      scale[i] = p.random(lane.grid.pairs(), s + 1), shift[i] = p.random(lane.grid.pairs(), s + 2);
      lane.scale = scale[i].data(), lane.shift = shift[i].data();
      if (i == 0) {
        slope[i] = p.random(lane.grid.pairs(), s + 3);
        lane.slope = slope[i].data();
      } else {
        lane.leak = T(0.01);
      }
    }
    if (!p.gradient) return;
    feed.is_gradient = true;
    direct = p.random(grid.size(), stream + 4), seen = p.random(grid.size(), stream + 5);
    feed.gradient.direct = direct.data(), feed.gradient.seen = seen.data();
    for (const T m : p.random(2 * grid.pairs(), stream + 6)) moments.push_back(0.1 * double(m));
    feed.gradient.moments = moments.data();
  }
  // The same numbers, written down.
  Feed<T> materialised(const Grid& grid, std::vector<T>& store) const {
    store.clear();
    for (Index n = 0; n < grid.cases; ++n)
      for (Index v = 0; v < grid.voxels(); ++v)
        for (Index c = 0; c < grid.channels; ++c) store.push_back(T(feed({n, v, c})));
    Feed<T> plain;
    plain.values.lane[0].grid = grid, plain.values.lane[0].x = store.data();
    return plain;
  }
};

template <class T>
struct Drained {
  Sink<T> sink;
  std::vector<T> out[2], bias;
  std::vector<double> moments;

  Drained(const Problem<T>& p, const Grid& grid) {
    const Index first = p.two_parts ? (grid.channels + 1) / 2 : grid.channels;
    for (int i = 0; i < 2; ++i) {
      sink.grid[i] = grid.with_channels(i ? grid.channels - first : first);
      if (sink.grid[i].channels == 0) continue;
      out[i] = p.random(sink.grid[i].size(), 40 + std::uint64_t(i));
      sink.out[i] = out[i].data();
    }
    sink.add[0] = sink.add[1] = p.add;
    if (p.add) return;
    bias = p.random(grid.channels, 50);
    sink.bias = bias.data();
    moments.assign(std::size_t(2 * grid.pairs()), -1.0);
    sink.moments = moments.data();
  }
  Drained(const Drained&) = delete;
};

template <class A, class B>
double distance(const A& a, const B& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0, scale = 1e-30;
  for (std::size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(double(a[i]) - double(b[i])));
    scale = std::max(scale, std::abs(double(b[i])));
  }
  return worst / scale;
}
// Relative, in the square mean.
template <class A, class B>
double mean_distance(const A& a, const B& b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = double(a[i]) - double(b[i]);
    difference += d * d, size += double(b[i]) * double(b[i]);
  }
  return std::sqrt(difference / size);
}
template <class A>
bool same_bits(const A& a, const A& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0);
}

template <class T>
constexpr double tolerance = sizeof(T) == 4 ? 3e-5 : 1e-12;

template <class T>
void check_write(const Problem<T>& p, bool to_coarse) {
  const Grid from = to_coarse ? p.w.fine : p.w.coarse, to = to_coarse ? p.w.coarse : p.w.fine;
  const Fed<T> fed(p, from, 1);
  const std::vector<T> weight = p.random(p.w.weights(), 30);
  const auto run = [&](const Feed<T>& feed, Drained<T>& into) {
    if (to_coarse)
      Cpu::gather(p.w, feed, weight.data(), into.sink);
    else
      Cpu::scatter(p.w, feed, weight.data(), into.sink);
  };

  Drained<T> plain(p, to), fast(p, to), again(p, to), written(p, to);
  if (to_coarse)
    Cpu::launch_rows(to.rows(), to.channels,
                     GatherKernel<T>{p.w, fed.feed, weight.data(), plain.sink});
  else
    Cpu::launch_rows(to.rows(), to.channels,
                     ScatterKernel<T>{p.w, fed.feed, weight.data(), plain.sink});
  set_threads(1);
  run(fed.feed, fast);
  CHECK(distance(fast.out[0], plain.out[0]) < tolerance<T>);
  CHECK(distance(fast.out[1], plain.out[1]) < tolerance<T>);
  if (!p.add && !p.two_parts) {
    Lane<T> lane;
    lane.grid = to, lane.x = fast.out[0].data();
    std::vector<double> moments(std::size_t(2 * to.pairs()));
    Cpu::launch(to.pairs(), ChannelMoments<T>{lane, moments.data()});
    // Summed in runs of T, as passes over maps do.
    CHECK(distance(fast.moments, moments) < (sizeof(T) == 4 ? 1e-6 : 1e-12));
  }
  for (const int count : {2, 4}) {
    Drained<T> more(p, to);
    set_threads(count);
    run(fed.feed, more);
    CHECK(same_bits(more.out[0], fast.out[0]));
    CHECK(same_bits(more.out[1], fast.out[1]));
    CHECK(same_bits(more.moments, fast.moments));
  }
  std::vector<T> store;
  run(fed.materialised(from, store), written);
  CHECK(same_bits(written.out[0], fast.out[0]));
  CHECK(same_bits(written.out[1], fast.out[1]));
  CHECK(same_bits(written.moments, fast.moments));
}

template <class T>
void check_weigh(const Problem<T>& p) {
  Problem<T> gradient = p;
  gradient.gradient = true, gradient.two_sources = false;
  const Fed<T> fine(p, p.w.fine, 1), coarse(gradient, p.w.coarse, 20);
  const std::vector<T> start = p.random(p.w.weights(), 30);
  std::vector<T> plain = start, fast = start, written = start, fine_store, coarse_store;
  Cpu::launch_rows(p.w.taps() * p.w.fine.channels / p.w.groups, p.w.coarse.channels,
                   WeighKernel<T>{p.w, fine.feed, coarse.feed, plain.data()});
  set_threads(1);
  Cpu::weigh(p.w, fine.feed, coarse.feed, fast.data());
  CHECK(distance(fast, plain) < tolerance<T>);
  for (const int count : {2, 4}) {
    std::vector<T> more = start;
    set_threads(count);
    Cpu::weigh(p.w, fine.feed, coarse.feed, more.data());
    CHECK(same_bits(more, fast));
  }
  Cpu::weigh(p.w, fine.materialised(p.w.fine, fine_store),
             coarse.materialised(p.w.coarse, coarse_store), written.data());
  CHECK(same_bits(written, fast));
}

Index out_extent(Index in, Index kernel, Index stride, Index padding, Index dilation) {
  return (in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}
Window window(Grid fine, Index outputs, Index kernel, Index stride, Index padding,
              Index dilation = 1, Index groups = 1) {
  Window w;
  w.fine = fine, w.coarse = fine.with_channels(outputs), w.groups = groups;
  Index* out[3] = {&w.coarse.depth, &w.coarse.height, &w.coarse.width};
  const bool flat = fine.depth == 1;
  for (int a = 0; a < 3; ++a) {
    if (flat && a == 0) continue;
    w.kernel[a] = kernel, w.stride[a] = stride, w.padding[a] = padding, w.dilation[a] = dilation;
    *out[a] = out_extent(*out[a], kernel, stride, padding, dilation);
  }
  return w;
}

template <class T>
void check_all(Problem<T> p) {
  CAPTURE(p.w.fine);
  CAPTURE(p.w.coarse);
  for (const bool to_coarse : {true, false}) {
    CAPTURE(to_coarse);
    for (int mode = 0; mode < 5; ++mode) {
      CAPTURE(mode);
      Problem<T> q = p;
      q.pending = mode == 1 || mode == 2 || mode == 4, q.two_sources = mode == 2;
      q.gradient = mode >= 3, q.add = mode >= 3, q.two_parts = mode == 4;
      check_write(q, to_coarse);
    }
  }
  check_weigh(p);
  p.pending = p.two_sources = true;
  check_weigh(p);
}

}  // namespace

TEST_SUITE("backend/convolution") {
  TEST_CASE_TEMPLATE("fast kernels agree with the plain ones", T, float, double) {
    std::uint64_t seed = 1;
    for (const Window& w : {
             window({2, 5, 6, 7, 3}, 5, 3, 1, 1),
             window({1, 9, 8, 10, 16}, 16, 3, 1, 1),
             window({1, 4, 5, 6, 40}, 33, 3, 1, 1),
             window({2, 7, 9, 5, 4}, 17, 3, 2, 1),
             window({1, 8, 8, 8, 8}, 24, 2, 2, 0),
             window({2, 7, 6, 11, 8}, 12, 2, 2, 0, 1, 2),
             window({1, 6, 7, 5, 32}, 3, 1, 1, 0),
             window({1, 6, 7, 5, 70}, 11, 1, 2, 0),
             window({2, 1, 17, 13, 6}, 9, 3, 1, 1),
             window({1, 9, 9, 9, 6}, 8, 3, 1, 2, 2, 2),
             window({1, 8, 7, 9, 12}, 12, 3, 2, 1, 1, 4),
             window({1, 7, 6, 5, 2}, 4, 5, 3, 2),
             window({1, 1, 1, 1, 20}, 20, 3, 1, 1),
             // Rows of one cell more than are summed at once, and tiles that share rows.
             window({2, 3, 7, 41, 9}, 3, 1, 1, 0),
             window({1, 5, 6, 25, 6}, 1, 3, 1, 1),
             window({1, 6, 24, 49, 5}, 11, 3, 1, 1),
         }) {
      Problem<T> p;
      p.w = w, p.seed = seed++;
      check_all(p);
    }
  }
  TEST_CASE_TEMPLATE("one tap between whole vectors of channels and few", T, float, double) {
    std::uint64_t seed = 300;
    for (const Window& w : {
             window({2, 5, 7, 31, 32}, 11, 1, 1, 0),  // more than a task, and part of a piece
             window({1, 9, 5, 13, 16}, 2, 1, 1, 0),
             window({2, 3, 5, 7, 48}, 14, 1, 1, 0),
             window({1, 4, 5, 6, 64}, 4, 1, 1, 0),
             window({1, 6, 5, 9, 32}, 5, 1, 1, 0),
             window({3, 1, 1, 3, 32}, 1, 1, 1, 0),  // fewer voxels than are made at once
             window({1, 5, 5, 5, 32}, 16, 1, 1, 0),
             window({2, 1, 13, 11, 8}, 7, 1, 1, 0),  // vectors of one set and not of another
             window({1, 7, 5, 9, 3}, 32, 1, 1, 0),   // the other way
             window({2, 4, 9, 35, 12}, 16, 1, 1, 0),
         }) {
      Problem<T> p;
      p.w = w, p.seed = seed++;
      check_all(p);
    }
  }
  TEST_CASE_TEMPLATE("kernels of a channel each agree with the plain ones", T, float, double) {
    std::uint64_t seed = 200;
    for (const Window& w : {
             window({2, 6, 7, 13, 32}, 32, 3, 1, 1, 1, 32),
             window({1, 5, 4, 3, 21}, 21, 3, 1, 1, 1, 21),   // channels beside whole vectors
             window({1, 9, 8, 11, 5}, 5, 3, 2, 1, 1, 5),     // phases
             window({1, 9, 7, 12, 19}, 19, 3, 1, 2, 2, 19),  // between neighbours
             window({1, 5, 6, 9, 70}, 70, 2, 2, 0, 1, 70),   // several chunks
             window({2, 1, 19, 23, 16}, 16, 5, 1, 2, 1, 16),
             window({1, 7, 8, 9, 6}, 6, 1, 3, 0, 1, 6),  // voxels that nothing reaches
         }) {
      Problem<T> p;
      p.w = w, p.seed = seed++;
      check_all(p);
    }
  }
  TEST_CASE_TEMPLATE("plain sums leave out taps beyond the grid", T, float, double) {
    std::uint64_t seed = 90;
    set_convolution_mode(ConvolutionMode::direct);
    for (const Window& w : {
             window({2, 6, 6, 6, 40}, 40, 3, 1, 1),        // more at the border than within
             window({1, 3, 1, 7, 33}, 20, 3, 1, 2),        // cells that most taps leave
             window({1, 9, 8, 7, 32}, 48, 3, 2, 1),        // a stride
             window({1, 7, 9, 5, 24}, 24, 3, 1, 2, 2),     // taps apart
             window({1, 2, 3, 2, 24}, 24, 3, 1, 4, 4),     // rows that one tap alone reaches
             window({1, 1, 13, 11, 64}, 17, 5, 1, 2),      // two axes
             window({1, 6, 5, 4, 48}, 48, 3, 1, 1, 1, 2),  // groups
             window({1, 3, 2, 3, 216}, 200, 3, 1, 1),      // weights that each task packs
         }) {
      Problem<T> p;
      p.w = w, p.seed = seed++;
      check_all(p);
    }
    set_convolution_mode(ConvolutionMode::automatic);
  }
  TEST_CASE("minimal filtering agrees with plain sums, whatever the tiles") {
    std::uint64_t seed = 50;
    for (const Window& w : {
             window({1, 8, 12, 8, 16}, 16, 3, 1, 1),   // whole tiles of four
             window({2, 6, 7, 9, 8}, 24, 3, 1, 1),     // mixed tiles, cut ones, an odd vector
             window({1, 5, 2, 13, 40}, 17, 3, 1, 1),   // channels beside whole vectors
             window({1, 12, 10, 11, 24}, 8, 3, 1, 0),  // no border
             window({1, 9, 8, 8, 16}, 16, 3, 1, 2),    // a border of two
             window({1, 8, 9, 10, 8}, 8, 3, 1, 1),     // half of a long vector
             window({1, 4, 6, 4, 64}, 32, 3, 1, 1),    // few tiles, many channels
             window({2, 1, 33, 38, 16}, 16, 3, 1, 1),  // two axes
         }) {
      for (const ConvolutionMode mode :
           {ConvolutionMode::automatic, ConvolutionMode::precise, ConvolutionMode::direct}) {
        CAPTURE(name_of(mode));
        set_convolution_mode(mode);
        Problem<float> p;
        p.w = w, p.seed = seed++;
        check_all(p);
      }
      set_convolution_mode(ConvolutionMode::automatic);
    }
  }
  TEST_CASE("many groups of tiles, several runs of them") {
    Problem<float> p;
    Window flat = window({2, 6, 40, 36, 16}, 16, 3, 1, 1);  // a kernel of (1, 3, 3)
    flat.kernel[0] = 1, flat.padding[0] = 0;
    Window tall = window({1, 12, 9, 30, 24}, 8, 3, 1, 1);  // and of (3, 3, 1)
    tall.kernel[2] = 1, tall.padding[2] = 0;
    for (const Window& w :
         {window({2, 24, 42, 40, 16}, 24, 3, 1, 1), window({1, 1, 200, 180, 16}, 16, 3, 1, 1),
          window({1, 16, 20, 20, 112}, 112, 3, 1, 1),  // several boxes of channels
          window({2, 7, 8, 6, 72}, 80, 3, 1, 1),       // weights that serve once
          flat, tall}) {
      p.w = w;
      Problem<float> gradient = p;
      gradient.gradient = gradient.pending = true;
      const Fed<float> fine(p, w.fine, 1), coarse(gradient, w.coarse, 20);
      const std::vector<float> weight = p.random(w.weights(), 30);
      Drained<float> down(p, w.coarse), up(p, w.fine), plain_down(p, w.coarse), plain_up(p, w.fine);
      std::vector<float> grad = weight, plain_grad = weight;
      const auto run = [&](Drained<float>& to_coarse, Drained<float>& to_fine,
                           std::vector<float>& to_weight) {
        Cpu::gather(w, fine.feed, weight.data(), to_coarse.sink);
        Cpu::scatter(w, coarse.feed, weight.data(), to_fine.sink);
        Cpu::weigh(w, fine.feed, coarse.feed, to_weight.data());
      };
      set_threads(2);
      run(down, up, grad);
      set_convolution_mode(ConvolutionMode::direct);
      run(plain_down, plain_up, plain_grad);
      set_convolution_mode(ConvolutionMode::automatic);
      CHECK(mean_distance(down.out[0], plain_down.out[0]) < 1e-5);
      CHECK(mean_distance(up.out[0], plain_up.out[0]) < 1e-5);
      CHECK(mean_distance(grad, plain_grad) < 3e-5);
      CHECK(mean_distance(down.moments, plain_down.moments) < 1e-5);
      // A part may be unwanted, started, or added to.
      for (int mode = 0; mode < 4; ++mode) {
        Problem<float> parts = p;
        parts.two_parts = parts.add = true;
        Drained<float> split(parts, w.coarse);
        const Drained<float> start(parts, w.coarse);
        split.sink.bias = down.sink.bias;
        split.sink.add[0] = mode == 1, split.sink.add[1] = mode == 2;
        if (mode == 0) split.sink.out[1] = nullptr;
        Cpu::gather(w, fine.feed, weight.data(), split.sink);
        const Index first = split.sink.grid[0].channels, second = split.sink.grid[1].channels;
        Index wrong = 0;
        for (Index v = 0; v < w.coarse.rows(); ++v)
          for (Index c = 0; c < first + second; ++c) {
            const int part = c < first ? 0 : 1;
            const auto i = std::size_t(part ? v * second + c - first : v * first + c);
            const float made = down.out[0][std::size_t(v * (first + second) + c)];
            const float before = start.out[part][i];
            const float expected = !split.sink.out[part]  ? before
                                   : split.sink.add[part] ? before + made
                                                          : made;
            wrong += split.out[part][i] != expected;
          }
        CHECK(wrong == 0);
      }
      for (const int threads : {1, 3, 16}) {  // the more there are, the finer the tasks
        set_threads(threads);
        Drained<float> again_down(p, w.coarse), again_up(p, w.fine);
        std::vector<float> again = weight;
        run(again_down, again_up, again);
        CHECK(same_bits(again_down.out[0], down.out[0]));
        CHECK(same_bits(again_down.moments, down.moments));
        CHECK(same_bits(again_up.out[0], up.out[0]));
        CHECK(same_bits(again, grad));
      }
    }
  }
  TEST_CASE("modes are different sums, precise ones as good as plain ones") {
    Problem<float> p;
    Problem<double> q;
    p.w = q.w = window({1, 48, 48, 48, 16}, 16, 3, 1, 1);  // hundreds of runs of tiles
    Fed<float> fine(p, p.w.fine, 1), coarse(p, p.w.coarse, 2);
    SUBCASE("numbers around zero") {}
    SUBCASE("numbers of one sign") {
      for (float& x : fine.x[0]) x += 3;
      for (float& x : coarse.x[0]) x += 2;
    }
    const std::vector<float> weight = p.random(p.w.weights(), 30);
    Fed<double> exact_fine(q, q.w.fine, 1), exact_coarse(q, q.w.coarse, 2);
    std::copy(fine.x[0].begin(), fine.x[0].end(), exact_fine.x[0].begin());
    std::copy(coarse.x[0].begin(), coarse.x[0].end(), exact_coarse.x[0].begin());
    const std::vector<double> same_weight(weight.begin(), weight.end());
    const auto run = [](const auto& of, const auto& from_fine, const auto& from_coarse,
                        const auto& weights, auto& results) {
      Drained down(of, of.w.coarse), up(of, of.w.fine);
      down.sink.bias = up.sink.bias = nullptr;
      results[2] = weights;
      std::fill(results[2].begin(), results[2].end(), 0);
      Cpu::gather(of.w, from_fine, weights.data(), down.sink);
      Cpu::scatter(of.w, from_coarse, weights.data(), up.sink);
      Cpu::weigh(of.w, from_fine, from_coarse, results[2].data());
      results[0] = down.out[0], results[1] = up.out[0];
    };
    std::vector<double> truth[3];
    run(q, exact_fine.feed, exact_coarse.feed, same_weight, truth);
    std::vector<float> results[3][3];
    for (int mode = 0; mode < 3; ++mode) {
      set_convolution_mode(ConvolutionMode(mode));
      run(p, fine.feed, coarse.feed, weight, results[mode]);
    }
    set_convolution_mode(ConvolutionMode::automatic);
    for (int pass = 0; pass < 3; ++pass) {
      CAPTURE(pass);
      double error[3];
      for (int mode = 0; mode < 3; ++mode)
        error[mode] = mean_distance(results[mode][pass], truth[pass]);
      CHECK(error[0] < 1e-5);
      CHECK(error[1] <= error[2]);
      CHECK_FALSE(same_bits(results[0][pass], results[1][pass]));
      CHECK_FALSE(same_bits(results[1][pass], results[2][pass]));
    }
  }
  TEST_CASE("a gradient of many weights is summed precisely a part of its outputs at a time") {
    Problem<float> p;
    p.w = window({1, 5, 6, 4, 256}, 300, 3, 1, 1);
    const Fed<float> fine(p, p.w.fine, 1), coarse(p, p.w.coarse, 2);
    const std::vector<float> start = p.random(p.w.weights(), 30);
    std::vector<float> results[2] = {start, start};
    set_convolution_mode(ConvolutionMode::precise);
    const std::size_t before = Memory::current().used();
    Memory::current().forget_peak();
    Cpu::weigh(p.w, fine.feed, coarse.feed, results[0].data());
    // Beside the sums: the frequencies of both sides, and what threads keep.
    CHECK(Memory::current().peak() - before < std::size_t(32) << 20);
    set_convolution_mode(ConvolutionMode::direct);
    Cpu::weigh(p.w, fine.feed, coarse.feed, results[1].data());
    set_convolution_mode(ConvolutionMode::automatic);
    CHECK_FALSE(same_bits(results[0], results[1]));
    CHECK(mean_distance(results[0], results[1]) < 1e-6);
  }
  TEST_CASE("sums of a gradient take at most 16 MiB, whatever the shape and the threads") {
    set_convolution_mode(ConvolutionMode::direct);
    Window large = window({1, 2, 3, 4, 300}, 420, 3, 1, 1);  // sums of 28 MB
    Window grouped = window({1, 5, 8, 9, 96}, 132, 5, 2, 2, 1, 3);
    Window wide = window({1, 3, 3, 3, 26}, 64, 11, 1, 5);  // 1331 taps
    for (const Window& w : {large, grouped, wide}) {
      CAPTURE(w.fine);
      Problem<float> p;
      p.w = w;
      const Fed<float> fine(p, w.fine, 1), coarse(p, w.coarse, 2);
      const std::vector<float> start = p.random(w.weights(), 30);
      std::vector<float> first, some, plain_some = start;
      for (const int count : {1, 2, 7}) {
        std::vector<float> made = start;
        set_threads(count);
        Cpu::weigh(w, fine.feed, coarse.feed, made.data());  // threads' own scratch stays
        made = start;
        Memory::current().forget_peak();
        const std::size_t before = Memory::current().used();
        Cpu::weigh(w, fine.feed, coarse.feed, made.data());
        // A thread that only now has work to do takes its scratch as well.
        CHECK(Memory::current().peak() - before < (std::size_t(16 + 3 * count) << 20));
        if (first.empty()) first = made;
        CHECK(same_bits(made, first));
      }
      const WeighKernel<float> plain{w, fine.feed, coarse.feed, plain_some.data()};
      std::size_t kept = 0;
      for (Index i = 0; i < w.weights(); i += 61, ++kept) {
        plain(i / w.coarse.channels, i % w.coarse.channels);
        some.push_back(first[std::size_t(i)]), plain_some[kept] = plain_some[std::size_t(i)];
      }
      plain_some.resize(kept);
      CHECK(distance(some, plain_some) < tolerance<float>);
    }
    set_convolution_mode(ConvolutionMode::automatic);
  }
  TEST_CASE("an unknown mode is refused") {
    CHECK_THROWS_WITH_AS(
        convolution_mode_of("fast"),
        "segmed: SEGMED_CONV: no mode named fast; choose one of auto, precise, direct",
        ConfigError);
  }
  TEST_CASE("a stride beyond the kernel leaves voxels that nothing reaches") {
    Problem<float> p;
    p.w = window({1, 7, 8, 9, 5}, 6, 1, 3, 0);
    check_all(p);
    p.w = window({2, 6, 4, 8, 5}, 6, 2, 2, 0);
    p.w.fine.depth += 3;  // as a transposed convolution with output padding
    check_all(p);
  }
  TEST_CASE("a result too large for the caches is written past them") {
    const Grid coarse{1, 32, 32, 32, 3}, fine{1, 64, 64, 64, 32};
    Window w;
    w.coarse = coarse, w.fine = fine;
    for (int a = 0; a < 3; ++a) w.kernel[a] = w.stride[a] = 2;
    Problem<float> p;
    const std::vector<float> x = p.random(coarse.size(), 1), weight = p.random(w.weights(), 2);
    Feed<float> feed;
    feed.values.lane[0].grid = coarse, feed.values.lane[0].x = x.data();
    const Scratch<float> out(fine.size());
    Sink<float> sink;
    sink.grid[0] = fine, sink.out[0] = out.data();
    std::vector<double> moments(std::size_t(2 * fine.channels)), exact(moments.size());
    for (const bool summed : {false, true}) {
      set_threads(summed ? 1 : 2);
      sink.moments = summed ? moments.data() : nullptr;
      std::fill_n(out.data(), fine.size(), -9.0f);
      Cpu::scatter(w, feed, weight.data(), sink);
      Index wrong = 0;
      for (Index u = 0; u < fine.voxels(); ++u)
        for (Index k = 0; k < w.taps(); ++k) {
          const Index v = w.coarse_voxel(u, k);
          if (v < 0) continue;
          for (Index c = 0; c < fine.channels; ++c) {
            double sum = 0;
            for (Index o = 0; o < coarse.channels; ++o)
              sum += double(x[std::size_t(v * coarse.channels + o)]) *
                     double(weight[std::size_t((k * fine.channels + c) * coarse.channels + o)]);
            const double made = double(out.data()[u * fine.channels + c]);
            if (!(std::abs(made - sum) < 1e-5)) ++wrong;
            if (summed)
              exact[std::size_t(2 * c)] += made, exact[std::size_t(2 * c + 1)] += made * made;
          }
        }
      CHECK(wrong == 0);
    }
    CHECK(distance(moments, exact) < 1e-6);
  }
  TEST_CASE("a map too large for the caches is read where it lies") {
    Problem<float> p;
    p.w = window({1, 45, 47, 51, 24}, 20, 2, 2, 0);
    const std::vector<float> x = p.random(p.w.fine.size(), 1), weight = p.random(p.w.weights(), 2);
    Feed<float> feed;
    feed.values.lane[0].grid = p.w.fine, feed.values.lane[0].x = x.data();
    Drained<float> fast(p, p.w.coarse), plain(p, p.w.coarse);
    Cpu::gather(p.w, feed, weight.data(), fast.sink);
    Cpu::launch_rows(p.w.coarse.rows(), p.w.coarse.channels,
                     GatherKernel<float>{p.w, feed, weight.data(), plain.sink});
    CHECK(distance(fast.out[0], plain.out[0]) < tolerance<float>);
  }
  TEST_CASE("rows that share lines of the cache are written past it") {
    // The second case begins within a line.
    const Grid fine{2, 61, 63, 67, 16}, coarse = fine.with_channels(11);
    Window w;
    w.fine = fine, w.coarse = coarse;
    Problem<float> p;
    const std::vector<float> x = p.random(fine.size(), 1), weight = p.random(w.weights(), 2),
                             bias = p.random(11, 3);
    Feed<float> feed;
    feed.values.lane[0].grid = fine, feed.values.lane[0].x = x.data();
    const Scratch<float> out(coarse.size() + 16);
    for (const Index off : {0, 3}) {
      Sink<float> sink;
      sink.grid[0] = coarse, sink.out[0] = out.data() + off, sink.bias = bias.data();
      set_threads(2);
      std::fill_n(out.data(), coarse.size() + 16, -9.0f);
      Cpu::gather(w, feed, weight.data(), sink);
      Index wrong = 0;
      for (Index v = 0; v < coarse.rows(); ++v)
        for (Index o = 0; o < 11; ++o) {
          double sum = double(bias[std::size_t(o)]);
          for (Index c = 0; c < 16; ++c)
            sum += double(x[std::size_t(v * 16 + c)]) * double(weight[std::size_t(c * 11 + o)]);
          if (!(std::abs(double(sink.out[0][v * 11 + o]) - sum) < 1e-4)) ++wrong;
        }
      CHECK(wrong == 0);
      for (Index i = 0; i < off; ++i) CHECK(out.data()[i] == -9.0f);
      for (Index i = off; i < 16; ++i) CHECK(out.data()[coarse.size() + i] == -9.0f);
    }
  }
  TEST_CASE("moments tell the variance of sums that are far from zero") {
    for (const Index kernel : {1, 3}) {
      Problem<float> p;
      p.w = window({1, 8, 12, 40, 8}, 11, kernel, 1, kernel / 2);
      const Fed<float> fed(p, p.w.fine, 1);
      const std::vector<float> weight = p.random(p.w.weights(), 30);
      Drained<float> made(p, p.w.coarse);
      for (float& b : made.bias) b += 300;
      Cpu::gather(p.w, fed.feed, weight.data(), made.sink);
      const Grid& grid = p.w.coarse;
      const double count = double(grid.voxels());
      for (Index c = 0; c < grid.channels; ++c) {
        double mean = 0, variance = 0;
        for (Index v = 0; v < grid.voxels(); ++v)
          mean += double(made.out[0][std::size_t(v * grid.channels + c)]) / count;
        for (Index v = 0; v < grid.voxels(); ++v) {
          const double d = double(made.out[0][std::size_t(v * grid.channels + c)]) - mean;
          variance += d * d / count;
        }
        const double* m = &made.moments[std::size_t(2 * c)];
        CHECK(m[1] / count - m[0] / count * (m[0] / count) ==
              doctest::Approx(variance).epsilon(1e-4));
      }
    }
  }
}
