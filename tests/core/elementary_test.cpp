// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <initializer_list>

#include <doctest/doctest.h>

#include <segmed/core/elementary.hpp>

using namespace segmed;

TEST_SUITE("core/elementary") {
  TEST_CASE("fast_exp keeps to 2e-7 of exp") {
    double worst = 0;
    for (double x = -87; x <= 88; x += 1.37e-4) {
      const double exact = std::exp(double(float(x)));
      worst = std::max(worst, std::abs(double(math::fast_exp(float(x))) - exact) / exact);
    }
    CHECK(worst < 2e-7);
    CHECK(math::fast_exp(0.0f) == 1);
    for (const float low : {-88.0f, -1e4f, -3e38f})
      CHECK(math::fast_exp(low) == math::fast_exp(-87.0f));
    CHECK(math::fast_exp(-1.5) == std::exp(-1.5));
  }
  TEST_CASE("fast_log keeps to 2e-7 of log") {
    double worst = 0;
    for (double x = 1e-30; x < 1e30; x *= 1.00037) {
      const double exact = std::log(double(float(x)));
      const double off = std::abs(double(math::fast_log(float(x))) - exact);
      worst = std::max(worst, off / std::max(0.5, std::abs(exact)));
    }
    CHECK(worst < 2e-7);
    CHECK(math::fast_log(1.0f) == 0);
  }
  TEST_CASE("cos_of_turns keeps to 3e-7 of the cosine") {
    double worst = 0;
    for (double x = -3; x <= 3; x += 1.7e-6) {
      const double exact = std::cos(2 * std::acos(-1.0) * double(float(x)));
      worst = std::max(worst, std::abs(double(math::cos_of_turns(float(x))) - exact));
    }
    CHECK(worst < 3e-7);
    for (const float whole : {0.0f, 1.0f, -7.0f, 4e6f})
      CHECK(math::cos_of_turns(whole) == math::cos_of_turns(0));
    for (const float half : {0.5f, -0.5f, 2.5f})
      CHECK(math::cos_of_turns(half) == doctest::Approx(-1).epsilon(2e-7));
  }
  TEST_CASE("softplus and the sigmoid are right on both sides") {
    for (const float x : {-1e4f, -90.0f, -3.0f, -1e-3f, 0.0f, 0.7f, 30.0f, 1e4f}) {
      const double exact = double(x) > 0 ? double(x) + std::log1p(std::exp(-double(x)))
                                         : std::log1p(std::exp(double(x)));
      CHECK(math::softplus(x) == doctest::Approx(exact).epsilon(1e-6));
      CHECK(math::logistic(x) == doctest::Approx(1 / (1 + std::exp(-double(x)))).epsilon(1e-6));
    }
  }
}
