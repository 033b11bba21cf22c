// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/semi/adversarial.hpp>

using namespace trial;

namespace {

/// A cube of channels in double, x fastest but for the channels.
struct Cube {
  Index extent, channels;
  std::vector<double> at;
  double read(Index z, Index y, Index x, Index c) const {
    const bool inside = std::min({z, y, x}) >= 0 && std::max({z, y, x}) < extent;
    return inside ? at[std::size_t(((z * extent + y) * extent + x) * channels + c)] : 0;
  }
};
/// Kernel 4, stride 2, one voxel of zeros around, then a leak of 0.2.
Cube halved(const Cube& in, const Conv<F>& conv) {
  const auto weight = conv.weight.value().host(), bias = conv.bias.value().host();
  const Index out = Index(bias.size());
  Cube result{in.extent / 2, out, {}};
  for (Index v = 0; v < result.extent * result.extent * result.extent; ++v)
    for (Index c = 0; c < out; ++c) {
      const Index z = v / result.extent / result.extent * 2 - 1,
                  y = v / result.extent % result.extent * 2 - 1, x = v % result.extent * 2 - 1;
      double total = double(bias[std::size_t(c)]);
      for (Index tap = 0; tap < 64; ++tap)
        for (Index i = 0; i < in.channels; ++i)
          total += double(weight[std::size_t((tap * in.channels + i) * out + c)]) *
                   in.read(z + tap / 16, y + tap / 4 % 4, x + tap % 4, i);
      result.at.push_back(total > 0 ? total : 0.2 * total);
    }
  return result;
}
/// The logit of one case of 16^3 voxels.
double logit_of(const Critic<F>& critic, const Doubles& p, const Doubles& image, Index n) {
  Cube x{16, 4, {}};
  for (std::size_t v = std::size_t(n) * 4096; v < std::size_t(n + 1) * 4096; ++v) {
    for (std::size_t c = 0; c < 3; ++c) x.at.push_back(p[v * 3 + c]);
    x.at.push_back(image[v]);
  }
  for (const auto& stage : critic.stages) x = halved(x, stage);
  const auto weight = critic.judge.weight.value().host();
  double z = double(critic.judge.bias.value().host()[0]);
  for (std::size_t c = 0; c < weight.size(); ++c) z += double(weight[c]) * x.at[c];
  return z;
}
Adversarial<Net> narrow() {
  auto policy = Adversarial<Net>::of(3, 1, 2);
  policy.critic.dropout = 0, policy.weight = 0.8f, policy.pace = 0.1f;
  return policy;
}

}  // namespace

