// SPDX-License-Identifier: Apache-2.0
#include "oracle.hpp"
#include <segmed/autograd/convolution.hpp>
#include <segmed/autograd/normalize.hpp>

TEST_SUITE_BEGIN("autograd/normalize");
using namespace check;

namespace {

using Kind = NormSets::Kind;

template <class F>
F norm(Kind kind, const F& x, const typename F::P& gain, const typename F::P& bias) {
  return normalize(x, {.kind = kind, .groups = kind == Kind::group ? 2 : 1}, gain, bias, 1e-5);
}
template <class F>
F conv3(const F& x, const typename F::P& weight) {
  return conv(x, weight, typename F::P(), ConvGeometry<F::dim>::cubic(3));
}
/// act(norm(conv(x))) twice, with a residual sum and a concatenation.
template <class F>
Op<F> deep(Kind kind) {
  return [kind](const auto& x, const auto& p) {
    const F first = leaky_relu(norm(kind, conv3<F>(x[0], p[0]), p[1], p[2]), 0.01);
    const F second = norm(kind, conv3<F>(first, p[3]), p[4], p[5]);
    const F sum = prelu(second + x[0], p[6]);
    return conv3<F>(concat(sum, leaky_relu(norm(kind, conv3<F>(sum, p[7]), p[8], p[9]), 0)), p[10]);
  };
}
template <class F>
std::vector<Index> deep_sizes(Index channels) {
  const Index w = (F::dim == 3 ? 27 : 9) * channels * channels, c = channels;
  return {w, c, c, w, c, c, c, w, c, c, 2 * w};
}
const Kind kinds[] = {Kind::instance, Kind::group, Kind::batch};

}  // namespace

TEST_CASE("the gradients of normalisation are those of central differences") {
  for (const Kind kind : kinds) {
    CAPTURE(int(kind));
    // of a convolution
    CHECK(worst_gradient<Map3>({{2, 3, 2, 3, 3}}, {27 * 3 * 4, 4, 4},
                               [kind](const auto& x, const auto& p) {
                                 return norm(kind, conv3<Map3>(x[0], p[0]), p[1], p[2]);
                               }) < 1e-5);
    // of a leaf
    CHECK(worst_gradient<Map2>({{3, 1, 3, 5, 4}}, {4, 4}, [kind](const auto& x, const auto& p) {
            return norm(kind, x[0], p[0], p[1]);
          }) < 1e-5);
    // of pending work
    CHECK(worst_gradient<Map2>({{3, 1, 3, 5, 2}, {3, 1, 3, 5, 2}}, {4, 4},
                               [kind](const auto& x, const auto& p) {
                                 return norm(kind, leaky_relu(concat(x[0], x[1]), 0.2), p[0], p[1]);
                               }) < 1e-5);
    // of a residual sum
    CHECK(worst_gradient<Map2>({{2, 1, 3, 5, 4}, {2, 1, 3, 5, 4}}, {4, 4},
                               [kind](const auto& x, const auto& p) {
                                 return norm(kind, x[0] + x[1], p[0], p[1]);
                               }) < 1e-5);
  }
}

TEST_CASE("the gradients of activations are those of central differences") {
  for (const double leak : {0.0, 0.01, 0.3, 1.5}) {
    CHECK(worst_gradient<Map3>({{2, 2, 3, 3, 3}}, {}, [leak](const auto& x, const auto&) {
            return leaky_relu(x[0], leak);
          }) < 1e-7);
    CHECK(
        worst_gradient<Map2>({{2, 1, 3, 3, 2}}, {9 * 2 * 3}, [leak](const auto& x, const auto& p) {
          return leaky_relu(conv3<Map2>(x[0], p[0]), leak);
        }) < 1e-7);
  }
  for (const Index slopes : {Index{1}, Index{3}})
    CHECK(worst_gradient<Map3>({{2, 2, 3, 3, 3}}, {slopes}, [](const auto& x, const auto& p) {
            return prelu(x[0], p[0]);
          }) < 1e-7);
  for (const Index slopes : {Index{1}, Index{5}})
    CHECK(worst_gradient<Map2>(
              {{2, 1, 3, 4, 2}, {2, 1, 3, 4, 3}}, {slopes},
              [](const auto& x, const auto& p) { return prelu(concat(x[0], x[1]), p[0]); }) < 1e-7);
}

