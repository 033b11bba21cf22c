// SPDX-License-Identifier: Apache-2.0
#include "oracle.hpp"
#include <segmed/autograd/convolution.hpp>
#include <segmed/autograd/normalize.hpp>

TEST_SUITE_BEGIN("autograd/convolution");
using namespace check;

namespace {

struct Case {
  Index in, out;
  Index kernel, stride, padding, dilation, groups;
};
template <std::size_t Dim>
ConvGeometry<Dim> geometry_of(const Case& c) {
  return ConvGeometry<Dim>::cubic(c.kernel, c.stride, c.padding, c.dilation, c.groups);
}
std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.in << " to " << c.out << " channels, kernel " << c.kernel << ", stride "
             << c.stride << ", padding " << c.padding << ", dilation " << c.dilation << ", groups "
             << c.groups;
}
template <std::size_t Dim>
Index taps(const Case& c) {
  return Dim == 3 ? c.kernel * c.kernel * c.kernel : c.kernel * c.kernel;
}
template <std::size_t Dim>
std::vector<Index> weight_shape(const Case& c, Index inner, Index outer) {
  std::vector<Index> shape(Dim, c.kernel);
  shape.push_back(inner / c.groups), shape.push_back(outer);
  return shape;
}
template <class F>
Op<F> convolve(const Case& c) {
  return [c](const auto& x, const auto& p) {
    const F input = x.size() == 2 ? concat(x[0], x[1]) : x[0];
    const typename F::P none;
    return conv(input, p[0], p.list.size() > 1 ? p[1] : none, geometry_of<F::dim>(c));
  };
}
template <class F>
Op<F> grow(const Case& c) {
  return [c](const auto& x, const auto& p) {
    const F input = x.size() == 2 ? concat(x[0], x[1]) : x[0];
    const typename F::P none;
    return transposed_conv(input, p[0], p.list.size() > 1 ? p[1] : none, geometry_of<F::dim>(c));
  };
}
std::string numbers_of(const Case& c) {
  std::ostringstream text;
  text << "stride=" << c.stride
       << ", padding=" << (c.padding < 0 ? (c.kernel - 1) * c.dilation / 2 : c.padding)
       << ", dilation=" << c.dilation << ", groups=" << c.groups;
  return text.str();
}

const Case small_cases[] = {
    {3, 2, 1, 1, -1, 1, 1}, {2, 3, 3, 1, -1, 1, 1}, {2, 3, 3, 2, 1, 1, 1},
    {3, 2, 2, 2, 0, 1, 1},  {2, 1, 5, 1, 2, 1, 1},  {2, 2, 3, 1, 0, 1, 1},
    {2, 3, 3, 1, 2, 2, 1},  {4, 6, 3, 1, -1, 1, 2}, {3, 3, 3, 2, 1, 1, 3},
};

}  // namespace

TEST_CASE("the gradients of a convolution are those of central differences") {
  for (const Case& c : small_cases) {
    CAPTURE(c);
    CHECK(worst_gradient<Map3>({{2, 3, 5, 4, c.in}}, {taps<3>(c) * c.in / c.groups * c.out, c.out},
                               convolve<Map3>(c)) < 1e-7);
    CHECK(worst_gradient<Map2>({{2, 1, 5, 7, c.in}}, {taps<2>(c) * c.in / c.groups * c.out, c.out},
                               convolve<Map2>(c)) < 1e-7);
  }
}

TEST_CASE("the gradients of a transposed convolution are those of central differences") {
  for (const Case& c : small_cases) {
    CAPTURE(c);
    CHECK(worst_gradient<Map3>({{2, 2, 3, 4, c.in}}, {taps<3>(c) * c.in / c.groups * c.out, c.out},
                               grow<Map3>(c)) < 1e-7);
    CHECK(worst_gradient<Map2>({{2, 1, 3, 5, c.in}}, {taps<2>(c) * c.in / c.groups * c.out, c.out},
                               grow<Map2>(c)) < 1e-7);
  }
}

