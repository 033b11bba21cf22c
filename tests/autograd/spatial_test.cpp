// SPDX-License-Identifier: Apache-2.0
#include "oracle.hpp"
#include <segmed/autograd/normalize.hpp>
#include <segmed/autograd/pool.hpp>
#include <segmed/autograd/spatial.hpp>
#include <segmed/autograd/stretch.hpp>

TEST_SUITE_BEGIN("autograd/spatial");
using namespace check;

namespace {

using Extent3 = std::array<Index, 3>;
using Extent2 = std::array<Index, 2>;
template <class F, class Body>
double gradient_of(const Grid& grid, Body body) {
  return worst_gradient<F>({grid}, {}, [body](const auto& x, const auto&) { return body(x[0]); });
}
template <class F, class Body>
double from_torch(const std::string& expression, const Grid& grid, Body body) {
  return torch_distance<F>(expression, {grid}, {},
                           [body](const auto& x, const auto&) { return body(x[0]); });
}
Map2 counted(Index height, Index width) {
  std::vector<double> values;
  for (Index i = 0; i < height * width; ++i) values.push_back(double(i));
  return Map2(Grid{1, 1, height, width, 1}, Storage<double, Cpu>(values));
}
std::vector<double> seen(const Map2& x) { return value(x).dense().value.host(); }

}  // namespace

TEST_CASE("the gradients of upsampling and stretching are those of central differences") {
  for (const Interpolation how : {Interpolation::nearest, Interpolation::linear}) {
    CAPTURE(int(how));
    CHECK(gradient_of<Map3>({2, 2, 3, 2, 2}, [how](const Map3& x) {
            return upsample(x, Extent3{2, 1, 3}, how);
          }) < 1e-7);
    for (const Index channels : {1, 16})
      CHECK(gradient_of<Map3>({1, 6, 10, 1, channels}, [how](const Map3& x) {
              return stretch(x, Extent3{9, 7, 3}, how);
            }) < 1e-7);
    for (const Index to : {Index{1}, Index{2}, Index{4}, Index{5}, Index{7}, Index{13}})
      CHECK(gradient_of<Map2>({2, 1, 5, 4, 2}, [how, to](const Map2& x) {
              return stretch(leaky_relu(x, 0.2), Extent2{to, 3}, how);
            }) < 1e-7);
  }
}

TEST_CASE("the gradient of pooling is that of central differences") {
  CHECK(gradient_of<Map3>({2, 4, 5, 3, 2}, [](const Map3& x) {
          return max_pool(x, Extent3{2, 2, 1}, Extent3{2, 2, 1});
        }) < 1e-7);
  // Windows that overlap, and windows with gaps between them.
  CHECK(gradient_of<Map2>({2, 1, 7, 8, 2}, [](const Map2& x) {
          return max_pool(x, Extent2{3, 3}, Extent2{2, 1});
        }) < 1e-7);
  CHECK(gradient_of<Map2>({1, 1, 7, 8, 2}, [](const Map2& x) {
          return max_pool(x, Extent2{2, 1}, Extent2{3, 3});
        }) < 1e-7);
}

TEST_CASE("pooling many lines of many channels picks the largest of each window") {
  const Grid grid{2, 9, 10, 7, 43};
  const Single3 x = random_map<Single3>(grid, 5);
  const Single3 y = max_pool(x, Extent3{3, 2, 2}, Extent3{2, 2, 1});
  const auto in = x.dense().value.host(), out = y.dense().value.host();
  REQUIRE(y.grid() == Grid{2, 4, 5, 6, 43});
  std::size_t i = 0;
  Index different = 0;
  for (Index n = 0; n < 2; ++n)
    for (Index d = 0; d < 4; ++d)
      for (Index h = 0; h < 5; ++h)
        for (Index w = 0; w < 6; ++w)
          for (Index c = 0; c < 43; ++c, ++i) {
            float best = -INFINITY;
            for (Index k = 0; k < 12; ++k) {
              const Index z = 2 * d + k / 4, row = 2 * h + k / 2 % 2, column = w + k % 2;
              best =
                  std::max(best, in[std::size_t((((n * 9 + z) * 10 + row) * 7 + column) * 43 + c)]);
            }
            different += out[i] != best;
          }
  CHECK(different == 0);
}

