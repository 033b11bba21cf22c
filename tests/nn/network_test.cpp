// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/backend/cpu.hpp>
#include <segmed/nn/any_network.hpp>
#include <segmed/nn/unet.hpp>

using namespace segmed;

namespace {

using F = Features<2, float, Cpu>;

/// The least that is a network.
struct Head {
  using Features = F;
  Conv<F> conv{1, 2, {.kernel = 1}};
  F operator()(const F& x) const { return conv(x); }
  static void members(auto& self, auto&& visit) { visit("conv", self.conv); }
};
struct NoMembers {
  using Features = F;
  F operator()(const F& x) const { return x; }
};
struct WrongResult {
  using Features = F;
  int operator()(const F&) const { return 0; }
  static void members(auto&, auto&&) {}
};

static_assert(Network<Head> && !SplitNetwork<Head> && !DeepNetwork<Head> && !CodedNetwork<Head>);
static_assert(!Network<NoMembers> && !Network<WrongResult>);
using Net = UNet<UNetParts<F>>;
static_assert(Network<Net> && SplitNetwork<Net> && DeepNetwork<Net>);
static_assert(Network<AnyNetwork<F>> && SplitNetwork<AnyNetwork<F>> && DeepNetwork<AnyNetwork<F>>);
static_assert(CodedNetwork<Net> && CodedNetwork<AnyNetwork<F>>);
static_assert(Module<Frozen<Net>>);

/// These tests only go forward: nothing shall wait on the tape for a backward that never comes.
struct Forward {
  Scope scope{[](Mode& m) { m.record = false; }};
};

}  // namespace

TEST_SUITE("nn/network") {
  TEST_CASE_FIXTURE(Forward, "a network is whatever maps features and lists its members") {
    const Head head;
    CHECK(head(F(Grid{1, 1, 2, 2, 1}, Storage<float, Cpu>(4))).grid() == Grid{1, 1, 2, 2, 2});
    CHECK(parameter_count(head) == 4);
  }
}