TEST_CASE("a convolution of two sources and of pending work has the right gradients") {
  const Case c{5, 3, 3, 1, -1, 1, 1};
  CHECK(worst_gradient<Map3>({{2, 3, 3, 4, 2}, {2, 3, 3, 4, 3}}, {27 * 5 * 3, 3},
                             convolve<Map3>(c)) < 1e-7);
  CHECK(worst_gradient<Map3>({{2, 3, 2, 3, 2}, {2, 3, 2, 3, 3}}, {27 * 5 * 3, 3}, grow<Map3>(c)) <
        1e-7);
  const Op<Map2> pending_input = [](const auto& x, const auto& p) {
    const auto g = ConvGeometry<2>::cubic(3);
    const Map2 a = leaky_relu(instance_norm(conv(x[0], p[0], p[1], g), p[2], p[3]), 0.1);
    const Map2 b = prelu(x[1], p[4]);
    return conv(concat(a, b), p[5], p[6], g);
  };
  CHECK(worst_gradient<Map2>({{2, 1, 5, 4, 2}, {2, 1, 5, 4, 3}},
                             {9 * 2 * 2, 0, 2, 2, 3, 9 * 5 * 3, 3}, pending_input) < 1e-5);
  const Op<Map2> pending_growth = [](const auto& x, const auto& p) {
    const Map2 a = leaky_relu(
        instance_norm(conv(x[0], p[0], p[1], ConvGeometry<2>::cubic(3)), p[2], p[3]), 0.1);
    return transposed_conv(a, p[4], p[5], ConvGeometry<2>::cubic(2, 2, 0));
  };
  CHECK(worst_gradient<Map2>({{2, 1, 5, 4, 2}}, {9 * 2 * 2, 0, 2, 2, 4 * 2 * 3, 3},
                             pending_growth) < 1e-5);
}

TEST_CASE("kernels need not be cubes") {
  ConvGeometry<3> g;
  g.kernel = {1, 3, 2}, g.stride = {1, 2, 1}, g.padding = {0, 1, 1}, g.dilation = {1, 1, 2};
  const Op<Map3> op = [g](const auto& x, const auto& p) { return conv(x[0], p[0], p[1], g); };
  CHECK(worst_gradient<Map3>({{1, 3, 5, 4, 2}}, {6 * 2 * 3, 3}, op) < 1e-7);
  if (no_torch()) return;
  CHECK(torch_distance<Map3>("last(f.conv3d(first(x[0]), kernel(x[1]), x[2], (1, 2, 1), (0, 1, 1), "
                             "(1, 1, 2)))",
                             {{2, 3, 5, 4, 5}}, {{1, 3, 2, 5, 3}, {3}}, op) < 1e-12);
  const Op<Map3> up = [g](const auto& x, const auto& p) {
    return transposed_conv(x[0], p[0], p[1], g);
  };
  CHECK(torch_distance<Map3>("last(f.conv_transpose3d(first(x[0]), kernel(x[1]), x[2], (1, 2, 1), "
                             "(0, 1, 1), 0, 1, (1, 1, 2)))",
                             {{2, 3, 5, 4, 5}}, {{1, 3, 2, 3, 5}, {3}}, up) < 1e-12);
}