TEST_CASE("what an op wrote down for itself and needs no more is given back before backward") {
  const Grid grid{1, 16, 16, 16, 64};
  const auto keeps = [&](auto op) {  // shares of the map
    const Single3 x = random_map<Single3>(grid, 5, true);
    const std::size_t before = Memory::current().used();
    const Single3 y = op(leaky_relu(x, 0.2));
    const auto kept = double(Memory::current().used() - before) / double(4 * grid.size());
    backward(mean(y));
    CHECK(x.gradient().size() == grid.size());
    return kept;
  };
  const Extent3 twice{2, 2, 2};
  CHECK(keeps([&](const Single3& x) { return max_pool(x, twice, twice); }) < 0.2);
  CHECK(keeps([&](const Single3& x) { return stretch(x, twice, Interpolation::linear); }) < 0.1);
  CHECK(keeps([](const Single3& x) { return spatial_mean(x); }) < 0.1);
  CHECK(keeps([](const Single3& x) { return flip(x, 1); }) < 1.1);
  CHECK(keeps([](const Single3& x) { return channel_range(x, 3, 4); }) < 0.1);
  CHECK(keeps([](const Single3& x) { return softmax(x); }) < 1.1);
  CHECK(keeps([](const Single3& x) { return scaled(x, 2); }) < 1.1);
  CHECK(keeps([](const Single3& x) { return dropout(x, 0.5f); }) < 1.1);
  CHECK(keeps([](const Single3& x) { return map(math::Tanh{}, x); }) > 1.9);  // its pull reads x
}

TEST_CASE("the spatial mean is the mean, its gradient a share of each voxel") {
  const Op<Map3> pooled = [](const auto& x, const auto&) { return spatial_mean(x[0]); };
  const Op<Single3> single = [](const auto& x, const auto&) { return spatial_mean(x[0]); };
  const Grid grid{2, 2, 3, 2, 5};
  const Map3 x = random_map<Map3>(grid, 1);
  const auto in = x.dense().value.host(), y = spatial_mean(x).dense().value.host();
  REQUIRE(y.size() == 10);
  for (std::size_t i = 0; i < 10; ++i) {
    double total = 0;
    for (std::size_t v = 0; v < 12; ++v) total += in[(i / 5 * 12 + v) * 5 + i % 5];
    CHECK(y[i] == doctest::Approx(total / 12).epsilon(1e-12));
  }
  CHECK(worst_gradient<Map3>({grid}, {}, pooled) < 1e-7);
  CHECK(same_for_threads<Single3>({{2, 9, 17, 31, 5}}, {}, single));
}

TEST_CASE("channels side by side are what each of them is alone") {
  const Index channels = 43, rows = 2 * 5 * 6;
  auto all = numbers<double>(rows * channels, 3);
  all[4 * channels + 7] = all[17 * channels + 41] = std::nan("");  // wins every window it is in
  const auto run = [](const std::vector<double>& values, Index count, auto op) {
    return seen(op(Map2({2, 1, 5, 6, count}, Storage<double, Cpu>(values))));
  };
  const auto pool = [](const Map2& x) { return max_pool(x, Extent2{2, 3}, Extent2{2, 1}); };
  const auto linear = [](const Map2& x) {
    return stretch(x, Extent2{7, 11}, Interpolation::linear);
  };
  const auto nearest = [](const Map2& x) {
    return stretch(x, Extent2{3, 13}, Interpolation::nearest);
  };
  const auto compare = [&](auto op) {
    const auto whole = run(all, channels, op);
    for (Index c = 0; c < channels; ++c) {
      std::vector<double> one;
      for (Index row = 0; row < rows; ++row) one.push_back(all[std::size_t(row * channels + c)]);
      const auto alone = run(one, 1, op);
      Index different = 0;
      for (std::size_t i = 0; i < alone.size(); ++i) {
        const double made = whole[i * std::size_t(channels) + std::size_t(c)];
        different += made == alone[i] || (std::isnan(made) && std::isnan(alone[i])) ? 0 : 1;
      }
      CHECK(different == 0);
    }
  };
  compare(pool), compare(linear), compare(nearest);
  CHECK(std::isnan(run(all, channels, pool)[2 * channels + 7]));
  for (const auto& op : {std::function<Map2(const Map2&)>(pool), {linear}, {nearest}})
    CHECK(gradient_of<Map2>({1, 1, 5, 6, channels}, op) < 1e-7);
}

