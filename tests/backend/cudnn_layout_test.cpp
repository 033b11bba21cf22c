// SPDX-License-Identifier: Apache-2.0
// What surrounds cuDNN, on the host: a loop over strides takes its place.
#include "cudnn_problem.hpp"
#include "dense_loop.hpp"
#include "teamed_host.hpp"
#include <segmed/autograd/convolution.hpp>
#include <segmed/autograd/gradient_check.hpp>
#include <segmed/autograd/group.hpp>
#include <segmed/autograd/leaky_convolution.hpp>
#include <segmed/autograd/normalize.hpp>
#include <segmed/backend/cpu.hpp>
#include <segmed/backend/cudnn/convolve.hpp>
#include <segmed/backend/cudnn/engine.hpp>

namespace {
using namespace made_up;

// As Cuda is: passes over maps by teams, convolutions by a dense engine.
struct Host : check::TeamedHost, DenseConvolutions<Host, DenseLoop> {};
static_assert(Device<Host> && ConvolvesDense<Host, float> && ConvolvesDense<Host, Bfloat16>);
static_assert(!HasConvolutions<Host, double> && !ConvolvesDense<Cpu, float>);

template <class T>
constexpr double tolerance = sizeof(T) == 4 ? 2e-6 : 2e-2;

template <class T>
void check_all(const Problem& p) {
  for (const bool to_coarse : {true, false}) {
    CAPTURE(to_coarse);
    const Results plain = written<T, Cpu>(p, to_coarse, [&](const auto&... of) {
      if (to_coarse)
        gather_plainly<Cpu, T>(of...);
      else
        scatter_plainly<Cpu, T>(of...);
    });
    const Results made = written<T, Host>(p, to_coarse, [&](const auto&... of) {
      if (to_coarse)
        gather<Host, T>(of...);
      else
        scatter<Host, T>(of...);
    });
    CHECK(distance(made.out, plain.out) < tolerance<T>);
    CHECK(distance(made.moments, plain.moments) < 2 * tolerance<T>);
  }
  const Results plain = weighed<T, Cpu>(p, [](const auto&... of) { weigh_plainly<Cpu, T>(of...); });
  const Results made = weighed<T, Host>(p, [](const auto&... of) { weigh<Host, T>(of...); });
  CHECK(distance(made.out, plain.out) < tolerance<T>);
}

template <class F>
struct Layers {
  typename F::P first{27 * 3 * 6}, gain{6}, shift{6}, second{8 * 5 * 12}, bias{5}, none{};
  static void members(auto& self, auto&& visit) {
    visit("first", self.first), visit("gain", self.gain), visit("shift", self.shift);
    visit("second", self.second), visit("bias", self.bias);
  }
};
// What some layers compute, and all gradients.
template <class D>
std::vector<double> of_layers() {
  using F = Features<3, float, D>;
  Layers<F> layers;
  std::uint32_t stream = 1;
  for (auto* p : {&layers.first, &layers.gain, &layers.shift, &layers.second, &layers.bias})
    p->value().assign(numbers<float>(p->size(), 3, stream++));
  GroupOf<F> group(Role::trained, layers);
  const Grid grid{2, 5, 6, 7, 3};
  const F x = F::leaf(grid, numbers<float>(grid.size(), 3, stream));
  const F y =
      leaky_relu(instance_norm(conv(x, layers.first, layers.none, ConvGeometry<3>::cubic(3)),
                               layers.gain, layers.shift),
                 0.01);
  const F z = value(
      transposed_conv(concat(y, y), layers.second, layers.bias, ConvGeometry<3>::cubic(2, 2, 0)));
  backward(probe(z));
  std::vector<double> all;
  for (const auto& part : {z.dense().value, x.gradient(), group.grads})
    for (const float number : part.host()) all.push_back(double(number));
  return all;
}

template <class F>
struct Unnormalised {
  typename F::P first{27 * 4 * 8}, bias{8}, up{8 * 8 * 8}, up_bias{8}, last{27 * 8 * 3}, end{3};
  typename F::P gain{8}, shift{8};
  auto all() { return std::array{&first, &bias, &up, &up_bias, &last, &end, &gain, &shift}; }
  static void members(auto& self, auto&& visit) {
    visit("first", self.first), visit("bias", self.bias), visit("up", self.up);
    visit("up_bias", self.up_bias), visit("last", self.last), visit("end", self.end);
    visit("gain", self.gain), visit("shift", self.shift);
  }
};
// Convolutions with biases and activations, and all gradients. Channels fill what engines read, so
// that the first and the transposed one are written in place.
template <class D>
std::vector<double> of_activated_layers(double leak) {
  using F = Features<3, float, D>;
  Unnormalised<F> net;
  std::uint32_t stream = 1;
  for (auto* p : net.all()) p->value().assign(numbers<float>(p->size(), 3, stream++));
  GroupOf<F> group(Role::trained, net);
  const Grid grid{2, 4, 3, 5, 4};
  const F x = F::leaf(grid, numbers<float>(grid.size(), 3, stream));
  const auto three = ConvGeometry<3>::cubic(3);
  const F y = leaky_conv(x, net.first, net.bias, three, leak);
  const F z = transposed_conv(y, net.up, net.up_bias, ConvGeometry<3>::cubic(2, 2, 0));
  const F last = leaky_conv(leaky_relu(z, 0.5), net.last, net.end, three, leak);
  // The first map is read twice, so that gradients of several kinds meet.
  backward(probe(last) + mean_square(value(instance_norm(y, net.gain, net.shift)), 0.25));
  std::vector<double> all;
  for (const auto& part : {value(last).dense().value, x.gradient(), group.grads})
    for (const float number : part.host()) all.push_back(double(number));
  return all;
}

CudnnProblem forward_of(const Window& w, CudnnStorage storage = CudnnStorage::float32) {
  return cudnn_problem(CudnnPass::forward, storage, {}, w).value();
}

}  // namespace