TEST_CASE("activations in a row have the right gradients") {
  CHECK(worst_gradient<Map2>({{2, 1, 3, 4, 2}}, {2, 1}, [](const auto& x, const auto& p) {
          return prelu(leaky_relu(prelu(leaky_relu(leaky_relu(x[0], 0.5), 0.3), p[0]), 0.2), p[1]);
        }) < 1e-7);
}

TEST_CASE("deep chains of convolution, normalisation and activation have the right gradients") {
  for (const Kind kind : kinds) {
    CAPTURE(int(kind));
    CHECK(worst_gradient<Map2>({{2, 1, 4, 3, 2}}, deep_sizes<Map2>(2), deep<Map2>(kind)) < 1e-5);
  }
  CHECK(worst_gradient<Map3>({{2, 3, 2, 3, 2}}, deep_sizes<Map3>(2), deep<Map3>(Kind::instance)) <
        1e-5);
}

TEST_CASE("a tensor that is read through several views gets the sum of their gradients") {
  const std::vector<Index> sizes{9 * 2 * 2, 2, 2, 2, 2, 2};
  SUBCASE("raw, normalised, and normalised and activated") {
    CHECK(worst_gradient<Map2>({{2, 1, 4, 3, 2}}, sizes, [](const auto& x, const auto& p) {
            const Map2 raw = conv3<Map2>(x[0], p[0]), a = instance_norm(raw, p[1], p[2]);
            return raw * a + leaky_relu(a, 0.1);
          }) < 1e-5);
  }
  SUBCASE("two activations of one normalisation") {
    CHECK(worst_gradient<Map2>({{2, 1, 4, 3, 2}}, sizes, [](const auto& x, const auto& p) {
            const Map2 a = batch_norm(conv3<Map2>(x[0], p[0]), p[1], p[2]);
            return leaky_relu(a, 0.1) * prelu(a, p[3]);
          }) < 1e-5);
  }
  SUBCASE("two normalisations of one convolution") {
    CHECK(worst_gradient<Map2>({{2, 1, 4, 3, 2}}, sizes, [](const auto& x, const auto& p) {
            const Map2 raw = conv3<Map2>(x[0], p[0]);
            return concat(leaky_relu(instance_norm(raw, p[1], p[2]), 0.1),
                          batch_norm(raw, p[3], p[4]));
          }) < 1e-5);
  }
  SUBCASE("two normalisations of one leaf") {
    CHECK(worst_gradient<Map2>({{2, 1, 4, 3, 2}}, {2, 2, 2, 2}, [](const auto& x, const auto& p) {
            return leaky_relu(instance_norm(x[0], p[0], p[1]), 0.1) *
                       group_norm(x[0], 1, p[2], p[3]) +
                   x[0];
          }) < 1e-5);
  }
  SUBCASE("a leaf's activation, and two of its normalisation") {
    CHECK(worst_gradient<Map2>({{2, 1, 4, 3, 2}}, {2, 2, 2}, [](const auto& x, const auto& p) {
            const Map2 a = instance_norm(x[0], p[0], p[1]);
            return leaky_relu(x[0], 0.3) * leaky_relu(a, 0.1) + prelu(a, p[2]) * a;
          }) < 1e-5);
  }
  SUBCASE("a map beside itself") {
    CHECK(worst_gradient<Map2>({{2, 1, 4, 3, 2}}, {9 * 4 * 3}, [](const auto& x, const auto& p) {
            return conv3<Map2>(concat(x[0], x[0]), p[0]);
          }) < 1e-7);
    CHECK(worst_gradient<Map2>({{2, 1, 4, 3, 2}}, {9 * 4 * 3}, [](const auto& x, const auto& p) {
            const Map2 a = leaky_relu(x[0], 0.1);
            return conv3<Map2>(concat(a, a), p[0]) + conv3<Map2>(concat(a, x[0]), p[0]);
          }) < 1e-7);
  }
}

