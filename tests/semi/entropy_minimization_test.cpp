// SPDX-License-Identifier: Apache-2.0
#include "one_step.hpp"
#include <segmed/semi/entropy_minimization.hpp>

using namespace trial;

TEST_SUITE("semi/entropy_minimization") {
  TEST_CASE("the term is the mean entropy over the logarithm of the number of classes") {
    auto net = small_net();
    EntropyMinimization policy{.weight = 0.6f};
    PolicyStep step(net, policy, unlabelled<F>(2));
    const auto p = probabilities(net, step.partial.image);
    double total = 0;
    for (const double x : p) total -= x * std::log(x);
    CHECK(step.term() ==
          doctest::Approx(0.3 * total / (double(p.size()) / 3) / std::log(3.0)).epsilon(1e-5));
  }
  TEST_CASE("the gradient falls towards a decision, and D_0 takes no part in it") {
    auto net = small_net();
    EntropyMinimization policy{.weight = 2};
    PolicyStep step(net, policy, unlabelled<F>(2));
    const double before = step.term();
    const auto gradient = step.gradient();
    step.full = made_up<F>({everything(), everything()}, 77);
    CHECK(step.gradient() == gradient);
    auto values = step.group.values.host();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] -= 0.01f * gradient[i];
    step.group.values.assign(values);
    CHECK(step.term() < before);
  }
  TEST_CASE("the entropy is 1 where all classes are equally probable, however many there are") {
    for (const Index classes : {2, 3, 15}) {
      const Grid grid{1, 2, 2, 2, classes};
      const F even(grid, Storage<float, Cpu>(grid.size(), 0.5f));
      CHECK(voxel_loss(Entropy{}, even, blank_labels<Cpu>(grid)).host() ==
            doctest::Approx(1).epsilon(1e-6));
    }
  }
  TEST_CASE("logits far apart have no entropy and no gradient that is not a number") {
    const Grid grid{1, 1, 1, 2, 3};
    const auto z = F::leaf(grid, {1e4f, 0, -1e4f, 300, 300, -300});
    const auto entropy = voxel_loss(Entropy{}, z, blank_labels<Cpu>(grid));
    CHECK(entropy.host() == doctest::Approx(0.5 * std::log(2.0) / std::log(3.0)).epsilon(1e-6));
    backward(entropy);
    for (const float g : z.gradient().host()) CHECK(std::abs(g) < 1e-6f);
  }
  TEST_CASE("two dimensions, erased networks, any number of threads, and stops") {
    check_flat_and_erased([](const auto&) { return EntropyMinimization{}; });
    check_threads([](const auto&) { return EntropyMinimization{}; });
    check_resumes([](const auto&) { return EntropyMinimization{}; });
  }
}