TEST_CASE("some channels of a map are what they were, with their gradient") {
  CHECK(gradient_of<Map3>({2, 3, 2, 3, 5}, [](const Map3& x) {
          const Map3 y = leaky_relu(x, 0.3);
          return channel_range(y, 1, 3) + channel_range(y, 2, 3);
        }) < 1e-7);
  const Op<Single3> op = [](const auto& x, const auto&) { return channel_range(x[0], 2, 1); };
  CHECK(same_for_threads<Single3>({{3, 7, 6, 5, 3}}, {}, op));
  const Map2 x = random_map<Map2>({1, 1, 2, 2, 3}, 4);
  CHECK(seen(concat(channel_range(x, 0, 1), channel_range(x, 1, 2))) == seen(x));
  CHECK_THROWS_AS(channel_range(x, 2, 2), ShapeError);
}

TEST_CASE("the gradients of windows, flips and turns are those of central differences") {
  const Grid grid{2, 3, 4, 2, 2};
  CHECK(gradient_of<Map3>(grid, [](const Map3& x) {
          return window(x, Extent3{-1, 1, 0}, Extent3{5, 2, 3}, 0.5);
        }) < 1e-7);
  CHECK(gradient_of<Map3>(grid, [](const Map3& x) {
          return crop(x, Extent3{1, 0, 0}, Extent3{0, 2, 1});
        }) < 1e-7);
  CHECK(gradient_of<Map3>(grid, [](const Map3& x) {
          return pad(x, Extent3{1, 0, 2}, Extent3{0, 2, 1}, -3);
        }) < 1e-7);
  for (const std::size_t axis : {0u, 1u, 2u})
    CHECK(gradient_of<Map3>(grid, [axis](const Map3& x) { return flip(x, axis) * x; }) < 1e-5);
  for (const int turns : {-1, 0, 1, 2, 3})
    CHECK(gradient_of<Map3>(grid, [turns](const Map3& x) {
            return rot90(leaky_relu(x, 0.5), turns, 0, 2);
          }) < 1e-7);
}

TEST_CASE("upsampling equals PyTorch's") {
  if (no_torch()) return;
  const auto compare = [&]<class F>(F, double bound) {
    for (const Index c : {Index{5}, Index{16}}) {
      const Grid grid{2, F::dim == 3 ? 6 : 1, 10, 7, c};  // more lines than are summed at once
      const std::string mode = F::dim == 3 ? "'trilinear'" : "'bilinear'";
      std::array<Index, F::dim> twice, odd;
      twice.fill(2);
      for (std::size_t a = 0; a < F::dim; ++a) odd[a] = Index(4 + 3 * a);
      const std::string size = F::dim == 3 ? "(4, 7, 10)" : "(4, 7)";
      CHECK(from_torch<F>("last(f.interpolate(first(x[0]), scale_factor=2, mode='nearest'))", grid,
                          [=](const F& x) { return upsample(x, twice, Interpolation::nearest); }) <
            bound);
      CHECK(from_torch<F>("last(f.interpolate(first(x[0]), scale_factor=2, mode=" + mode +
                              ", align_corners=False))",
                          grid, [=](const F& x) {
                            return upsample(x, twice, Interpolation::linear);
                          }) < bound);
      CHECK(from_torch<F>(
                "last(f.interpolate(first(x[0]), " + size + ", mode=" + mode +
                    ", align_corners=False))",
                grid, [=](const F& x) { return stretch(x, odd, Interpolation::linear); }) < bound);
      CHECK(from_torch<F>("last(f.interpolate(first(x[0]), " + size + ", mode='nearest'))", grid,
                          [=](const F& x) { return stretch(x, odd, Interpolation::nearest); }) <
            bound);
    }
  };
  compare(Map3{}, 1e-12);
  compare(Map2{}, 1e-12);
  compare(Single3{}, 1e-5);
}