TEST_CASE("convolutions equal those of PyTorch") {
  if (no_torch()) return;
  const Case cases[] = {
      {5, 7, 1, 1, -1, 1, 1},   {16, 16, 3, 1, -1, 1, 1}, {1, 8, 3, 1, -1, 1, 1},
      {17, 33, 3, 1, -1, 1, 1}, {32, 16, 3, 2, 1, 1, 1},  {16, 5, 2, 2, 0, 1, 1},
      {3, 4, 5, 1, 2, 1, 1},    {6, 9, 3, 1, 2, 2, 3},    {8, 8, 3, 1, -1, 1, 8},
      {16, 32, 3, 1, 0, 1, 2},  {48, 3, 1, 1, -1, 1, 1},  {4, 4, 7, 4, 3, 1, 1},
      {32, 64, 1, 2, 0, 1, 1},
  };
  for (const Case& c : cases) {
    CAPTURE(c);
    const std::string rest = ", x[2], " + numbers_of(c) + "))";
    const std::string in3 = "last(f.conv3d(first(x[0]), kernel(x[1])" + rest;
    const std::string in2 = "last(f.conv2d(first(x[0]), kernel(x[1])" + rest;
    const auto w3 = weight_shape<3>(c, c.in, c.out), w2 = weight_shape<2>(c, c.in, c.out);
    const Grid g3{2, 5, 7, 9, c.in}, g2{3, 1, 11, 13, c.in};
    CHECK(torch_distance<Map3>(in3, {g3}, {w3, {c.out}}, convolve<Map3>(c)) < 1e-12);
    CHECK(torch_distance<Single3>(in3, {g3}, {w3, {c.out}}, convolve<Single3>(c)) < 1e-5);
    CHECK(torch_distance<Map2>(in2, {g2}, {w2, {c.out}}, convolve<Map2>(c)) < 1e-12);
    CHECK(torch_distance<Single2>(in2, {g2}, {w2, {c.out}}, convolve<Single2>(c)) < 1e-5);
  }
}

TEST_CASE("transposed convolutions equal those of PyTorch") {
  if (no_torch()) return;
  const Case cases[] = {
      {16, 8, 2, 2, 0, 1, 1},  {5, 3, 3, 1, 1, 1, 1},  {4, 6, 3, 2, 1, 1, 2},
      {32, 16, 2, 2, 0, 1, 1}, {3, 17, 4, 2, 1, 1, 1}, {3, 2, 3, 2, 0, 2, 1},
  };
  for (const Case& c : cases) {
    CAPTURE(c);
    std::ostringstream rest;
    rest << "(first(x[0]), kernel(x[1]), x[2], " << c.stride << ", " << c.padding << ", 0, "
         << c.groups << ", " << c.dilation << "))";
    const auto w3 = weight_shape<3>(c, c.out, c.in), w2 = weight_shape<2>(c, c.out, c.in);
    const Grid g3{2, 3, 4, 5, c.in}, g2{2, 1, 6, 5, c.in};
    const std::string in3 = "last(f.conv_transpose3d" + rest.str();
    const std::string in2 = "last(f.conv_transpose2d" + rest.str();
    CHECK(torch_distance<Map3>(in3, {g3}, {w3, {c.out}}, grow<Map3>(c)) < 1e-12);
    CHECK(torch_distance<Single3>(in3, {g3}, {w3, {c.out}}, grow<Single3>(c)) < 1e-5);
    CHECK(torch_distance<Map2>(in2, {g2}, {w2, {c.out}}, grow<Map2>(c)) < 1e-12);
    CHECK(torch_distance<Single2>(in2, {g2}, {w2, {c.out}}, grow<Single2>(c)) < 1e-5);
  }
}

TEST_CASE("extents and channels drawn at random equal PyTorch") {
  if (no_torch()) return;
  for (std::uint32_t i = 0; i < 12; ++i) {
    const auto draw = [&](Index k, Index low, Index high) {
      return low + Philox{3, Purpose::sample, i}.below(k, high - low + 1);
    };
    const Index groups = draw(0, 1, 2);
    Case c{groups * draw(1, 1, 20), groups * draw(2, 1, 20), draw(3, 1, 3), draw(4, 1, 2),
           draw(5, 0, 2),           draw(6, 1, 2),           groups};
    const Grid grid{draw(7, 1, 3), draw(8, 5, 9), draw(9, 5, 17), draw(10, 5, 19), c.in};
    CAPTURE(c);
    CAPTURE(grid);
    CHECK(torch_distance<Single3>(
              "last(f.conv3d(first(x[0]), kernel(x[1]), x[2], " + numbers_of(c) + "))", {grid},
              {weight_shape<3>(c, c.in, c.out), {c.out}}, convolve<Single3>(c), i) < 1e-5);
  }
}

