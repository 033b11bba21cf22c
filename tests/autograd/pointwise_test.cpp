// SPDX-License-Identifier: Apache-2.0
#include "oracle.hpp"
#include <segmed/autograd/normalize.hpp>
#include <segmed/autograd/perturb.hpp>
#include <segmed/autograd/pointwise.hpp>

TEST_SUITE_BEGIN("autograd/pointwise");
using namespace check;

namespace {

const Grid small{2, 2, 3, 3, 3};

template <class Math>
Op<Map3> mapped(Math f) {
  return [f](const auto& x, const auto&) { return map(f, x[0]); };
}
/// A functor of a user's own.
struct Cube {
  template <class W>
  SEGMED_HD W operator()(W x, Index) const {
    return x * x * x;
  }
  template <class W>
  SEGMED_HD W slope(W x, Index) const {
    return 3 * x * x;
  }
};

}  // namespace

TEST_CASE("the gradients of functors are those of central differences") {
  CHECK(worst_gradient<Map3>({small}, {}, mapped(math::Scale{2.5, -1})) < 1e-7);
  CHECK(worst_gradient<Map3>({small}, {}, mapped(math::Exp{})) < 1e-5);
  CHECK(worst_gradient<Map3>({small}, {}, mapped(math::Sigmoid{})) < 1e-5);
  CHECK(worst_gradient<Map3>({small}, {}, mapped(math::Tanh{})) < 1e-5);
  CHECK(worst_gradient<Map3>({small}, {}, mapped(math::Silu{})) < 1e-5);
  CHECK(worst_gradient<Map3>({small}, {}, mapped(math::Gelu{})) < 1e-5);
  CHECK(worst_gradient<Map3>({small}, {}, mapped(Cube{})) < 1e-5);
  CHECK(worst_gradient<Map3>({small}, {}, [](const auto& x, const auto&) {
          return map(math::Log{}, scaled(x[0], 0.5, 1.5));
        }) < 1e-5);
}

TEST_CASE("the gradients of two operands are those of central differences") {
  const std::vector<Grid> two{small, small};
  const auto both = [&](Map3 (*op)(const Map3&, const Map3&)) {
    return worst_gradient<Map3>(two, {},
                                [op](const auto& x, const auto&) { return op(x[0], x[1]); });
  };
  CHECK(both([](const Map3& a, const Map3& b) { return a - b; }) < 1e-7);
  CHECK(both([](const Map3& a, const Map3& b) { return a + b; }) < 1e-7);
  CHECK(both([](const Map3& a, const Map3& b) { return a * b; }) < 1e-7);
  CHECK(both([](const Map3& a, const Map3& b) { return a / scaled(b, 0.5, 2); }) < 1e-5);
  CHECK(both([](const Map3& a, const Map3& b) { return a * a - b * b; }) < 1e-5);
  CHECK(both([](const Map3& a, const Map3& b) { return a + a + (b - b * a); }) < 1e-5);
  // Of pending work, and of views of one tensor.
  CHECK(both([](const Map3& a, const Map3& b) {
          return leaky_relu(a, 0.1) * leaky_relu(b, 0.2) - a;
        }) < 1e-5);
}

TEST_CASE("where passes the gradient of what it chose") {
  const Map3 condition = map(math::Drop{Philox{5}, 0.5f}, scaled(random_map<Map3>(small, 3), 0, 1));
  CHECK(worst_gradient<Map3>({small, small}, {}, [&](const auto& x, const auto&) {
          return where(condition, x[0], x[1]);
        }) < 1e-7);
  CHECK(worst_gradient<Map3>({small}, {}, [&](const auto& x, const auto&) {
          return where(condition, x[0], leaky_relu(x[0], 0.3));
        }) < 1e-7);
  const auto chosen = condition.dense().value.host();
  const Map3 a = random_map<Map3>(small, 1), b = random_map<Map3>(small, 2);
  const auto values = where(condition, a, b).dense().value.host();
  const auto first = a.dense().value.host(), second = b.dense().value.host();
  for (std::size_t i = 0; i < values.size(); ++i)
    CHECK(values[i] == (chosen[i] != 0 ? first[i] : second[i]));
}

TEST_CASE("the gradient of softmax is that of central differences") {
  for (const Index classes : {Index{1}, Index{2}, Index{5}, Index{17}})
    CHECK(worst_gradient<Map2>({{2, 1, 3, 3, classes}, {2, 1, 3, 3, classes}}, {},
                               [](const auto& x, const auto&) {
                                 return softmax(leaky_relu(x[0], 0.5)) + x[1];
                               }) < 1e-5);
}

TEST_CASE("softmax bears large logits") {
  const Single2 y = softmax(Single2(Grid{1, 1, 1, 1, 3}, Storage<float, Cpu>({1e4f, -1e4f, 1e4f})));
  CHECK(y.dense().value.host() == std::vector<float>{0.5f, 0, 0.5f});
}