TEST_SUITE("backend/cudnn layout") {
  TEST_CASE("windows become descriptors") {
    const CudnnProblem p = forward_of(window({2, 5, 6, 7, 3}, 5, 3, 1, 1));
    CHECK(p.axes == 3);
    CHECK(p.fine().extent == std::vector<Index>{2, 4, 5, 6, 7});  // four channels are 16 bytes
    CHECK(p.fine().stride == std::vector<Index>{840, 1, 168, 28, 4});
    CHECK(p.coarse().extent == std::vector<Index>{2, 8, 5, 6, 7});
    CHECK(p.filter().extent == std::vector<Index>{8, 4, 3, 3, 3});
    CHECK(p.filter().stride == std::vector<Index>{108, 1, 36, 12, 4});
    CHECK(p.fine().size() == 2 * 5 * 6 * 7 * 4);
    CHECK(p.spatial(p.after) == std::vector<Index>{1, 1, 1});

    const CudnnProblem half =
        forward_of(window({2, 5, 6, 7, 3}, 9, 3, 1, 1), CudnnStorage::bfloat16);
    CHECK(half.window.fine.channels == 8);
    CHECK(half.window.coarse.channels == 16);

    // Groups keep their channels.
    const CudnnProblem grouped = forward_of(window({1, 9, 9, 9, 6}, 8, 3, 1, 2, 2, 2));
    CHECK(grouped.fine().extent[1] == 6);
    CHECK(grouped.filter().extent == std::vector<Index>{8, 3, 3, 3, 3});
    CHECK(grouped.spatial(grouped.window.dilation) == std::vector<Index>{2, 2, 2});
  }
  TEST_CASE("planes that no tap leaves become cases") {
    const CudnnProblem flat = forward_of(window({2, 1, 17, 13, 8}, 8, 3, 2, 1));
    CHECK(flat.axes == 2);
    CHECK(flat.fine().extent == std::vector<Index>{2, 8, 17, 13});
    CHECK(flat.fine().stride == std::vector<Index>{1768, 1, 104, 8});
    CHECK(flat.filter().extent == std::vector<Index>{8, 8, 3, 3});
    CHECK(flat.spatial(flat.window.stride) == std::vector<Index>{2, 2});

    const CudnnProblem one = forward_of(window({2, 6, 7, 5, 8}, 8, 1, 1, 0));
    CHECK(one.axes == 2);
    CHECK(one.fine().extent == std::vector<Index>{12, 8, 7, 5});
    CHECK(forward_of(window({2, 6, 7, 5, 8}, 8, 1, 2, 0)).axes == 3);
  }
  TEST_CASE("the padding behind the last voxel follows from the extents") {
    CHECK(padding_after(8, 8, 3, 1, 1) == 1);
    CHECK(padding_after(8, 4, 3, 2, 1) == 1);  // one voxel of it is never read
    CHECK(padding_after(9, 5, 3, 2, 1) == 1);
    CHECK(padding_after(8, 4, 2, 2, 0) == 0);
    CHECK(padding_after(9, 4, 2, 2, 0) == 0);   // a voxel that nothing reaches
    CHECK(padding_after(8, 9, 3, 1, 1) == 2);   // more behind than before
    CHECK(padding_after(8, 7, 3, 1, 1) == 0);   // less
    CHECK(padding_after(8, 6, 3, 1, 1) == -1);  // leaves out a voxel with a tap: not said
    CHECK(padding_after(5, 2, 1, 3, 0) == 0);
    Window w = window({1, 6, 8, 8, 8}, 8, 3, 1, 1);
    w.coarse.width -= 2;
    CHECK_FALSE(cudnn_problem(CudnnPass::forward, CudnnStorage::float32, {}, w).has_value());
    w.coarse.width = 0;
    CHECK_FALSE(cudnn_problem(CudnnPass::forward, CudnnStorage::float32, {}, w).has_value());
  }
  TEST_CASE("plans are found by all that they depend on, and by nothing else") {
    std::vector<CudnnProblem> all;
    for (const Window& w : windows())
      for (const CudnnPass pass :
           {CudnnPass::forward, CudnnPass::backward_data, CudnnPass::backward_weights})
        for (const CudnnStorage storage : {CudnnStorage::float32, CudnnStorage::bfloat16})
          all.push_back(cudnn_problem(pass, storage, {}, w).value());
    const Window w = windows()[1];
    for (const CudnnSwitches& s :
         {CudnnSwitches{.tf32 = true}, CudnnSwitches{.nondeterministic = true},
          CudnnSwitches{.workspace = 5}})
      all.push_back(cudnn_problem(CudnnPass::forward, CudnnStorage::float32, s, w).value());
    for (const CudnnPass pass : {CudnnPass::forward, CudnnPass::backward_data})
      for (const CudnnTail& tail :
           {CudnnTail{.bias = true}, CudnnTail{.leak = 0.01f}, CudnnTail{.leak = 0},
            CudnnTail{.bias = true, .leak = 0.01f}, CudnnTail{.bias = true, .leak = 0.010001f}})
        all.push_back(cudnn_problem(pass, CudnnStorage::float32, {}, w)->with_tail(tail));
    for (std::size_t i = 0; i < all.size(); ++i)
      for (std::size_t j = 0; j < i; ++j) {
        CHECK(all[i].key() != all[j].key());
        CHECK(all[i].text() != all[j].text());
      }
    // Sixteen bits know no TF32; a map of three channels is one of four.
    const auto half = [&](bool tf32) {
      return cudnn_problem(CudnnPass::forward, CudnnStorage::bfloat16, {.tf32 = tf32}, w)->key();
    };
    CHECK(half(true) == half(false));
    const CudnnProblem bare = forward_of(w);
    CHECK(bare.with_tail({.bias = true}).with_tail({}).key() == bare.key());
    CHECK(bare.with_tail({.bias = true}).bias().extent == std::vector<Index>{1, 16, 1, 1, 1});
    CHECK(bare.with_tail({.bias = true}).bias().stride == std::vector<Index>{16, 1, 16, 16, 16});
    CHECK(forward_of(window({1, 8, 8, 8, 3}, 8, 3, 1, 1)).key() ==
          forward_of(window({1, 8, 8, 8, 4}, 8, 3, 1, 1)).key());
  }
  TEST_CASE_TEMPLATE("a dense engine convolves as the plain kernels do", T, float, Bfloat16) {
    std::uint32_t seed = 1;
    for (const Window& w : windows()) {
      CAPTURE(w.fine);
      CAPTURE(w.coarse);
      for (int mode = 0; mode < Problem::modes; ++mode) {
        CAPTURE(mode);
        const Problem p = Problem::of_mode(mode, w, seed++);
        const int before = DenseLoop::runs();
        check_all<T>(p);
        CHECK(DenseLoop::runs() == before + 3);
      }
    }
  }
  TEST_CASE_TEMPLATE("a bias joins the graph that writes in place, or is added behind it", T, float,
                     Bfloat16) {
    const auto fused = [](const Window& w, bool to_coarse, bool engine, bool in_two_parts = false) {
      Problem p{.w = w, .bias = true, .seed = 7};
      p.two_parts = in_two_parts;
      DenseLoop::fuses() = engine;
      const int before = DenseLoop::fused_runs();
      const Results made = written<T, Host>(p, to_coarse, [&](const auto&... of) {
        if (to_coarse)
          gather<Host, T>(of...);
        else
          scatter<Host, T>(of...);
      });
      DenseLoop::fuses() = true;
      const Results plain = written<T, Cpu>(p, to_coarse, [&](const auto&... of) {
        if (to_coarse)
          gather_plainly<Cpu, T>(of...);
        else
          scatter_plainly<Cpu, T>(of...);
      });
      CHECK(distance(made.out, plain.out) < tolerance<T>);
      CHECK(distance(made.moments, plain.moments) < 2 * tolerance<T>);
      return DenseLoop::fused_runs() - before;
    };
    const Window whole = window({2, 4, 6, 4, 8}, 16, 2, 2, 0),
                 head = window({2, 4, 5, 6, 8}, 3, 1, 1, 0);
    CHECK(fused(whole, true, true) == 1);
    CHECK(fused(whole, false, true) == 1);  // a transposed convolution
    CHECK(fused(whole, false, false) == 0);
    CHECK(fused(whole, true, true, true) == 0);  // two parts are written from room of its own
    CHECK(fused(head, true, true) == 0);         // so are three channels of eight
  }
  TEST_CASE("an activation is stored where an engine does it, and left to readers elsewhere") {
    for (const double leak : {0.2, 0.0}) {
      CAPTURE(leak);
      const std::vector<double> plain = of_activated_layers<Cpu>(leak);
      int before = DenseLoop::fused_runs();
      CHECK(distance(of_activated_layers<Host>(leak), plain) < 1e-5);
      CHECK(DenseLoop::fused_runs() == before + 2);  // the last one has three channels
      DenseLoop::fuses() = false;
      before = DenseLoop::fused_runs();
      CHECK(distance(of_activated_layers<Host>(leak), plain) < 1e-5);
      CHECK(DenseLoop::fused_runs() == before);
      DenseLoop::fuses() = true;
    }
    CHECK_THROWS_AS(of_activated_layers<Host>(-0.5), ConfigError);
    CHECK_THROWS_AS(of_activated_layers<Cpu>(-0.5), ConfigError);
  }
  TEST_CASE("what it cannot say goes to the plain kernels") {
    Window w = window({2, 6, 4, 8, 5}, 6, 2, 2, 0);
    w.fine.depth += 3;
    const int before = DenseLoop::runs();
    check_all<float>({.w = w});
    CHECK(DenseLoop::runs() == before);
  }
  TEST_CASE("plain tensors are read and written in place, odd addresses are not") {
    const Window w = window({1, 4, 4, 4, 8}, 8, 3, 1, 1);
    std::vector<float> store(4 * 4 * 4 * 8 + 1, 1.0f);
    Feed<float> feed;
    feed.values.lane[0].grid = w.fine, feed.values.lane[0].x = store.data();
    Workspace<Cpu, float> room;
    CHECK(dense_feed<Cpu>(feed, w.fine, 8, room) == store.data());
    feed.values.lane[0].x = store.data() + 1;
    const float* moved = dense_feed<Cpu>(feed, w.fine, 8, room);
    CHECK(moved == room.data());
    feed.values.lane[0].x = store.data(), feed.values.lane[0].leak = 0.5f;
    const float* seen = dense_feed<Cpu>(feed, w.fine, 8, room);
    CHECK(seen == room.data());

    Feed<float> gradient;
    gradient.is_gradient = true, gradient.gradient.direct = store.data();
    gradient.gradient.view.grid = w.fine, gradient.gradient.view.x = store.data();
    CHECK(plain_data(gradient) == store.data());
    const double sums[2] = {0, 0};
    gradient.gradient.moments = sums;
    CHECK(plain_data(gradient) == nullptr);

    Sink<float> sink;
    sink.out[0] = store.data(), sink.grid[0] = w.coarse;
    CHECK(plain_place(sink) == store.data());
    sink.add[0] = true;
    CHECK(plain_place(sink) == nullptr);
    sink.add[0] = false, sink.grid[1] = w.coarse;
    CHECK(plain_place(sink) == nullptr);
  }
  TEST_CASE("layers compute the same, forward and backward") {
    const std::vector<double> made = of_layers<Host>(), plain = of_layers<Cpu>();
    CHECK(distance(made, plain) < 1e-5);
  }
  TEST_CASE("a gradient with several readers is written down once") {
    const Grid grid{2, 3, 4, 5, 3};
    const Fed<float, Cpu> fed({.pending = true, .gradient = true}, grid, 1);
    Storage<float, Host> dense;
    const Incoming<float> once = written_once<Host>(grid, fed.feed.gradient, dense);
    CHECK(once.direct == dense.read());
    CHECK(once.seen == nullptr);
    CHECK(once.moments == nullptr);
    Index wrong = 0;
    for (Index row = 0; row < grid.rows(); ++row)
      for (Index c = 0; c < grid.channels; ++c)
        wrong += once(grid.at(row, c)) != fed.feed.gradient(grid.at(row, c));
    CHECK(wrong == 0);
    Storage<float, Cpu> unused;
    CHECK(written_once<Cpu>(grid, fed.feed.gradient, unused).seen == fed.feed.gradient.seen);
    CHECK(unused.empty());
  }
  TEST_CASE_TEMPLATE("a plan is compared with plain sums", T, float, Bfloat16) {
    std::vector<CudnnProblem> all;
    for (const Window& w : windows())
      for (const CudnnPass pass :
           {CudnnPass::forward, CudnnPass::backward_data, CudnnPass::backward_weights})
        all.push_back(cudnn_problem(pass, CudnnStorageOf<T>::value, {}, w).value());
    const std::size_t bare = all.size();
    for (std::size_t i = 0; i < bare; ++i)
      if (all[i].pass != CudnnPass::backward_weights && i % 4 < 2)
        all.push_back(all[i].with_tail({.bias = i % 4 == 0, .leak = i % 3 == 0 ? 1 : 0.2f}));
    for (const CudnnProblem& p : all) {
      CAPTURE(p.text());
      const float allowed = allowed_difference(p.storage);
      const auto off = [&](auto spoil) {
        const auto run = [&](const CudnnOperands<T>& on) { run_graph(p, on), spoil(on); };
        return worst_difference<Cpu, T>(p, run, 512);
      };
      T* CudnnOperands<T>::*out = p.pass == CudnnPass::forward         ? &CudnnOperands<T>::coarse
                                  : p.pass == CudnnPass::backward_data ? &CudnnOperands<T>::fine
                                                                       : &CudnnOperands<T>::filter;
      const Index size = p.pass == CudnnPass::forward         ? p.coarse().size()
                         : p.pass == CudnnPass::backward_data ? p.fine().size()
                                                              : p.filter().size();
      // The numbers are such that floats are exact.
      CHECK(off([](const auto&) {}) <= (sizeof(T) == 4 ? 0.0f : 4e-3f));
      CHECK(off([&](const auto& on) { (on.*out)[size - 1] = T(NAN); }) > allowed);
      CHECK(off([&](const auto& on) { (on.*out)[0] = T(float((on.*out)[0]) + 2.0f); }) > allowed);
      CHECK(worst_difference<Cpu, T>(
                p, [](const CudnnOperands<T>&) {}, 64) > allowed);
      if (!p.tail.any()) continue;
      // An engine that forgets the tail, or a part of it.
      const auto forgets = [&](const CudnnTail& tail) {
        return worst_difference<Cpu, T>(
            p,
            [&](CudnnOperands<T> on) {
              if (!tail.bias) on.bias = nullptr;
              run_graph(p.with_tail(tail), on);
            },
            512);
      };
      CHECK(forgets({}) > allowed);
      if (p.tail.bias && p.tail.leak != 1) {
        CHECK(forgets({.bias = true}) > allowed);
        CHECK(forgets({.leak = p.tail.leak}) > allowed);
      }
    }
  }
}