TEST_CASE("two sources read as one equal PyTorch's concatenation") {
  if (no_torch()) return;
  for (const Index second : {Index{3}, Index{16}, Index{5}}) {
    const Case c{16 + second, 16, 3, 1, -1, 1, 1};
    const std::string in =
        "last(f.conv3d(torch.cat((first(x[0]), first(x[1])), 1), kernel(x[2]), x[3], padding=1))";
    const Grid a{2, 4, 5, 6, 16}, b{2, 4, 5, 6, second};
    CHECK(torch_distance<Map3>(in, {a, b}, {weight_shape<3>(c, c.in, 16), {16}},
                               convolve<Map3>(c)) < 1e-12);
    CHECK(torch_distance<Single3>(in, {a, b}, {weight_shape<3>(c, c.in, 16), {16}},
                                  convolve<Single3>(c)) < 1e-5);
  }
}

TEST_CASE("a convolution gives the same bits for 1, 2 and 4 threads") {
  for (const Case& c :
       {Case{16, 32, 3, 1, -1, 1, 1}, Case{5, 3, 3, 2, 1, 1, 1}, Case{16, 16, 1, 1, -1, 1, 1},
        Case{1, 16, 3, 1, -1, 1, 1}, Case{8, 8, 3, 1, -1, 1, 8}}) {
    CAPTURE(c);
    const Grid grid{2, 5, 9, 11, c.in};
    const std::vector<Index> sizes{taps<3>(c) * c.in / c.groups * c.out, c.out};
    CHECK(same_for_threads<Single3>({grid}, sizes, convolve<Single3>(c)));
    CHECK(same_for_threads<Map3>({grid}, sizes, convolve<Map3>(c)));
  }
  const Case up{16, 8, 2, 2, 0, 1, 1};
  CHECK(same_for_threads<Single3>({{2, 5, 7, 9, 16}}, {8 * 16 * 8, 8}, grow<Single3>(up)));
  CHECK(same_for_threads<Map3>({{2, 5, 7, 9, 16}}, {8 * 16 * 8, 8}, grow<Map3>(up)));
}

TEST_CASE("weights that are not trained keep a form until somebody writes them") {
  using F = Single3;
  constexpr Index channels = 16;
  const auto geometry = ConvGeometry<3>::cubic(3);
  const F x = random_map<F>({1, 8, 8, 8, channels}, 1);
  const F small = random_map<F>({1, 4, 4, 4, channels}, 2);
  const Weights<F> weights({27 * channels * channels});
  F::P weight = weights[0];
  const F::P none;
  // What a copy gives, whose weights are used for the first time.
  const auto fresh = [&](const F& input) {
    const F::P copy = weight;
    return no_grad([&] { return conv(input, copy, none, geometry); }).dense().value.host();
  };
  const auto use = [&](const F& input) {
    return no_grad([&] { return conv(input, weight, none, geometry); }).dense().value.host();
  };
  const auto held = [] { return WeightForms<float>::bytes_held(); };
  const Index before = held();
  for (int i = 0; i < 3; ++i) CHECK(use(x) == fresh(x));
  const Index kept = held() - before;
  CHECK(kept > 0);
  CHECK(use(small) == fresh(small));
  weight.value().write()[5] += 1;
  CHECK(use(x) == fresh(x));
  CHECK(held() == before);
  for (int i = 0; i < 3; ++i) CHECK(use(x) == fresh(x));
  CHECK(held() == before + kept);
  conv(x, weight, none, geometry);  // to be trained
  CHECK(held() == before);
  Tape::current()->clear();
}
TEST_CASE("moments summed on store are those of the stored values") {
  const auto check_moments = [](const auto& y) {
    using F = std::remove_cvref_t<decltype(y)>;
    const Grid g = y.grid();
    const auto values = y.dense().value.host();
    const auto moments = y.dense().moments.host();
    REQUIRE(Index(moments.size()) == 2 * g.pairs());
    for (Index n = 0; n < g.cases; ++n)
      for (Index c = 0; c < g.channels; ++c) {
        double sum = 0, squares = 0;
        for (Index v = 0; v < g.voxels(); ++v) {
          const double value = double(values[std::size_t(g.index({n, v, c}))]);
          sum += value, squares += value * value;
        }
        const auto at = std::size_t(2 * (n * g.channels + c));
        const double tolerance = (sizeof(typename F::value_type) == 4 ? 1e-6 : 1e-12) * squares;
        CHECK(std::abs(moments[at] - sum) <= tolerance);
        CHECK(std::abs(moments[at + 1] - squares) <= tolerance);
      }
  };
  for (const Index out : {Index{3}, Index{16}, Index{32}}) {
    const Single3 x = random_map<Single3>({2, 5, 6, 7, 16}, 1);
    Weights<Single3> p({27 * 16 * out, out, 0});
    check_moments(conv(x, p[0], p[2], ConvGeometry<3>::cubic(3)));
    check_moments(transposed_conv(x, p[0], p[2], ConvGeometry<3>::cubic(3, 2, 1)));
    // With a bias no normalisation is likely to follow.
    CHECK(conv(x, p[0], p[1], ConvGeometry<3>::cubic(3)).dense().moments.empty());
    const Map3 wide_x = random_map<Map3>({2, 5, 6, 7, 16}, 1);
    Weights<Map3> wide_p({27 * 16 * out, 0});
    check_moments(conv(wide_x, wide_p[0], wide_p[1], ConvGeometry<3>::cubic(3)));
  }
}