TEST_CASE("functors equal those of PyTorch") {
  if (no_torch()) return;
  const auto compare = [&]<class F>(F, double bound) {
    const Grid grid{2, 1, 7, 9, 5};
    const auto distance_of = [&](const char* expression, F (*op)(const F&)) {
      return torch_distance<F>(expression, {grid}, {},
                               [op](const auto& x, const auto&) { return op(x[0]); });
    };
    CHECK(distance_of("f.gelu(x[0] * 4)",
                      [](const F& x) { return map(math::Gelu{}, scaled(x, 4)); }) < bound);
    CHECK(distance_of("f.silu(x[0] * 4)",
                      [](const F& x) { return map(math::Silu{}, scaled(x, 4)); }) < bound);
    CHECK(distance_of("torch.sigmoid(x[0] * 9)",
                      [](const F& x) { return map(math::Sigmoid{}, scaled(x, 9)); }) < bound);
    CHECK(distance_of("torch.tanh(x[0])", [](const F& x) { return map(math::Tanh{}, x); }) < bound);
    CHECK(distance_of("torch.exp(x[0])", [](const F& x) { return map(math::Exp{}, x); }) < bound);
    CHECK(distance_of("torch.log(x[0] + 1.5)",
                      [](const F& x) { return map(math::Log{}, scaled(x, 1, 1.5)); }) < bound);
    CHECK(distance_of("torch.softmax(x[0] * 20, -1)",
                      [](const F& x) { return softmax(scaled(x, 20)); }) < bound);
    CHECK(torch_distance<F>("x[0] / (x[1] + 2) - x[0] * x[1]", {grid, grid}, {},
                            [](const auto& x, const auto&) {
                              return x[0] / scaled(x[1], 1, 2) - x[0] * x[1];
                            }) < bound);
  };
  compare(Map2{}, 1e-12);
  compare(Single2{}, 1e-5);
}

TEST_CASE("a pull of dropout draws the mask of its forward") {
  for (const float rate : {0.2f, 0.7f}) {
    const auto drop = [rate](const Map3& x) { return dropout(x, rate); };
    const auto drop_channels = [rate](const Map3& x) { return channel_dropout(x, rate); };
    CHECK(worst_gradient<Map3>({{2, 3, 4, 3, 5}}, {}, [&](const auto& x, const auto&) {
            return drop(drop_channels(x[0])) + x[0];
          }) < 1e-7);
  }
}

TEST_CASE("dropout keeps the mean, and an element or a channel as a whole") {
  const Grid grid{4, 8, 8, 8, 16};
  const Single3 ones(grid, Storage<float, Cpu>(grid.size(), 1.0f));
  Draws::current() = {.seed = 3, .step = 5};
  const Single3 y = dropout(ones, 0.25f);
  double sum = 0;
  bool whole_elements = true;
  for (const float v : y.dense().value.host()) {
    sum += double(v);
    whole_elements &= v == 0 || v == 1 / (1 - 0.25f);
  }
  CHECK(whole_elements);
  CHECK(sum / double(grid.size()) == doctest::Approx(1).epsilon(0.02));

  const auto channels = channel_dropout(ones, 0.5f).dense().value.host();
  Index kept = 0;
  for (Index n = 0; n < grid.cases; ++n)
    for (Index c = 0; c < grid.channels; ++c) {
      bool whole = true;
      const float first = channels[std::size_t(grid.index({n, 0, c}))];
      for (Index v = 0; v < grid.voxels(); ++v)
        whole &= channels[std::size_t(grid.index({n, v, c}))] == first;
      CHECK(whole);
      kept += first != 0;
    }
  CHECK(kept > 16);
  CHECK(kept < 48);
}

TEST_CASE("random ops differ from each other and from step to step, and repeat when asked") {
  const Single3 x = random_map<Single3>({1, 4, 4, 4, 4}, 1);
  const auto values = [](const Single3& y) { return y.dense().value.host(); };
  Draws::current() = {.seed = 3, .step = 5};
  const auto first = values(add_noise(x, 0.5f)), second = values(add_noise(x, 0.5f));
  CHECK(first != second);
  Draws::current() = {.seed = 3, .step = 5};
  CHECK(values(add_noise(x, 0.5f)) == first);
  Draws::current() = {.seed = 3, .step = 6};
  CHECK(values(add_noise(x, 0.5f)) != first);
  Draws::current() = {.seed = 4, .step = 5};
  CHECK(values(add_noise(x, 0.5f)) != first);
}

TEST_CASE("dropout does nothing in evaluation and at rate 0") {
  const Single3 x = random_map<Single3>({1, 4, 4, 4, 4}, 1);
  CHECK(evaluating([&] { return dropout(x, 0.5f); }).data() == x.data());
  CHECK(evaluating([&] { return channel_dropout(x, 0.5f); }).data() == x.data());
  CHECK(dropout(x, 0).data() == x.data());
}

TEST_CASE("element by element gives the same bits for 1, 2 and 4 threads") {
  const Grid grid{2, 9, 11, 13, 5};
  CHECK(same_for_threads<Single3>({grid, grid}, {}, [](const auto& x, const auto&) {
    return softmax(map(math::Gelu{}, x[0]) * dropout(x[1], 0.3f) - x[1]);
  }));
}

TEST_CASE("what does not fit is said with its numbers") {
  const Map2 a = random_map<Map2>({1, 1, 2, 3, 4}, 1), b = random_map<Map2>({1, 1, 2, 3, 5}, 1);
  CHECK_THROWS_WITH_AS(a * b, "segmed: zip: shapes differ: (1, 1, 2, 3, 4) and (1, 1, 2, 3, 5)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(
      where(a, a, b),
      "segmed: where: shapes differ: (1, 1, 2, 3, 4), (1, 1, 2, 3, 4) and (1, 1, 2, 3, 5)",
      ShapeError);
  CHECK_THROWS_WITH_AS(dropout(a, 1), "segmed: dropout: rate 1 is outside of [0, 1)", ConfigError);
  CHECK_THROWS_WITH_AS(channel_dropout(a, -0.5f),
                       "segmed: channel_dropout: rate -0.5 is outside of [0, 1)", ConfigError);
}

TEST_SUITE_END();
