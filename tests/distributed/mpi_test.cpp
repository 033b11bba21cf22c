// SPDX-License-Identifier: Apache-2.0
#include <numeric>

#include <doctest/doctest.h>

#include "world.hpp"
#include <segmed/autograd/gradient_sum.hpp>
#include <segmed/autograd/perturb.hpp>
#include <segmed/autograd/pointwise.hpp>
#include <segmed/tensor/clock.hpp>

using namespace segmed;

namespace {

struct TwoParams {
  Param<float, Cpu> first{100}, second{40};
  static void members(auto& self, auto&& visit) {
    visit("first", self.first);
    visit("second", self.second);
  }
};

}  // namespace

TEST_SUITE("distributed/mpi") {
  TEST_CASE("without others everything is one's own") {
    const Ranks alone;
    CHECK(alone.first());
    CHECK(alone.gathered(std::vector<int>{3, 4}) == std::vector<int>{3, 4});
    CHECK_FALSE(alone.any(false));
    CHECK(alone.texts("mine") == std::vector<std::string>{"mine"});
    float x = 2;
    alone.start_sum(&x, 1);
    alone.finish_sums();
    CHECK(x == 2);
    Solo solo;
    CHECK(Ranks(solo).alone());
    CHECK(Ranks(solo).gathered(std::vector<int>{5}) == std::vector<int>{5});
  }
  TEST_CASE("what ranks gather lies in their order") {
    const Ranks ranks(world());
    const auto all = ranks.gathered(std::vector<int>{10 * ranks.rank(), 10 * ranks.rank() + 1});
    REQUIRE(Index(all.size()) == 2 * ranks.size());
    for (int r = 0; r < ranks.size(); ++r) CHECK(all[std::size_t(2 * r + 1)] == 10 * r + 1);
    CHECK(ranks.any(ranks.rank() == ranks.size() - 1));
    CHECK_FALSE(ranks.any(false));
    const auto texts = ranks.texts(std::string(std::size_t(ranks.rank()), 'x'));
    for (int r = 0; r < ranks.size(); ++r) CHECK(texts[std::size_t(r)].size() == std::size_t(r));
  }
  TEST_CASE("sums are in place, in float and double, several at a time") {
    const Ranks ranks(world());
    std::vector<float> some(100000);
    std::vector<double> more(3, double(ranks.rank()));
    for (std::size_t i = 0; i < some.size(); ++i) some[i] = float(i % 7) + float(ranks.rank());
    ranks.start_sum(some.data(), Index(some.size()));
    ranks.start_sum(more.data(), Index(more.size()));
    ranks.progress();
    ranks.finish_sums();
    const int n = ranks.size(), of_ranks = n * (n - 1) / 2;
    for (std::size_t i = 0; i < some.size(); i += 999)
      CHECK(some[i] == float(int(i % 7) * n + of_ranks));
    CHECK(more == std::vector<double>(3, of_ranks));
  }
  TEST_CASE("gradients are summed by buckets, also those that never became ready") {
    const Ranks ranks(world());
    TwoParams two;
    Group<float, Cpu> group(Role::trained, two);
    GradientSum<float, Cpu> sum(group, ranks, 16);
    CHECK(sum.buckets() == (ranks.alone() ? 0 : 2));
    for (int step = 0; step < 2; ++step) {
      const auto own = float(ranks.rank() + step);
      two.first.grad().assign(std::vector<float>(100, own));
      two.second.grad().assign(std::vector<float>(40, 2 * own));
      // On some ranks the earlier one is ready first, on others none is.
      const OnReady ready = sum.begin();
      if (ready && ranks.rank() == 0) ready(*two.first.state());
      if (ready && ranks.rank() != 1) ready(*two.second.state());
      sum.finish();
      float expected = 0;
      for (int r = 0; r < ranks.size(); ++r) expected += float(r + step);
      CHECK(two.first.grad().host() == std::vector<float>(100, expected));
      CHECK(two.second.grad().host() == std::vector<float>(40, 2 * expected));
    }
  }
  TEST_CASE("together the ranks draw what one process draws for the whole batch") {
    using F = Features<3, float, Cpu>;
    const Ranks ranks(world());
    const Index n = ranks.size();
    const auto drawn = [](Index cases) {
      const F zeros(Grid{cases, 2, 2, 2, 3}, Storage<float, Cpu>(cases * 24, 1.0f));
      auto values = add_noise(zeros, 1.0f).dense().value.host();
      for (const F& x : {dropout(zeros, 0.5f), channel_dropout(zeros, 0.5f)}) {
        const auto dropped = x.dense().value.host();
        values.insert(values.end(), dropped.begin(), dropped.end());
      }
      return values;
    };
    Clock<Cpu> clock;
    clock.set({.seed = 5, .step = 3});
    const auto whole = drawn(2 * n);
    std::vector<float> mine;
    {
      const RanksScope together(ranks);
      clock.set({.seed = 5, .step = 3});
      mine = drawn(2);
    }
    for (std::size_t op = 0; op < 3; ++op)
      for (std::size_t i = 0; i < 48; ++i)
        CHECK(mine[48 * op + i] ==
              whole[48 * op * std::size_t(n) + 48 * std::size_t(ranks.rank()) + i]);
    Draws::current() = {};
  }
}
