// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/autograd/gradient_check.hpp>
#include <segmed/semi/copy_paste.hpp>
#include <segmed/semi/cube_shuffle.hpp>

using namespace trial;

namespace {

/// The cube of a voxel of 16^3, of which the last plane, row and column are left over; or -1.
Index cube_of(std::size_t v) {
  const Index z = Index(v) / 256, y = Index(v) / 16 % 16, x = Index(v) % 16;
  return std::max({x, y, z}) == 15 ? -1 : z / 5 * 9 + y / 5 * 3 + x / 5;
}

}  // namespace

TEST_SUITE("semi/cube_shuffle") {
  TEST_CASE("every cube has an order of its own, in which no case is lost") {
    Draws::current() = {1, 2, 0};
    const auto cut = CubeCut::of({1, 12, 13, 14, 1}, 3);
    CHECK(cut.cubes() == 27);
    CHECK(cut.extent[2] == 4);
    const auto exchange = CubeExchange<Cpu>::draw(cut, 4);
    const auto there = exchange.there.host(), back = exchange.back.host();
    std::set<std::vector<Index>> orders;
    for (std::size_t cube = 0; cube < 27; ++cube) {
      for (std::size_t n = 0; n < 4; ++n)
        CHECK(back[cube * 4 + std::size_t(there[cube * 4 + n])] == Index(n));
      orders.insert({there.begin() + Index(cube) * 4, there.begin() + Index(cube) * 4 + 4});
    }
    CHECK(orders.size() > 10);
    CHECK(CubeCut::of({1, 1, 12, 2, 1}, 3).cubes() == 3);
  }
  TEST_CASE("ranks exchange cubes in orders of their own, the first as one process does") {
    const auto cut = CubeCut::of({1, 12, 12, 12, 1}, 3);
    const auto order = [&](std::uint32_t rank) {
      Draws::current() = {1, 2, 0, rank};
      return CubeExchange<Cpu>::draw(cut, 4).there.host();
    };
    const Philox random{1, Purpose::noise, 0, 2};
    std::vector<Index> first{0, 1, 2, 3};
    for (Index n = 3; n > 0; --n)
      std::swap(first[std::size_t(n)], first[std::size_t(random.below(n, n + 1))]);
    CHECK(std::equal(first.begin(), first.end(), order(0).begin()));
    CHECK(order(1) != order(0));
    CHECK(order(2) != order(1));
    Draws::current() = {};
  }
  TEST_CASE("what is put back is what was exchanged, with its gradient") {
    using Map = Features<2, double, Cpu>;
    Draws::current() = {1, 2, 0};
    const Grid grid{3, 1, 7, 6, 2};
    const auto exchange = CubeExchange<Cpu>::draw(CubeCut::of(grid, 3), 3);
    std::vector<double> values;
    for (Index i = 0; i < grid.size(); ++i) values.push_back(Philox{4}.uniform(i));
    const auto batch = [&](Index begin, Index cases) {
      Grid part = grid;
      part.cases = cases;
      return Map(part, Storage<double, Cpu>(std::vector<double>(
                           values.begin() + begin * 84, values.begin() + (begin + cases) * 84)));
    };
    const Map mixed = exchanged(batch(0, 1), batch(1, 2), exchange);
    CHECK(mixed.dense().value.host() != values);
    CHECK(recovered(mixed, exchange, 0, 3).dense().value.host() == values);
    CHECK(recovered(mixed, exchange, 1, 2).dense().value.host() ==
          batch(1, 2).dense().value.host());
    CHECK(gradient_error<Map>(grid, values, [&](const Map& x) {
            return probe(recovered(x, exchange, 1, 2)) + probe(recovered(x, exchange, 0, 2));
          }) < 1e-7);
  }
  TEST_CASE("mixtures, put back, shall be labels and answers") {
    OneStep step;
    Net net = small_net();
    CubeShuffle<Net> policy{.teacher = {small_net(2)}, .weight = 0.8f, .noise = 0};
    auto now = step.now(net);
    const double term = policy.loss(now).host();

    step.now(net);  // the same draws
    const auto order =
        CubeExchange<Cpu>::draw(CubeCut::of(step.full.image.grid(), 3), 4).there.host();
    const auto full = host(step.full.image), partial = host(step.partial.image);
    Doubles image(4 * 4096), logits(4 * 4096 * 3);
    const auto source = [&](std::size_t n, std::size_t v) {
      const Index cube = cube_of(v);
      return cube < 0 ? n : std::size_t(order[std::size_t(cube) * 4 + n]);
    };
    for (std::size_t n = 0; n < 4; ++n)
      for (std::size_t v = 0; v < 4096; ++v) {
        const std::size_t from = source(n, v);
        image[n * 4096 + v] = from < 2 ? full[from * 4096 + v] : partial[(from - 2) * 4096 + v];
      }
    const auto mixed = host(net(map_of<F>({4, 16, 16, 16, 1}, image)));
    for (std::size_t n = 0; n < 4; ++n)
      for (std::size_t v = 0; v < 4096; ++v)
        for (std::size_t c = 0; c < 3; ++c)
          logits[(source(n, v) * 4096 + v) * 3 + c] = mixed[(n * 4096 + v) * 3 + c];
    const auto p = softmax_of(logits, 3);
    const auto answers =
        completed(step.partial.labels, host(policy.teacher.module(step.partial.image)));
    const auto half = p.begin() + Index(p.size()) / 2;
    const double expected = dice({p.begin(), half}, step.full.labels.classes.host(), 3, 2) +
                            0.4 * dice({half, p.end()}, answers, 3, 2);
    CHECK(term == doctest::Approx(expected).epsilon(1e-5));
  }
  TEST_CASE("the student learns, the teacher follows") {
    OneStep step;
    Net net = small_net();
    CubeShuffle<Net> policy{.teacher = {small_net(2)}};
    Group<float, Cpu> student(Role::trained, net, policy);
    CHECK(student.params().size() == Inventory(net).leaves.size());
    auto now = step.now(net);
    backward(policy.loss(now));
    CHECK(student.grads.host() != std::vector<float>(std::size_t(student.grads.size())));
    const auto before = weights_of(policy.teacher.module);
    policy.after_step(now);
    CHECK(weights_of(policy.teacher.module) != before);
  }
  TEST_CASE("the number of threads changes no bit of a training") {
    const int before = threads();
    std::set<std::vector<float>> results;
    for (const int count : {1, 2, 4}) {
      set_threads(count);
      Net net = small_net();
      Both policy{CopyPaste<Net>{.teacher = {net}}, CubeShuffle<Net>{.teacher = {net}}};
      trained_with(policy, net, 2);
      results.insert(weights_of(net));
    }
    set_threads(before);
    CHECK(results.size() == 1);
  }
  TEST_CASE("exchanges and teacher go on bit for bit") {
    check_resumes([](const Net& net) { return CubeShuffle<Net>{.teacher = {net}}; });
  }
  TEST_CASE("two dimensions and any network") {
    using Any = AnyNetwork<F2>;
    OneStep<F2> step;
    Any net{small_net_2d()};
    CubeShuffle<Any> policy{.teacher = {net}};
    Group<float, Cpu> all(Role::trained, net, policy);
    auto now = step.now(net);
    const auto term = policy.loss(now);
    CHECK(std::isfinite(term.host()));
    backward(term);
    step.partial = {};
    auto alone = step.now(net);
    CHECK_FALSE(policy.loss(alone));
  }
}