TEST_CASE("what does not fit is said with its numbers") {
  const Map3 x = random_map<Map3>({1, 3, 4, 5, 4}, 1);
  const auto g = ConvGeometry<3>::cubic(3);
  Weights<Map3> p({27 * 4 * 2, 3, 100, 0});
  CHECK_THROWS_WITH_AS(conv(x, p[0], p[1], g),
                       "segmed: conv: the weight gives 2 channels, the bias has 3", ShapeError);
  CHECK_THROWS_WITH_AS(conv(x, p[2], p[3], g),
                       "segmed: conv: input (1, 3, 4, 5, 4) has 4 channels in 1 groups; the weight "
                       "has 100 numbers, no multiple of 108",
                       ShapeError);
  CHECK_THROWS_AS(conv(x, p[3], p[3], g), ShapeError);
  CHECK_THROWS_WITH_AS(
      conv(x, p[0], p[3], ConvGeometry<3>::cubic(3, 1, 0, 2)),
      "segmed: conv: input (1, 3, 4, 5, 4) is smaller than the kernel, which covers 5 voxels",
      ShapeError);
  CHECK_THROWS_AS(conv(x, p[0], p[3], ConvGeometry<3>::cubic(3, 1, -1, 1, 3)), ShapeError);
  CHECK_THROWS_WITH_AS(conv(x, p[0], p[3], ConvGeometry<3>::cubic(3, 1, -1, 1, 0)),
                       "segmed: conv: 0 groups", ConfigError);
  CHECK_THROWS_WITH_AS(conv(x, p[0], p[3], ConvGeometry<3>::cubic(3, 0)),
                       "segmed: conv: kernel 3, stride 0, padding 1, dilation 1 on axis 0",
                       ConfigError);
  CHECK_THROWS_WITH_AS(transposed_conv(x, p[0], p[1], g),
                       "segmed: transposed_conv: the weight gives 2 channels, the bias has 3",
                       ShapeError);
  CHECK_THROWS_WITH_AS(transposed_conv(random_map<Map3>({1, 1, 1, 5, 4}, 1), p[0], p[3],
                                       ConvGeometry<3>::cubic(3, 1, 3)),
                       "segmed: transposed_conv: input (1, 1, 1, 5, 4) leaves no voxel",
                       ShapeError);
}

TEST_SUITE_END();