TEST_CASE("pooling equals PyTorch's") {
  if (no_torch()) return;
  const Grid grid{2, 5, 6, 7, 5};
  CHECK(from_torch<Map3>("last(f.max_pool3d(first(x[0]), 2, 2))", grid, [](const Map3& x) {
          return max_pool(x, Extent3{2, 2, 2}, Extent3{2, 2, 2});
        }) < 1e-12);
  CHECK(from_torch<Map3>("last(f.max_pool3d(first(x[0]), (1, 3, 2), (1, 2, 1)))", grid,
                         [](const Map3& x) {
                           return max_pool(x, Extent3{1, 3, 2}, Extent3{1, 2, 1});
                         }) < 1e-12);
  CHECK(from_torch<Single2>("last(f.max_pool2d(first(x[0]), 3, 2))", {2, 1, 9, 8, 16},
                            [](const Single2& x) {
                              return max_pool(x, Extent2{3, 3}, Extent2{2, 2});
                            }) < 1e-5);
}

TEST_CASE("rearranging equals PyTorch's") {
  if (no_torch()) return;
  const Grid grid{2, 3, 4, 5, 2};
  for (const int turns : {1, 2, 3, -1})
    for (const auto& [a, b] : {std::pair{0u, 1u}, {1u, 0u}, {0u, 2u}, {2u, 1u}})
      CHECK(from_torch<Map3>("torch.rot90(x[0], " + std::to_string(turns) + ", (" +
                                 std::to_string(a + 1) + ", " + std::to_string(b + 1) + "))",
                             grid, [turns, first = a, second = b](const Map3& x) {
                               return rot90(x, turns, first, second);
                             }) == 0);
  for (const std::size_t axis : {0u, 1u, 2u})
    CHECK(from_torch<Map3>("torch.flip(x[0], (" + std::to_string(axis + 1) + ",))", grid,
                           [=](const Map3& x) { return flip(x, axis); }) == 0);
  CHECK(from_torch<Map3>("f.pad(x[0], (0, 0, 1, 2, 0, 3, 2, 0), value=0.25)", grid,
                         [](const Map3& x) {
                           return pad(x, Extent3{2, 0, 1}, Extent3{0, 3, 2}, 0.25);
                         }) == 0);
  CHECK(from_torch<Map3>("x[0][:, 1:, :2, 1:4]", grid, [](const Map3& x) {
          return crop(x, Extent3{1, 0, 1}, Extent3{0, 2, 1});
        }) == 0);
}

TEST_CASE("small images come out as one would draw them") {
  const Map2 x = counted(2, 3);  // 0 1 2 / 3 4 5
  CHECK(seen(flip(x, 1)) == std::vector<double>{2, 1, 0, 5, 4, 3});
  CHECK(seen(rot90(x, 1, 0, 1)) == std::vector<double>{2, 5, 1, 4, 0, 3});
  CHECK(seen(window(x, Extent2{1, -1}, Extent2{2, 3}, 9)) == std::vector<double>{9, 3, 4, 9, 9, 9});
  CHECK(seen(max_pool(x, Extent2{2, 2}, Extent2{1, 1})) == std::vector<double>{4, 5});
  CHECK(seen(upsample(counted(1, 2), Extent2{2, 2}, Interpolation::nearest)) ==
        std::vector<double>{0, 0, 1, 1, 0, 0, 1, 1});
  CHECK(seen(upsample(counted(1, 2), Extent2{1, 2}, Interpolation::linear)) ==
        std::vector<double>{0, 0.25, 0.75, 1});
}

