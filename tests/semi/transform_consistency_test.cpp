// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/semi/transform_consistency.hpp>

using namespace trial;

namespace {

/// x after one quarter turn of a cube in the plane of two axes, channels last, by plain loops.
Doubles turned(const Doubles& x, const Grid& g, std::size_t first, std::size_t second) {
  Doubles out(x.size());
  const Index e[3] = {g.depth, g.height, g.width};
  for (Index n = 0; n < g.cases; ++n)
    for (Index v = 0; v < g.voxels(); ++v) {
      const Index to[3] = {v / e[2] / e[1], v / e[2] % e[1], v % e[2]};
      Index from[3] = {to[0], to[1], to[2]};
      from[first] = to[second];
      from[second] = e[second] - 1 - to[first];
      const Index u = (from[0] * e[1] + from[1]) * e[2] + from[2];
      for (Index c = 0; c < g.channels; ++c)
        out[std::size_t((n * g.voxels() + v) * g.channels + c)] =
            x[std::size_t((n * g.voxels() + u) * g.channels + c)];
    }
  return out;
}

}  // namespace

TEST_SUITE("semi/transform_consistency") {
  TEST_CASE("the term is its formula, whatever is drawn") {
    auto net = small_net();
    TransformConsistency policy{.weight = 1.4f};
    PolicyStep step(net, policy, unlabelled<F>(2));
    const F& image = step.partial.image;
    std::set<int> seen;
    for (std::uint32_t at = 0; at < 12; ++at) {
      step.clock.set({.seed = 11, .step = at, .progress = 1, .ramp = 0.5f});
      const Philox random{11, Purpose::view, 0, at};
      const auto change = RightAngles::drawn(random, image, false);
      auto view = host(image), answer = probabilities(net, image);
      const Grid grid = image.grid();
      for (int k = 0; k < change.turns; ++k) {
        view = turned(view, grid, change.first, change.second);
        answer = turned(answer, grid.with_channels(3), change.first, change.second);
      }
      CHECK(step.term() ==
            doctest::Approx(0.7 * mean_square_of(probabilities(net, map_of<F>(grid, view)), answer))
                .epsilon(1e-5));
      seen.insert(int(change.first + change.second) * 4 + change.turns);
    }
    CHECK(seen.size() > 4);  // of nine
  }
  TEST_CASE("each answer is the other's target") {
    auto net = small_net();
    TransformConsistency policy{.weight = 2};
    PolicyStep step(net, policy, unlabelled<F>(2));
    const auto gradient = step.gradient();
    // Both directions together: half the gradient of the squared distance itself.
    step.clock.set(step.clock.host());
    const auto& image = step.partial.image;
    const auto change = RightAngles::drawn(Draws::next(Purpose::view), image, false);
    step.group.clear_grads();
    backward(0.5f * mean_square(softmax(net(change(image))), change(softmax(net(image)))));
    CHECK(distance(step.group.grads.host(), gradient) < 1e-5);
    CHECK(std::any_of(gradient.begin(), gradient.end(), [](float g) { return g != 0; }));
  }
  TEST_CASE("a quarter turn is made only where it keeps the extents, and never none") {
    const F flat(Grid{1, 2, 3, 3, 1}, Storage<float, Cpu>(18, 0.0f));
    const F brick(Grid{1, 2, 3, 4, 1}, Storage<float, Cpu>(24, 0.0f));
    std::set<int> turns, mirrored;
    for (std::uint32_t at = 0; at < 60; ++at) {
      const Philox random{1, Purpose::view, 0, at};
      const auto in_plane = RightAngles::drawn(random, flat, true);
      CHECK((in_plane.first == 1 && in_plane.second == 2));
      turns.insert(in_plane.turns);
      mirrored.insert(in_plane.mirrored ? int(in_plane.along) : -1);
      CHECK(RightAngles::drawn(random, brick, false).turns == 2);
      CHECK_FALSE(RightAngles::drawn(random, brick, false).mirrored);
      CHECK(in_plane(flat).grid() == flat.grid());
    }
    CHECK(turns == std::set<int>{1, 2, 3});
    CHECK(mirrored == std::set<int>{-1, 0, 1, 2});
  }
  TEST_CASE("two dimensions, erased networks, any number of threads, and stops") {
    check_flat_and_erased([](const auto&) { return TransformConsistency{.mirrors = true}; });
    check_threads([](const auto&) { return TransformConsistency{}; });
    check_resumes([](const auto&) { return TransformConsistency{}; });
  }
}