TEST_CASE("normalisations equal those of PyTorch") {
  if (no_torch()) return;
  const char* expressions[] = {"last(f.instance_norm(first(x[0]), None, None, x[1], x[2]))",
                               "last(f.group_norm(first(x[0]), 2, x[1], x[2]))",
                               "last(f.batch_norm(first(x[0]), None, None, x[1], x[2], True))"};
  const auto compare = [&]<class F>(F, double bound) {
    for (const Kind kind : kinds)
      for (const Index c : {Index{6}, Index{16}, Index{34}}) {
        CAPTURE(int(kind));
        CAPTURE(c);
        const Grid grid{3, F::dim == 3 ? 5 : 1, 7, 9, c};
        CHECK(torch_distance<F>(expressions[int(kind)], {grid}, {{c}, {c}},
                                [kind](const auto& x, const auto& p) {
                                  return norm(kind, x[0], p[0], p[1]);
                                }) < bound);
        CHECK(torch_distance<F>(std::string("f.leaky_relu(") + expressions[int(kind)] + ", 0.01)",
                                {grid}, {{c}, {c}}, [kind](const auto& x, const auto& p) {
                                  return leaky_relu(norm(kind, x[0], p[0], p[1]), 0.01);
                                }) < bound);
      }
  };
  compare(Map3{}, 1e-12);
  compare(Single2{}, 1e-5);
}

TEST_CASE("a block in float equals PyTorch") {
  if (no_torch()) return;
  const char* block =
      "last(f.leaky_relu(f.instance_norm(f.conv3d(first(x[0]), kernel(x[1]), padding=1), None, "
      "None, x[2], x[3]), 0.01))";
  for (const Index c : {Index{7}, Index{16}, Index{32}})
    CHECK(torch_distance<Single3>(
              block, {{2, 6, 7, 5, 16}}, {{3, 3, 3, 16, c}, {c}, {c}},
              [](const auto& x, const auto& p) {
                return leaky_relu(instance_norm(conv3<Single3>(x[0], p[0]), p[1], p[2]), 0.01);
              }) < 1e-5);
}

TEST_CASE("a mean far from zero does not spoil the normalisation of floats") {
  const Grid grid{2, 5, 6, 7, 16};
  std::vector<float> values = numbers<float>(grid.size(), 3);
  for (float& v : values) v = v * 0.1f + 100;
  Weights<Single3> p({16, 16});
  Weights<Map3> wide_p({16, 16});
  const Single3 y = value(instance_norm(Single3(grid, Storage<float, Cpu>(values)), p[0], p[1]));
  const Map3 exact =
      value(instance_norm(Map3(grid, Storage<double, Cpu>(wide(values))), wide_p[0], wide_p[1]));
  CHECK(distance(wide(y.dense().value.host()), exact.dense().value.host()) < 1e-4);
}

TEST_CASE("activations equal those of PyTorch") {
  if (no_torch()) return;
  const auto compare = [&]<class F>(F, double bound) {
    const Grid grid{2, F::dim == 3 ? 3 : 1, 5, 7, 5};
    CHECK(torch_distance<F>("f.relu(x[0])", {grid}, {}, [](const auto& x, const auto&) {
            return leaky_relu(x[0], 0);
          }) < bound);
    CHECK(torch_distance<F>("f.leaky_relu(x[0], 0.01)", {grid}, {}, [](const auto& x, const auto&) {
            return leaky_relu(x[0], 0.01);
          }) < bound);
    for (const Index slopes : {Index{1}, Index{5}})
      CHECK(torch_distance<F>("last(f.prelu(first(x[0]), x[1]))", {grid}, {{slopes}},
                              [](const auto& x, const auto& p) { return prelu(x[0], p[0]); }) <
            bound);
  };
  compare(Map2{}, 1e-12);
  compare(Single3{}, 1e-5);
}

