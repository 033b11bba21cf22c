// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/autograd/group.hpp>
#include <segmed/backend/cpu.hpp>
#include <segmed/nn/any_network.hpp>
#include <segmed/nn/unet.hpp>

using namespace segmed;

namespace {

using F = Features<2, float, Cpu>;
using Plain = UNet<UNetParts<F>>;
struct BatchParts : UNetParts<F> {
  using Encoder = ConvBlock<F, BatchNorm<F>>;
};
using Batch = UNet<BatchParts>;
struct Head {  // shows no decoder features
  using Features = F;
  Conv<F> conv{1, 2, {.kernel = 1}};
  F operator()(const F& x) const { return conv(x); }
  static void members(auto& self, auto&& visit) { visit("conv", self.conv); }
};

template <class Net>
Net make(std::uint64_t seed, bool deep = false) {
  typename Net::Options options;
  options.widths = {4, 6, 8};
  options.seed = seed;
  options.deep_supervision = deep;
  return Net(options);
}
F noise() {
  std::vector<float> values;
  for (Index i = 0; i < 2 * 9 * 10; ++i) values.push_back(Philox{6, Purpose::noise}.normal(i));
  return F(Grid{2, 1, 9, 10, 1}, Storage<float, Cpu>(values));
}
std::vector<float> host(const F& x) { return value(x).dense().value.host(); }

struct Kept {
  std::string path;
  bool param;
  Role role;
  std::vector<float> values;
  friend bool operator==(const Kept&, const Kept&) = default;
};
template <class M>
std::vector<Kept> leaves(M& net, const std::string& path = "") {
  std::vector<Kept> all;
  for (const auto& [name, role, leaf] : Inventory(net, path).leaves)
    all.push_back({name, leaf->trainable(), role, leaf->stored().template as<float>()});
  return all;
}

/// These tests only go forward: nothing shall wait on the tape for a backward that never comes.
struct Forward {
  Scope scope{[](Mode& m) { m.record = false; }};
};

}  // namespace

TEST_SUITE("nn/any_network") {
  TEST_CASE_FIXTURE(Forward, "an erased network computes what the bare one computes") {
    const Plain net = make<Plain>(1, true);
    const AnyNetwork<F> any(net);
    const F x = noise();
    CHECK(host(any(x)) == host(net(x)));
    CHECK(host(any.features(x)) == host(net.features(x)));
    CHECK(host(any.classify(any.features(x))) == host(net(x)));
    const auto outputs = any.outputs(x);
    REQUIRE(outputs.size() == 2);
    CHECK(host(outputs[1]) == host(net.outputs(x)[1]));
    CHECK(any.splits());
  }

  TEST_CASE_FIXTURE(Forward, "an erased network shows its encoder and makes the same branches") {
    const Plain net = make<Plain>(1, true);
    const AnyNetwork<F> any(net);
    const F x = noise();
    const auto levels = net.encode(x), seen = any.encode(x);
    REQUIRE(seen.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) CHECK(host(seen[i]) == host(levels[i]));
    CHECK(host(any.decode(seen)) == host(net.features(x)));
    CHECK(host(any.outputs(seen)[1]) == host(net.outputs(x)[1]));
    CHECK(any.codes());
    for (const Raise raise : {Raise::own, Raise::linear, Raise::nearest}) {
      const auto one = net.branch({3, raise}), two = any.branch({3, raise});
      CHECK(host(one(levels)) == host(two(levels)));
    }
  }

  TEST_CASE_FIXTURE(Forward, "it shows the leaves of the bare network, under the same paths") {
    Batch net = make<Batch>(1);
    AnyNetwork<F> any(net);
    const AnyNetwork<F>& constant = any;
    CHECK(leaves(any) == leaves(net));
    CHECK(leaves(constant) == leaves(net));
    CHECK(leaves(any, "network") == leaves(net, "network"));
    Frozen<Batch> frozen{net};
    Frozen<AnyNetwork<F>> frozen_any{any};
    CHECK(leaves(frozen_any) == leaves(frozen));
    CHECK(leaves(frozen_any)[0].role == Role::frozen);
    CHECK(leaves(frozen_any)[0].path == "module.encode.stages.0.units.0.conv.weight");
    CHECK(parameter_count(any) == parameter_count(net));
    initialize(any, 5);
    initialize(net, 5);
    CHECK(leaves(any) == leaves(net));
  }

  TEST_CASE_FIXTURE(Forward, "copies are deep") {
    const AnyNetwork<F> first(make<Plain>(1));
    AnyNetwork<F> second = first;
    const F x = noise();
    const auto before = host(first(x));
    CHECK(host(second(x)) == before);
    initialize(second, 9);
    CHECK(host(second(x)) != before);
    CHECK(host(first(x)) == before);
  }

  TEST_CASE_FIXTURE(Forward,
                    "assigning the same kind of network changes values and keeps the Group") {
    AnyNetwork<F> any(make<Plain>(1));
    const AnyNetwork<F> other(make<Plain>(2));
    const F x = noise();
    const Group<float, Cpu> group(Role::trained, any);
    const auto before = group.values.host();
    any = other;
    CHECK(group.values.host() != before);
    CHECK(host(any(x)) == host(other(x)));
    const AnyNetwork<F>& itself = any;
    any = itself;
    CHECK(host(any(x)) == host(other(x)));
  }

  TEST_CASE_FIXTURE(Forward, "assigning another kind of network replaces it") {
    AnyNetwork<F> any(make<Plain>(1));
    any = AnyNetwork<F>(Head{});
    CHECK(parameter_count(any) == 4);
    const AnyNetwork<F> batch(make<Batch>(3));
    any = batch;
    const F x = noise();
    CHECK(evaluating([&] { return host(any(x)); }) == evaluating([&] { return host(batch(x)); }));
  }

  TEST_CASE_FIXTURE(Forward, "a teacher follows an erased student in one loop") {
    AnyNetwork<F> student(make<Plain>(1));
    Frozen<AnyNetwork<F>> teacher{AnyNetwork<F>(make<Plain>(2))};
    const Group<float, Cpu> trained(Role::trained, student), frozen(Role::frozen, teacher);
    const auto fast = trained.values.host(), slow = frozen.values.host();
    CHECK(ema(teacher, student, 0.75) == 1);
    const auto now = frozen.values.host();
    for (std::size_t i = 0; i < now.size(); ++i)
      REQUIRE(now[i] == doctest::Approx(0.75f * slow[i] + 0.25f * fast[i]).epsilon(1e-6));
  }

  TEST_CASE_FIXTURE(Forward, "a network without decoder features says so") {
    const AnyNetwork<F> any(Head{});
    CHECK(!any.splits());
    CHECK(any.outputs(noise()).size() == 1);
    CHECK_THROWS_WITH_AS(any.features(noise()),
                         "segmed: AnyNetwork: this network shows no decoder features", Error);
    CHECK_THROWS_WITH_AS(any.classify(noise()),
                         "segmed: AnyNetwork: this network shows no decoder features", Error);
    CHECK(!any.codes());
    const char* text =
        "segmed: AnyNetwork: this network shows no encoder, so that no policy can put a decoder of "
        "its own on it; take one with `encode`, `decode` and `branch`, as UNet";
    CHECK_THROWS_WITH_AS(any.encode(noise()), text, ConfigError);
    CHECK_THROWS_WITH_AS(any.decode({noise()}), text, ConfigError);
    CHECK_THROWS_WITH_AS(any.branch({}), text, ConfigError);
  }
}
