// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/semi/deformation_consistency.hpp>

using namespace trial;

namespace {

/// x read linearly at displaced positions, the edge repeated.
Doubles read_at(const Doubles& x, const Doubles& by, const Grid& g) {
  const Index e[3] = {g.depth, g.height, g.width};
  Doubles out(x.size());
  for (Index row = 0; row < g.rows(); ++row) {
    const Index v = row % g.voxels();
    const Index from[3] = {v / e[2] / e[1], v / e[2] % e[1], v % e[2]};
    double at[3];
    for (std::size_t a = 0; a < 3; ++a)
      at[a] = std::clamp(double(from[a]) + by[std::size_t(3 * row) + a], 0.0, double(e[a] - 1));
    for (int corner = 0; corner < 8; ++corner) {
      double weight = 1;
      Index u = 0;
      for (std::size_t a = 0; a < 3; ++a) {
        const Index low = Index(std::floor(at[a])), high = std::min(low + 1, e[a] - 1);
        const double rest = at[a] - double(low);
        weight *= corner >> a & 1 ? rest : 1 - rest;
        u = u * e[a] + (corner >> a & 1 ? high : low);
      }
      for (Index c = 0; c < g.channels; ++c)
        out[std::size_t(row * g.channels + c)] +=
            weight * x[std::size_t(((row - v) + u) * g.channels + c)];
    }
  }
  return out;
}
F field_of(const Samples<F>& d1, const Ticks& at, const DeformationConsistency& policy) {
  const Philox random{at.seed, Purpose::view, 0, at.step};
  return smooth_displacement<F>(random, d1.image.grid(), policy.cell, policy.farthest);
}

}  // namespace

TEST_SUITE("semi/deformation_consistency") {
  TEST_CASE("the term is its formula") {
    auto net = small_net();
    DeformationConsistency policy{.weight = 1.4f, .farthest = 1.5f, .cell = 6};
    PolicyStep step(net, policy, unlabelled<F>(2, {8, 10, 12}));
    const auto& image = step.partial.image;
    const auto by = host(field_of(step.partial, step.clock.host(), policy));
    const auto view = read_at(host(image), by, image.grid());
    const auto warped = map_of<F>(image.grid(), view);
    const auto answer = read_at(probabilities(net, image), by, image.grid().with_channels(3));
    CHECK(step.term() ==
          doctest::Approx(0.7 * mean_square_of(probabilities(net, warped), answer)).epsilon(1e-5));
    // Each image of the batch is deformed in its own way.
    CHECK(Doubles(by.begin(), by.begin() + long(by.size()) / 2) !=
          Doubles(by.begin() + long(by.size()) / 2, by.end()));
  }
  TEST_CASE("the gradient goes through both answers") {
    auto net = small_net();
    DeformationConsistency policy{.weight = 2, .farthest = 1.5f, .cell = 6};
    PolicyStep step(net, policy, unlabelled<F>(2));
    const auto gradient = step.gradient();
    const auto& image = step.partial.image;
    const auto field = field_of(step.partial, step.clock.host(), policy);
    std::vector<float> sum(gradient.size());
    for (const bool first : {true, false}) {
      step.group.clear_grads();
      const auto one = softmax(net(warp(image, field, 1.5f)));
      const auto two = warp(softmax(net(image)), field, 1.5f);
      backward(first ? mean_square(one, detach(two)) : mean_square(detach(one), two));
      const auto part = step.group.grads.host();
      CHECK(distance(part, gradient) > 0.1);
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
    }
    CHECK(distance(sum, gradient) < 1e-4);
  }
  TEST_CASE("an answer that does not depend on the image is consistent") {
    auto net = small_net();
    for (auto& at : Inventory(net).leaves)
      if (at.path.starts_with("head")) {
        auto* head = dynamic_cast<F::P*>(at.leaf);
        REQUIRE(head != nullptr);
        head->value().assign(std::vector<float>(std::size_t(head->size()), 0.0f));
      }
    DeformationConsistency policy;
    PolicyStep step(net, policy, unlabelled<F>(1));
    CHECK(step.term() < 1e-12);
  }
  TEST_CASE("a smooth displacement stays within its bounds and changes slowly") {
    const Grid grid{2, 24, 40, 17, 1};
    const auto by = smooth_displacement<F>(Philox{3}, grid, 8, 1.5f);
    CHECK(by.grid() == grid.with_channels(3));
    const auto values = by.dense().value.host();
    float most = 0, steepest = 0;
    for (Index i = 0; i < by.grid().size(); ++i) {
      most = std::max(most, std::abs(values[std::size_t(i)]));
      if (i / 3 % grid.width > 0)
        steepest =
            std::max(steepest, std::abs(values[std::size_t(i)] - values[std::size_t(i - 3)]));
    }
    CHECK(most > 1);
    CHECK(most <= 1.5f);
    CHECK(steepest < 0.5f);
    // Far is cut to a quarter of a cell.
    float far = 0;
    for (const float d :
         smooth_displacement<F2>(Philox{3}, {1, 1, 32, 32, 1}, 8, 100).dense().value.host())
      far = std::max(far, std::abs(d));
    CHECK(far <= 2);
    CHECK(far > 1);
    CHECK_THROWS_AS(smooth_displacement<F>(Philox{}, grid, 0, 1), ConfigError);
  }
  TEST_CASE("two dimensions, erased networks, any number of threads, and stops") {
    check_flat_and_erased([](const auto&) { return DeformationConsistency{.cell = 4}; });
    check_threads([](const auto&) { return DeformationConsistency{.cell = 8}; });
    check_resumes([](const auto&) { return DeformationConsistency{.cell = 8}; });
  }
}
