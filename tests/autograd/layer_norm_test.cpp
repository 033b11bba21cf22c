// SPDX-License-Identifier: Apache-2.0
#include "oracle.hpp"
#include <segmed/autograd/convolution.hpp>
#include <segmed/autograd/layer_norm.hpp>
#include <segmed/autograd/normalize.hpp>

TEST_SUITE_BEGIN("autograd/layer_norm");
using namespace check;

namespace {

template <class F>
Op<F> normalized() {
  return [](const auto& x, const auto& p) { return layer_norm(x[0], p[0], p[1]); };
}

}  // namespace

TEST_CASE("the gradients of layer norm are those of central differences") {
  for (const Index c : {Index{2}, Index{3}, Index{16}, Index{37}}) {
    CAPTURE(c);
    CHECK(worst_gradient<Map3>({{2, 2, 3, 2, c}}, {c, c}, normalized<Map3>()) < 1e-5);
    CHECK(worst_gradient<Map2>({{2, 1, 3, 2, c}}, {c, c}, normalized<Map2>()) < 1e-5);
  }
  // of pending work, before pending work, and beside another reader
  CHECK(worst_gradient<Map3>(
            {{2, 2, 3, 2, 3}}, {27 * 3 * 4, 4, 4, 4, 4}, [](const auto& x, const auto& p) {
              const auto y = conv(x[0], p[0], Map3::P(), ConvGeometry<3>::cubic(3));
              const auto z = leaky_relu(instance_norm(y, p[1], p[2]), 0.1);
              return leaky_relu(layer_norm(z, p[3], p[4]), 0.3) + y;
            }) < 1e-5);
}

TEST_CASE("of one channel nothing but its bias is left") {
  const Map2 x = random_map<Map2>({1, 1, 2, 3, 1}, 1, true);
  Weights<Map2> p({1, 1});
  for (const double y : layer_norm(x, p[0], p[1]).dense().value.host())
    CHECK(y == p[1].value().host()[0]);
}

TEST_CASE("layer norm equals that of PyTorch") {
  if (no_torch()) return;
  const auto compare = [&]<class F>(F, double bound) {
    for (const Index c : {Index{6}, Index{16}, Index{34}, Index{96}}) {
      CAPTURE(c);
      const Grid grid{3, F::dim == 3 ? 5 : 1, 7, 9, c};
      CHECK(torch_distance<F>("f.layer_norm(x[0], x[1].shape, x[1], x[2])", {grid}, {{c}, {c}},
                              normalized<F>()) < bound);
      CHECK(torch_distance<F>("f.layer_norm(x[0], x[1].shape, x[1], x[2], 1e-2)", {grid},
                              {{c}, {c}}, [](const auto& x, const auto& p) {
                                return layer_norm(x[0], p[0], p[1], 1e-2);
                              }) < bound);
    }
  };
  compare(Map3{}, 1e-11);
  compare(Map2{}, 1e-11);
  compare(Single2{}, 1e-5);
  compare(Single3{}, 1e-5);
}

TEST_CASE("a mean far from zero does not spoil the layer norm of floats") {
  const Grid grid{2, 5, 6, 7, 32};
  std::vector<float> values = numbers<float>(grid.size(), 3);
  for (float& v : values) v = v * 0.1f + 100;
  Weights<Single3> p({32, 32});
  Weights<Map3> wide_p({32, 32});
  const Single3 y = layer_norm(Single3(grid, Storage<float, Cpu>(values)), p[0], p[1]);
  const Map3 exact =
      layer_norm(Map3(grid, Storage<double, Cpu>(wide(values))), wide_p[0], wide_p[1]);
  CHECK(distance(wide(y.dense().value.host()), exact.dense().value.host()) < 1e-4);
}

TEST_CASE("layer norm gives the same bits for 1, 2 and 4 threads, fused or materialised") {
  for (const Index c : {Index{16}, Index{21}}) {
    CHECK(same_for_threads<Single3>({{2, 9, 17, 15, c}}, {c, c}, normalized<Single3>()));
    CHECK(same_for_threads<Map2>({{2, 1, 33, 29, c}}, {c, c}, normalized<Map2>()));
    CHECK(same_materialized<Single3>({{2, 5, 9, 7, c}}, {c, c}, normalized<Single3>()));
  }
}

TEST_CASE("what does not fit is refused") {
  const Map2 x = random_map<Map2>({1, 1, 2, 3, 4}, 1);
  Weights<Map2> p({4, 3});
  CHECK_THROWS_AS(layer_norm(x, p[0], p[1]), ShapeError);
  CHECK_THROWS_AS(layer_norm(x, p[1], p[1]), ShapeError);
  CHECK_THROWS_WITH_AS(layer_norm(x, p[0], p[0], 0), "segmed: layer_norm: epsilon 0 is not above 0",
                       ConfigError);
}

TEST_SUITE_END();