TEST_SUITE("semi/adversarial") {
  TEST_CASE("targets go by the case, for batches of any size") {
    for (const Index known : {1, 3})
      for (const Index other : {1, 3}) {
        CAPTURE(known);
        CAPTURE(other);
        OneStep step;
        step.full = made_up<F>(std::vector<AnnotatedSet>(std::size_t(known), everything()), 1);
        step.partial = made_up<F>(std::vector<AnnotatedSet>(std::size_t(other), AnnotatedSet{}), 2);
        Net net = small_net();
        auto policy = narrow();
        double judge = 0, fool = 0;
        for (const auto* samples : {&step.full, &step.partial}) {
          const auto p = softmax_of(host(net(samples->image)), 3);
          const auto image = host(samples->image);
          for (Index n = 0; n < samples->image.grid().cases; ++n) {
            const double z = logit_of(policy.critic, p, image, n);
            const bool yes = samples == &step.full;
            judge += std::log1p(std::exp(yes ? -z : z)) / double(known + other);
            if (!yes) fool += std::log1p(std::exp(-z)) / double(other);
          }
        }
        auto now = step.now(net);
        CHECK(policy.loss(now).host() == doctest::Approx(0.1 * judge + 0.4 * fool).epsilon(1e-5));
      }
  }
  TEST_CASE("the student learns to fool and the critic to judge, neither the other's") {
    OneStep step;
    Net net = small_net();
    auto policy = narrow();
    Group<float, Cpu> student(Role::trained, net), critic(Role::trained, policy);
    const auto gradients = [&](float weight) {
      student.clear_grads(), critic.clear_grads();
      policy.weight = weight;
      auto now = step.now(net);
      backward(policy.loss(now));
      return std::pair{student.grads.host(), critic.grads.host()};
    };
    const auto some = gradients(0.5f), more = gradients(1), none = gradients(0);
    CHECK(none.first == std::vector<float>(none.first.size()));
    double length = 0;
    for (std::size_t i = 0; i < some.first.size(); ++i) {
      CHECK(more.first[i] == doctest::Approx(2 * some.first[i]).epsilon(1e-4));
      length += double(some.first[i] * some.first[i]);
    }
    CHECK(length > 0);
    CHECK(more.second == none.second);
    CHECK(none.second != std::vector<float>(none.second.size()));
  }
  TEST_CASE("the verdict is bounded where exponentials are not, and its slope is its own") {
    for (const double target : {0.0, 1.0}) {
      const JudgementCost verdict{target};
      CHECK(verdict(800.0, 0.0) == doctest::Approx(800 * (1 - target)));
      CHECK(verdict(-800.0, 0.0) == doctest::Approx(800 * target));
      for (const double z : {-3.0, -0.2, 0.4, 5.0})
        CHECK(verdict.first_slope(z, 0.0) ==
              doctest::Approx((verdict(z + 1e-6, 0.0) - verdict(z - 1e-6, 0.0)) / 2e-6));
    }
  }
  TEST_CASE("the critic takes its pace of the optimizer's step, and the student a whole one") {
    const auto farthest = [](const std::vector<float>& a, const std::vector<float>& b) {
      float most = 0;
      for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
      return most;
    };
    Net net = small_net();
    auto policy = Adversarial<Net>::of(3, 1, 2);
    const auto student = weights_of(net), critic = weights_of(policy.critic);
    auto options = few_steps(1);
    options.schedule = ConstantRate{};
    // The first step of Adam moves whatever has a gradient by the rate.
    run(options, small_cohort(), net, Loss{}, policy, AdamW{.rate = 1e-2f, .decay = 0});
    CHECK(farthest(weights_of(net), student) == doctest::Approx(1e-2).epsilon(1e-2));
    CHECK(farthest(weights_of(policy.critic), critic) == doctest::Approx(1e-4).epsilon(1e-2));
    CHECK(weights_of(policy.critic) == weights_of(policy.before.module));
  }
  TEST_CASE("at the program's rate the student learns as it does without a critic") {
    const auto trained = [](auto policy) {
      Net net = small_net();
      auto options = few_steps(60);
      const auto report = run(options, small_cohort(), net, Loss{}, policy, AdamW{.rate = 1e-2f});
      return report.curve.back().labelled;
    };
    const double alone = trained(Supervised{});
    const double judged = trained(Adversarial<Net>::of(3));
    CHECK(judged < 1.05 * alone);  // a critic at that rate makes it 1.35 times as much
  }
  TEST_CASE("the number of threads changes no bit of a training") {
    const int before = threads();
    std::set<std::vector<float>> results;
    for (const int count : {1, 2, 4}) {
      set_threads(count);
      Net net = small_net();
      auto policy = Adversarial<Net>::of(3, 1, 2);
      trained_with(policy, net, 2);
      results.insert(weights_of(net));
    }
    set_threads(before);
    CHECK(results.size() == 1);
  }
  TEST_CASE("the critic is saved and goes on bit for bit") {
    check_resumes([](const Net&) { return Adversarial<Net>::of(3, 1, 2); });
  }
  TEST_CASE("two dimensions, small extents, any network, and no D_1") {
    using Any = AnyNetwork<F2>;
    OneStep<F2> step;
    step.full = made_up<F2>({everything()}, 1, {8, 8, 8}),
    step.partial = made_up<F2>({{}}, 2, {8, 8, 8});
    Any net{small_net_2d()};
    auto policy = Adversarial<Any>::of(3);
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
