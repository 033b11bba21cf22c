// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/autograd/group.hpp>
#include <segmed/autograd/scalar.hpp>
#include <segmed/backend/cpu.hpp>
#include <segmed/nn/unet.hpp>

using namespace segmed;

namespace {

using F = Features<2, float, Cpu>;
using Net = UNet<UNetParts<F>>;

Net make() { return Net({.classes = 3, .widths = {4, 6, 8}, .decoder_convs = 1}); }
F noise() {
  std::vector<float> values;
  for (Index i = 0; i < 2 * 9 * 10; ++i) values.push_back(Philox{6, Purpose::noise}.normal(i));
  return F(Grid{2, 1, 9, 10, 1}, Storage<float, Cpu>(values));
}
std::vector<float> host(const F& x) { return value(x).dense().value.host(); }
std::vector<std::string> paths(const AnyDecoder<F>& branch) {
  std::vector<std::string> all;
  for (const auto& at : Inventory(branch).leaves) all.push_back(at.path);
  return all;
}
/// These tests only go forward: nothing shall wait on the tape for a backward that never comes.
struct Forward {
  Scope scope{[](Mode& m) { m.record = false; }};
};

}  // namespace

TEST_SUITE("nn/any_decoder") {
  TEST_CASE_FIXTURE(Forward, "a branch leads from the levels to logits of the image's grid") {
    const Net net = make();
    const auto levels = net.encode(noise());
    std::vector<std::vector<float>> seen;
    for (const Raise raise : {Raise::own, Raise::linear, Raise::nearest}) {
      const auto branch = net.branch({.seed = 2, .raise = raise});
      CHECK(branch(levels).grid() == Grid{2, 1, 9, 10, 3});
      seen.push_back(host(branch(levels)));
    }
    CHECK(seen[1] != seen[2]);
    CHECK(seen[0] != seen[1]);
    CHECK(host(net.branch({.seed = 3})(levels)) != seen[0]);
    CHECK(host(net.branch({.seed = 2})(levels)) == seen[0]);
    CHECK(paths(net.branch({}))[0] == "decode.ups.0.conv.weight");
    CHECK(paths(net.branch({})).back() == "head.bias");
  }
  TEST_CASE_FIXTURE(Forward, "decoding the encoder's levels is what the network does") {
    const Net net = make();
    const F x = noise();
    CHECK(host(net.classify(net.decode(net.encode(x)))) == host(net(x)));
  }
  TEST_CASE_FIXTURE(Forward, "copies are deep, and assigning keeps the Group") {
    const Net net = make();
    const auto levels = net.encode(noise());
    AnyDecoder<F> first = net.branch({.seed = 2}), second = first;
    const auto before = host(first(levels));
    initialize(second, 9);
    CHECK(host(second(levels)) != before);
    CHECK(host(first(levels)) == before);
    const Group<float, Cpu> group(Role::trained, second);
    const auto values = group.values.host();
    second = first;
    CHECK(group.values.host() != values);
    CHECK(host(second(levels)) == before);
    second = net.branch({.seed = 2, .raise = Raise::linear});
    CHECK(host(second(levels)) != before);
  }
  TEST_CASE("a branch and the network's own decoder share one run of the encoder") {
    Net net = make();
    AnyDecoder<F> branch = net.branch({.seed = 2, .raise = Raise::nearest});
    const Group<float, Cpu> group(Role::trained, net, branch);
    const F x = noise();
    const auto grads = [&](bool own, bool further) {
      const_cast<Group<float, Cpu>&>(group).clear_grads();
      const auto levels = net.encode(x);
      Scalar<F> loss;
      if (own) loss = loss + mean_square(net.classify(net.decode(levels)), 1.0);
      if (further) loss = loss + mean_square(branch(levels), 1.0);
      backward(loss);
      return group.grads.host();
    };
    const auto both = grads(true, true), own = grads(true, false), further = grads(false, true);
    for (std::size_t i = 0; i < both.size(); ++i)
      REQUIRE(both[i] == doctest::Approx(own[i] + further[i]).epsilon(1e-4));
  }
}
