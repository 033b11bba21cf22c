// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/autograd/gradient_check.hpp>
#include <segmed/semi/dual_task.hpp>

using namespace trial;

namespace {

/// The signed distance by its definition: every voxel against every other.
std::vector<double> by_hand(const std::vector<std::uint8_t>& mask, const Extent3& e) {
  const Index size = Index(mask.size());
  const auto square = [&](Index i, Index j) {
    const Index x = i % e[0] - j % e[0], y = i / e[0] % e[1] - j / e[0] % e[1],
                z = i / e[0] / e[1] - j / e[0] / e[1];
    return double(x * x + y * y + z * z);
  };
  std::vector<double> distance(mask.size(), 1e9);
  double far[2] = {0, 0};
  for (Index i = 0; i < size; ++i) {
    for (Index j = 0; j < size; ++j)
      if (mask[std::size_t(i)] != mask[std::size_t(j)])
        distance[std::size_t(i)] = std::min(distance[std::size_t(i)], std::sqrt(square(i, j)));
    far[mask[std::size_t(i)]] = std::max(far[mask[std::size_t(i)]], distance[std::size_t(i)]);
  }
  for (std::size_t i = 0; i < mask.size(); ++i) {
    const bool border = mask[i] == 1 && distance[i] == 1;
    distance[i] = border ? 0 : (mask[i] ? -1 : 1) * distance[i] / far[mask[i]];
  }
  return distance;
}
/// What the head makes of features.
std::vector<double> levels(const DualTask<Net>& policy, const Doubles& features) {
  const auto weight = policy.head.weight.value().host(), bias = policy.head.bias.value().host();
  std::vector<double> s;
  for (std::size_t v = 0; v < features.size() / 4; ++v)
    for (std::size_t c = 0; c < 2; ++c) {
      double z = double(bias[c]);
      for (std::size_t i = 0; i < 4; ++i) z += double(weight[i * 2 + c]) * features[v * 4 + i];
      s.push_back(std::tanh(z));
    }
  return s;
}

/// A network that shows no features.
struct Plain {
  using Features = F2;
  Conv<F2> head{1, 3};
  F2 operator()(const F2& x) const { return head(x); }
  static void members(auto& self, auto&& visit) { visit("head", self.head); }
};

}  // namespace

