// SPDX-License-Identifier: Apache-2.0
#include "check.hpp"
#include <segmed/autograd/convolution.hpp>
#include <segmed/autograd/normalize.hpp>
#include <segmed/autograd/pointwise.hpp>
#include <segmed/autograd/recompute.hpp>

TEST_SUITE_BEGIN("autograd/recompute");
using namespace check;

namespace {

/// act(norm(conv(x))) with dropout.
template <class F>
struct Block {
  using P = typename F::P;
  const P *weight, *gain, *bias;
  const Buffer<typename F::Wide, Cpu>*mean = nullptr, *variance = nullptr;
  float drop = 0.25f;

  F operator()(const F& x) const {
    const F y = conv(x, *weight, P(), ConvGeometry<F::dim>::cubic(3));
    return dropout(leaky_relu(batch_norm(y, *gain, *bias, {mean, variance, 0.1}), 0.1), drop);
  }
};
template <class F>
Op<F> chain(bool again) {
  return [again](const auto& x, const auto& p) {
    const auto run = [again](const auto& block, const F& in) {
      return again ? recompute(block, in) : block(in);
    };
    F y = leaky_relu(x[0], 0.5);
    for (std::size_t i = 0; i < 2; ++i)
      y = run(Block<F>{&p[3 * i], &p[3 * i + 1], &p[3 * i + 2]}, y) + x[0];
    return dropout(y, 0.25f);
  };
}
template <class F>
std::vector<Index> sizes(Index c) {
  const Index w = (F::dim == 3 ? 27 : 9) * c * c;
  return {w, c, c, w, c, c};
}

}  // namespace

TEST_CASE("recomputing gives the bits of a run that keeps everything") {
  CHECK(run_bytes<Map2>({{2, 1, 4, 5, 3}}, sizes<Map2>(3), chain<Map2>(false)) ==
        run_bytes<Map2>({{2, 1, 4, 5, 3}}, sizes<Map2>(3), chain<Map2>(true)));
  CHECK(run_bytes<Single3>({{2, 4, 5, 6, 16}}, sizes<Single3>(16), chain<Single3>(false)) ==
        run_bytes<Single3>({{2, 4, 5, 6, 16}}, sizes<Single3>(16), chain<Single3>(true)));
}

TEST_CASE("the gradients of a recomputed chain are those of central differences") {
  CHECK(worst_gradient<Map2>({{2, 1, 4, 3, 2}}, sizes<Map2>(2), chain<Map2>(true)) < 1e-5);
}

TEST_CASE("a block may end in pending work, in two sources, or in its own input") {
  const Grid grid{2, 1, 4, 3, 2};
  const auto compare = [&](auto block, const std::vector<Index>& weights) {
    const auto run = [&](bool again) {
      return run_bytes<Map2>({grid, grid}, weights, [&](const auto& x, const auto& p) {
        const auto inner = [&](const Map2& in) { return block(in, x[1], p); };
        const Map2 in = x[0] + x[1], y = again ? recompute(inner, in) : inner(in);
        return leaky_relu(y, 0.2) * y + map(math::Exp{}, y);
      });
    };
    return run(false) == run(true);
  };
  CHECK(compare([](const Map2& x, const Map2&, const auto&) { return x; }, {}));
  CHECK(compare([](const Map2& x, const Map2&, const auto&) { return leaky_relu(x, 0.3); }, {}));
  CHECK(compare([](const Map2& x, const Map2&, const auto& p) { return prelu(x, p[0]); }, {2}));
  CHECK(compare(
      [](const Map2& x, const Map2&, const auto& p) { return instance_norm(x, p[0], p[1]); },
      {2, 2}));
  CHECK(compare([](const Map2& x, const Map2&,
                   const auto& p) { return conv(x, p[0], Map2::P(), ConvGeometry<2>::cubic(3)); },
                {9 * 2 * 3}));
  CHECK(compare(
      [](const Map2& x, const Map2&, const auto& p) {
        return leaky_relu(
            instance_norm(conv(x, p[0], Map2::P(), ConvGeometry<2>::cubic(3)), p[1], p[2]), 0.1);
      },
      {9 * 2 * 3, 3, 3}));
  CHECK(compare(
      [](const Map2& x, const Map2& skip, const auto& p) {
        return concat(prelu(conv(x, p[0], Map2::P(), ConvGeometry<2>::cubic(3)), p[1]), skip);
      },
      {9 * 2 * 3, 3}));
}