TEST_CASE("running statistics move in training and serve in evaluation") {
  const Grid grid{3, 1, 4, 5, 2};
  const Map2 x = random_map<Map2>(grid, 1, true);
  Weights<Map2> p({2, 2});
  GroupOf<Map2> group(Role::trained, p);
  Buffer<double, Cpu> mean(2, 0), variance(2, 1);
  const Running<double, Cpu> running{&mean, &variance, 0.25};
  const auto apply = [&](const Map2& in) { return batch_norm(in, p[0], p[1], running); };

  no_grad([&] { return apply(x); });
  evaluating([&] { return apply(x); });
  CHECK(mean.running().host() == std::vector<double>{0, 0});
  CHECK(variance.running().host() == std::vector<double>{1, 1});

  const Map2 y = apply(x);
  const auto values = x.dense().value.host();
  for (std::size_t c = 0; c < 2; ++c) {
    double sum = 0, squares = 0;
    for (std::size_t i = c; i < values.size(); i += 2)
      sum += values[i], squares += values[i] * values[i];
    const double count = 60, m = sum / count, v = squares / count - m * m;
    CHECK(mean.running().host()[c] == doctest::Approx(0.25 * m).epsilon(1e-12));
    CHECK(variance.running().host()[c] ==
          doctest::Approx(0.75 + 0.25 * v * count / (count - 1)).epsilon(1e-12));
  }
  Tape::current()->clear();

  // In evaluation each element is an affine function of itself alone.
  const auto at = [&](const Map2& out) { return value(out).dense().value.host(); };
  const auto seen = evaluating([&] { return at(apply(x)); });
  const auto m = mean.running().host(), v = variance.running().host();
  const auto gain = p[0].value().host(), bias = p[1].value().host();
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const std::size_t c = i % 2;
    CHECK(seen[i] ==
          doctest::Approx((values[i] - m[c]) / std::sqrt(v[c] + 1e-5) * gain[c] + bias[c])
              .epsilon(1e-12));
  }
  const Scope scope([](Mode& mode) { mode.training = false; });
  const auto loss = [&](const Map2& in) { return probe(leaky_relu(apply(in), 0.1)); };
  CHECK(gradient_error<Map2>(grid, values, loss) < 1e-7);
  CHECK(parameter_gradient_error(p[0], [&] { return loss(x); }) < 1e-7);
  CHECK(parameter_gradient_error(p[1], [&] { return loss(x); }) < 1e-7);
}

TEST_CASE("a normalisation without gradient is a constant, whatever is learned behind it") {
  const Map2 x = random_map<Map2>({2, 1, 3, 3, 2}, 1, true);
  Weights<Map2> p({2, 2, 2});
  GroupOf<Map2> group(Role::trained, p);
  const Map2 fixed = no_grad([&] { return instance_norm(x, p[0], p[1]); });
  backward(probe(prelu(fixed, p[2]) * x));
  const auto first = x.gradient().host();
  Tape::current()->clear();
  x.dense().grad->sum = {};
  backward(probe(detach(prelu(fixed, p[2])) * x));
  CHECK(first == x.gradient().host());
}

TEST_CASE("a pull in evaluation outlives the module") {
  const Map2 x = random_map<Map2>({2, 1, 3, 3, 2}, 1, true);
  Weights<Map2> p({2, 2});
  GroupOf<Map2> group(Role::trained, p);
  const Scope scope([](Mode& mode) { mode.training = false; });
  Scalar<Map2> loss;
  {
    const Buffer<double, Cpu> mean(2, 0.5), variance(2, 4);
    loss = probe(batch_norm(x, p[0], p[1], {&mean, &variance, 0.1}));
  }
  backward(loss);
  CHECK_FALSE(x.gradient().empty());
}

TEST_CASE("running statistics equal PyTorch's") {
  if (no_torch()) return;
  const Grid grid{2, 3, 4, 5, 3};
  const Map3 x = random_map<Map3>(grid, 1, true);
  Weights<Map3> p({3, 3});
  Buffer<double, Cpu> mean(3, 0), variance(3, 1);
  for (int i = 0; i < 2; ++i) batch_norm(x, p[0], p[1], {&mean, &variance, 0.1});
  Tape::current()->clear();
  // Twice the same batch, then the statistics beside each other.
  const auto expected = Oracle::current()->ask(
      "[b := torch.nn.BatchNorm3d(3).double(), b(first(x[0])), b(first(x[0])), "
      "torch.cat((b.running_mean, b.running_var)) + 0 * x[0].sum()][-1]",
      {{{2, 3, 4, 5, 3}, x.dense().value.host()}}, std::vector<double>(6, 1.0), false);
  auto ours = mean.running().host();
  for (const double v : variance.running().host()) ours.push_back(v);
  CHECK(distance(ours, expected[0]) < 1e-12);
}