TEST_SUITE("semi/dual_task") {
  TEST_CASE("signed distances are 0 on the inner border, -1 and 1 where they are farthest") {
    for (const Extent3& e : {Extent3{9, 8, 5}, Extent3{12, 7, 1}}) {
      const Index size = e[0] * e[1] * e[2];
      for (const std::uint64_t seed : {1u, 2u, 3u, 4u}) {
        // In the middle or at a corner, with voxels strewn around it or without.
        const double center = seed % 2 == 0 ? 3.5 : 1.5;
        const float strewn = seed < 3 ? 0.02f : 0.0f;
        std::vector<std::uint8_t> mask;
        for (Index i = 0; i < size; ++i) {
          const double x = double(i % e[0]) - center, y = double(i / e[0] % e[1]) - center;
          mask.push_back(x * x + y * y < 9 || Philox{seed}.uniform(i) < strewn);
        }
        const auto found = signed_distances(mask, e);
        const auto expected = by_hand(mask, e);
        for (std::size_t i = 0; i < mask.size(); ++i)
          CHECK(found[i] == doctest::Approx(expected[i]).epsilon(1e-6));
      }
      CHECK(signed_distances(std::vector<std::uint8_t>(std::size_t(size), 0), e) ==
            std::vector<float>(std::size_t(size), 1));
      CHECK(signed_distances(std::vector<std::uint8_t>(std::size_t(size), 1), e) ==
            std::vector<float>(std::size_t(size), -1));
    }
  }
  TEST_CASE("distances on D_0 and their agreement with probabilities on all") {
    OneStep step;
    auto drawn = step.full.labels.classes.host();
    for (std::size_t v = 0; v < 300; ++v) drawn[v] = ignored;
    step.full.labels = labels_of<Cpu>(step.full.labels.grid, drawn, 3);
    Net net = small_net();
    auto policy = DualTask<Net>::of(net, 3);
    policy.steepness = 20;
    double regression = 0, agreement = 0;
    for (const auto* samples : {&step.full, &step.partial}) {
      const auto s = levels(policy, host(net.features(samples->image)));
      const auto p = softmax_of(host(net(samples->image)), 3);
      for (std::size_t i = 0; i < s.size(); ++i) {
        const double mask = 1 / (1 + std::exp(20 * s[i])), d = mask - p[i / 2 * 3 + i % 2 + 1];
        agreement += d * d / double(2 * s.size());
      }
      if (samples == &step.partial) continue;
      for (std::size_t n = 0; n < 2; ++n)
        for (std::size_t c = 0; c < 2; ++c) {
          std::vector<std::uint8_t> mask;
          for (std::size_t v = 0; v < 4096; ++v) mask.push_back(drawn[n * 4096 + v] == c + 1);
          const auto wanted = signed_distances(mask, {16, 16, 16});
          for (std::size_t v = 0; v < 4096; ++v) {
            const double d = s[(n * 4096 + v) * 2 + c] - double(wanted[v]);
            if (drawn[n * 4096 + v] != ignored) regression += d * d / double(s.size());
          }
        }
    }
    auto now = step.now(net);
    CHECK(policy.loss(now).host() ==
          doctest::Approx(0.3 * regression + 0.5 * agreement).epsilon(1e-5));
    step.partial = {};
    auto alone = step.now(net);
    CHECK(std::isfinite(policy.loss(alone).host()));
  }
  TEST_CASE("head and student learn") {
    OneStep step;
    Net net = small_net();
    auto policy = DualTask<Net>::of(net, 3);
    CHECK(policy.head.weight.size() == 4 * 2);
    Group<float, Cpu> student(Role::trained, net), head(Role::trained, policy);
    auto now = step.now(net);
    backward(policy.loss(now));
    CHECK(student.grads.host() != std::vector<float>(std::size_t(student.grads.size())));
    CHECK(head.grads.host() != std::vector<float>(std::size_t(head.grads.size())));
  }
  TEST_CASE("the slope of both heads is that of differences") {
    OneStep step;
    Net net = small_net();
    auto policy = DualTask<Net>::of(net, 3);
    policy.steepness = 5;
    Group<float, Cpu> all(Role::trained, net, policy);
    const auto loss = [&] {
      auto now = step.now(net);
      return policy.loss(now);
    };
    CHECK(parameter_gradient_error(policy.head.weight, loss, 1e-2) < 2e-2);
    CHECK(parameter_gradient_error(net.head.weight, loss, 1e-2) < 2e-2);
  }
  TEST_CASE("the disagreement's slopes are those of differences, with the same bits") {
    // 2 * 45 voxels: not a multiple of those that are looked at together.
    using Exact = Features<3, double, Cpu>;
    const auto numbers = [](Index size, std::uint32_t stream) {
      std::vector<double> x;
      for (Index i = 0; i < size; ++i)
        x.push_back(double(Philox{7, Purpose::sample, stream}.normal(i)));
      return x;
    };
    for (const Index organs : {2, 17}) {  // few classes, and more than are kept
      const Grid on{2, 3, 3, 5, organs};
      const Grid classes = on.with_channels(organs + 1);
      const auto head = numbers(on.size(), 1), logits = numbers(classes.size(), 2);
      const auto map = [](const Grid& grid, const std::vector<double>& x) {
        return Exact(grid, Storage<double, Cpu>(x));
      };
      CHECK(gradient_error<Exact>(on, head, [&](const Exact& x) {
              return disagreement(x, map(classes, logits), 3);
            }) < 1e-6);
      CHECK(gradient_error<Exact>(classes, logits, [&](const Exact& x) {
              return disagreement(map(on, head), x, 3);
            }) < 1e-6);
      const int before = threads();
      std::set<std::vector<double>> results;
      for (const int count : {1, 2, 4}) {
        set_threads(count);
        const Exact x = Exact::leaf(on, head);
        const auto loss = disagreement(x, map(classes, logits), 3);
        backward(loss);
        auto bits = x.gradient().host();
        bits.push_back(loss.host());
        results.insert(bits);
      }
      set_threads(before);
      CHECK(results.size() == 1);
    }
  }
  TEST_CASE("the head is saved and goes on bit for bit") {
    check_resumes([](const Net& net) { return DualTask<Net>::of(net, 3); });
  }
  TEST_CASE("two dimensions and any network; one without features is refused") {
    using Any = AnyNetwork<F2>;
    OneStep<F2> step;
    Any net{small_net_2d()};
    auto policy = DualTask<Any>::of(net, 3);
    Group<float, Cpu> all(Role::trained, net, policy);
    auto now = step.now(net);
    const auto term = policy.loss(now);
    CHECK(std::isfinite(term.host()));
    backward(term);
    CHECK_THROWS_AS(DualTask<Any>::of(Any{Plain{}}, 3), Error);
  }
}