TEST_CASE("blocks nest") {
  const auto run = [](bool again) {
    return run_bytes<Map2>(
        {{2, 1, 4, 5, 2}}, sizes<Map2>(2), [again](const auto& x, const auto& p) {
          const Block<Map2> first{&p[0], &p[1], &p[2]}, second{&p[3], &p[4], &p[5]};
          const auto both = [again, first, second](const Map2& in) {
            return again ? recompute(second, recompute(first, in)) : second(first(in));
          };
          return again ? recompute(both, x[0]) : both(x[0]);
        });
  };
  CHECK(run(false) == run(true));
}

TEST_CASE("running statistics move once") {
  const Map2 x = random_map<Map2>({2, 1, 4, 5, 2}, 1, true);
  Weights<Map2> p({9 * 2 * 2, 2, 2});
  GroupOf<Map2> group(Role::trained, p);
  const auto moved = [&](bool again) {
    Buffer<double, Cpu> mean(2, 0), variance(2, 1);
    const Block<Map2> block{&p[0], &p[1], &p[2], &mean, &variance};
    backward(probe(again ? recompute(block, x) : block(x)));
    return std::pair{mean.running().host(), variance.running().host()};
  };
  CHECK(moved(false) == moved(true));
}

TEST_CASE("a block whose weights were constants is run again with constant weights") {
  const Map2 x = random_map<Map2>({2, 1, 4, 5, 2}, 1, true);
  const Weights<Map2> p({9 * 2 * 2, 2, 2});  // in no group
  const Block<Map2> block{&p[0], &p[1], &p[2]};
  backward(probe(constant([&](const Map2& in) { return recompute(block, in); })(x)));
  CHECK_FALSE(x.gradient().empty());
}

TEST_CASE("the parameters of a block are ready once it has been pulled") {
  const Map2 x = random_map<Map2>({2, 1, 4, 5, 2}, 1, true);
  Weights<Map2> p(sizes<Map2>(2));
  GroupOf<Map2> group(Role::trained, p);
  const Block<Map2> first{&p[0], &p[1], &p[2]}, second{&p[3], &p[4], &p[5]};
  std::vector<std::string> order;
  backward(probe(recompute(second, recompute(first, x))),
           [&](const ParamUse& use) { order.push_back(use.name); });
  REQUIRE(order.size() == 6);
  std::sort(order.begin(), order.begin() + 3);
  std::sort(order.begin() + 3, order.end());
  CHECK(order ==
        std::vector<std::string>{"list.3", "list.4", "list.5", "list.0", "list.1", "list.2"});
}

TEST_CASE("a parameter of a block that belongs to no group is a loud error") {
  const Map2 x = random_map<Map2>({2, 1, 4, 5, 2}, 1, true);
  const Weights<Map2> p({9 * 2 * 2, 2, 2});
  const auto loss = probe(recompute(Block<Map2>{&p[0], &p[1], &p[2]}, x));
  CHECK_THROWS_WITH_AS(backward(loss),
                       "segmed: backward: a parameter takes part in the loss but belongs to no "
                       "Group; list it in its module's `members`",
                       Error);
}

TEST_CASE("random ops after a recomputed block draw what they would have drawn") {
  const Map2 x = random_map<Map2>({2, 1, 4, 5, 2}, 1, true);
  Draws::current() = {};
  const auto stay = [](const Map2& in) { return dropout(in, 0.5f); };
  backward(probe(recompute(stay, x)));
  CHECK(Draws::current().stream == 1);
}

TEST_CASE("without recording, a block simply runs") {
  const Map2 x = random_map<Map2>({2, 1, 4, 5, 2}, 1, true);
  const Map2 y =
      no_grad([&] { return recompute([](const Map2& in) { return scaled(in, 2); }, x); });
  CHECK_FALSE(y.tracked());
  CHECK(Tape::current()->size() == 0);
}

TEST_SUITE_END();
