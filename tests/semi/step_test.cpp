// SPDX-License-Identifier: Apache-2.0
// Whatever a policy asks of a step is computed once.
#include "one_step.hpp"
#include <segmed/losses/deep_supervision.hpp>

using namespace trial;

namespace {

int encoded = 0, decoded = 0;

/// A U-Net that counts how often its parts run.
struct Counting {
  using Features = F;
  Net net;
  std::vector<F> encode(const F& x) const { return ++encoded, net.encode(x); }
  F decode(const std::vector<F>& levels) const { return ++decoded, net.decode(levels); }
  F features(const F& x) const { return decode(encode(x)); }
  F classify(const F& x) const { return net.classify(x); }
  F operator()(const F& x) const { return classify(features(x)); }
  std::vector<F> outputs(const std::vector<F>& levels) const {
    return ++decoded, net.outputs(levels);
  }
  std::vector<F> outputs(const F& x) const { return outputs(encode(x)); }
  AnyDecoder<F> branch(const BranchOptions& o) const { return net.branch(o); }
  static void members(auto& self, auto&& visit) { visit("net", self.net); }
};
static_assert(CodedNetwork<Counting> && DeepNetwork<Counting>);

/// The same network without a view into it.
struct Closed {
  using Features = F;
  Net net;
  F operator()(const F& x) const { return net(x); }
  static void members(auto& self, auto&& visit) { visit("net", self.net); }
};

}  // namespace

TEST_SUITE("semi/step") {
  TEST_CASE("encoder and decoder run once, whoever asks and in whatever order") {
    const Scope forward([](Mode& m) { m.record = false; });
    OneStep step;
    step.partial = made_up<F>({everything(), everything()}, 2);
    Counting net{deep_net()};
    const auto whole = host(net(step.partial.image));
    {
      auto now = step.now(net);
      encoded = decoded = 0;
      CHECK(host(now.logits_partial()) == whole);
      CHECK(host(net.net.classify(now.features_partial())) == whole);
      CHECK(host(net.net.classify(net.net.decode(now.levels_partial()))) == whole);
      now.labelled_partial();
      CHECK(encoded == 1);
      CHECK(decoded == 1);
      const F& logits = now.logits_partial();
      REQUIRE(now.outputs_partial().size() == 2);
      CHECK(host(now.outputs_partial()[0]) == whole);
      CHECK(host(logits) == whole);  // what was asked for before is still there
      CHECK(encoded == 1);
      CHECK(decoded == 2);
    }
    const DeepSupervision<Dice> deep{};
    auto now = step.now(net, deep);
    encoded = decoded = 0;
    now.levels_full();
    now.labelled_full();
    now.outputs_full();
    now.logits_full();
    CHECK(encoded == 1);
    CHECK(decoded == 1);
  }
  TEST_CASE("what is kept can be trained, even if nobody recorded when it was asked for first") {
    const auto gradient = [](auto first) {
      Net net({.classes = 3, .widths = {4, 8}, .dropout = 0.5f});
      Group<float, Cpu> group(Role::trained, net);
      group.clear_grads();
      OneStep step;
      auto now = step.now(net);
      first(now);
      CHECK(now.logits_partial().tracked());
      CHECK(now.levels_full()[0].tracked());
      CHECK(Mode::current().record);
      backward(mean(now.logits_partial()) + mean(now.features_full()));
      return group.grads.host();
    };
    const auto usual = gradient([](auto&) {});
    CHECK(size_of(usual) > 0);
    CHECK(gradient([](auto& now) { no_grad([&] { return now.logits_partial(); }); }) == usual);
    CHECK(gradient([](auto& now) { evaluating([&] { return now.logits_partial(); }); }) == usual);
    CHECK(gradient([](auto& now) { evaluating([&] { return now.features_partial(); }); }) == usual);
    CHECK(gradient([](auto& now) { evaluating([&] { return now.levels_partial(); }); }) == usual);
    const auto constants = gradient([](auto& now) {
      const Scope scope([](Mode& m) { m.weights = false; });
      now.logits_partial();
    });
    CHECK(constants == usual);
    // A step that began without recording keeps nothing that is recorded.
    const Scope forward([](Mode& m) { m.record = false; });
    Net net = small_net();
    OneStep step;
    auto now = step.now(net);
    CHECK_FALSE(now.logits_partial().tracked());
  }
  TEST_CASE("a network that shows its parts trains with the same bits as one that does not") {
    Net open = small_net();
    Closed closed{small_net()};
    Supervised policy;
    auto options = few_steps(3);
    const auto train = [&](auto& net) {
      run(options, small_cohort(), net, Loss{}, policy, AdamW{.rate = 3e-3f});
    };
    train(open), train(closed);
    CHECK(weights_of(open) == weights_of(closed));
  }
  TEST_CASE("without D_1 its levels cannot be asked for") {
    Net net = small_net();
    OneStep step;
    step.partial = {};
    auto now = step.now(net);
    CHECK_THROWS_WITH_AS(now.levels_partial(), "segmed: SemiStep: this step has no samples of D_1",
                         DataError);
  }
}