TEST_CASE("the first of equals wins a window, and a NaN wins over all") {
  const double nan = std::nan("");
  const auto pooled = [](std::vector<double> values) {
    const Map2 x = Map2::leaf({1, 1, 1, 4, 1}, values);
    const Map2 y = max_pool(x, Extent2{1, 4}, Extent2{1, 4});
    backward(mean(y));
    return std::pair{seen(y)[0], x.gradient().host()};
  };
  CHECK(pooled({1, 3, 3, 2}).second == std::vector<double>{0, 1, 0, 0});
  CHECK(std::isnan(pooled({1, nan, 3, 2}).first));
  CHECK(pooled({1, nan, 3, 2}).second == std::vector<double>{0, 1, 0, 0});
  CHECK(pooled({-INFINITY, -INFINITY, -INFINITY, -INFINITY}).first == -INFINITY);
}

TEST_CASE("spatial ops give the same bits for 1, 2 and 4 threads") {
  for (const Interpolation how : {Interpolation::nearest, Interpolation::linear})
    CHECK(same_for_threads<Single3>({{2, 8, 9, 11, 17}}, {}, [how](const auto& x, const auto&) {
      const auto up = upsample(x[0], Extent3{2, 2, 2}, how);
      return max_pool(flip(rot90(up, 1, 0, 1), 2), Extent3{2, 3, 2}, Extent3{1, 2, 2});
    }));
}

TEST_CASE("what does not fit is said with its numbers") {
  const Map2 x = counted(2, 3);
  CHECK_THROWS_WITH_AS(flip(x, 2), "segmed: flip: axis 2 of an image with 2 axes", ShapeError);
  CHECK_THROWS_WITH_AS(rot90(x, 1, 1, 1), "segmed: rot90: axis 1 twice", ShapeError);
  CHECK_THROWS_WITH_AS(rot90(x, 1, 0, 3), "segmed: rot90: axis 3 of an image with 2 axes",
                       ShapeError);
  CHECK_THROWS_WITH_AS(window(x, Extent2{0, 0}, Extent2{0, 3}),
                       "segmed: window: extent 0 on axis 0", ShapeError);
  CHECK_THROWS_WITH_AS(crop(x, Extent2{1, 0}, Extent2{1, 0}),
                       "segmed: crop: taking 1 and 1 voxels off axis 0 of (1, 1, 2, 3, 1)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(pad(x, Extent2{-1, 0}, Extent2{0, 0}),
                       "segmed: pad: adding -1 and 0 voxels on axis 0", ShapeError);
  CHECK_THROWS_WITH_AS(stretch(x, Extent2{4, 0}, Interpolation::linear),
                       "segmed: stretch: extent 0 on axis 1", ShapeError);
  CHECK_THROWS_WITH_AS(max_pool(x, Extent2{3, 1}, Extent2{1, 1}),
                       "segmed: max_pool: a kernel of 3 and stride 1 on axis 0 of (1, 1, 2, 3, 1)",
                       ShapeError);
  CHECK_THROWS_AS(max_pool(x, Extent2{1, 1}, Extent2{0, 1}), ShapeError);
  CHECK_THROWS_WITH_AS(max_pool(counted(16, 16), Extent2{16, 16}, Extent2{1, 1}),
                       "segmed: max_pool: a window of 256 voxels; at most 255", ShapeError);
}

TEST_SUITE_END();