TEST_CASE("normalisation gives the same bits for 1, 2 and 4 threads") {
  for (const Kind kind : kinds) {
    CAPTURE(int(kind));
    CHECK(same_for_threads<Single3>({{2, 5, 9, 7, 16}}, deep_sizes<Single3>(16),
                                    deep<Single3>(kind)));
    CHECK(same_for_threads<Map2>({{2, 1, 13, 9, 6}}, deep_sizes<Map2>(6), deep<Map2>(kind)));
    CHECK(same_for_threads<Single3>({{2, 9, 17, 15, 16}}, {16, 16, 16},
                                    [kind](const auto& x, const auto& p) {
                                      return prelu(norm(kind, x[0], p[0], p[1]), p[2]);
                                    }));
  }
}

TEST_CASE("fused and materialised runs give the same bits") {
  for (const Kind kind : kinds) {
    CAPTURE(int(kind));
    for (const Index c : {Index{6}, Index{16}}) {
      CAPTURE(c);
      const auto chain = [kind](const auto& x, const auto& p) {
        using F = std::remove_cvref_t<decltype(x[0])>;
        const F a = leaky_relu(norm(kind, conv3<F>(x[0], p[0]), p[1], p[2]), 0.01);
        const F b = prelu(norm(kind, conv3<F>(x[1], p[3]), p[4], p[5]), p[6]);
        const F both = conv3<F>(concat(a, b), p[7]);
        return leaky_relu(norm(kind, both, p[8], p[9]), 0) + x[0];
      };
      const auto sizes = [c](Index taps) -> std::vector<Index> {
        return {taps * c * c, c, c, taps * c * c, c, c, c, 2 * taps * c * c, c, c};
      };
      const Grid g3{2, 4, 5, 6, c}, g2{2, 1, 9, 7, c};
      CHECK(same_materialized<Single3>({g3, g3}, sizes(27), chain));
      CHECK(same_materialized<Map2>({g2, g2}, sizes(9), chain));
    }
  }
}

TEST_CASE("normalising and activating a convolution writes no voxel") {
  Weights<Map2> p({9 * 2 * 3, 3, 3});
  const Map2 raw = conv3<Map2>(random_map<Map2>({2, 1, 4, 5, 2}, 1), p[0]);
  const Map2 y = leaky_relu(instance_norm(raw, p[1], p[2]), 0.01);
  CHECK_FALSE(y.plain());
  CHECK(y.sources()[0].raw == raw.sources()[0].raw);
  const Map2 written =
      materialized([&] { return leaky_relu(instance_norm(raw, p[1], p[2]), 0.01); });
  CHECK(written.plain());
  CHECK(written.dense().value.host() == value(y).dense().value.host());
  Tape::current()->clear();
}

TEST_CASE("what does not fit is said with its numbers") {
  const Map2 x = random_map<Map2>({1, 1, 4, 5, 4}, 1);
  Weights<Map2> p({4, 3});
  CHECK_THROWS_WITH_AS(instance_norm(x, p[1], p[1]),
                       "segmed: normalize: input (1, 1, 4, 5, 4) takes 4 gains, not 3", ShapeError);
  CHECK_THROWS_WITH_AS(group_norm(x, 3, p[0], p[0]),
                       "segmed: normalize: 3 groups do not divide 4 channels", ShapeError);
  CHECK_THROWS_WITH_AS(group_norm(x, 0, p[0], p[0]),
                       "segmed: normalize: 0 groups do not divide 4 channels", ShapeError);
  CHECK_THROWS_WITH_AS(prelu(x, p[1]),
                       "segmed: prelu: input (1, 1, 4, 5, 4) takes 1 or 4 slopes, not 3",
                       ShapeError);
  CHECK_THROWS_WITH_AS(leaky_relu(x, -0.5),
                       "segmed: leaky_relu: leak -0.5 would turn the sign; use map with a functor "
                       "of your own",
                       ConfigError);
}

TEST_SUITE_END();
