// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <initializer_list>

#include <doctest/doctest.h>

#include <segmed/core/schedule.hpp>

namespace {
using namespace segmed;

template <Schedule S>
void check(const S& schedule) {
  for (const float progress :
       {0.0f, 0.02f, 0.5f, 0.999f, 1.0f, std::nextafter(1.0f, 2.0f), 1.01f}) {
    CAPTURE(progress);
    const float rate = schedule(progress);
    CHECK(std::isfinite(rate));
    CHECK(rate >= 0);
    CHECK(rate <= 1.0001f);
  }
}

}  // namespace

TEST_SUITE("core/schedule") {
  TEST_CASE("a rate is a number from 0 to 1, also where progress is rounded beyond its end") {
    check(ConstantRate{});
    check(Poly{});
    check(Cosine{});
    check(WarmUp<Poly>{.fraction = 0.02f, .after = {}});
    check(WarmUp<Cosine>{.fraction = 0.02f, .after = {.floor = 0.1f}});
  }
  TEST_CASE("polynomial decay, half a cosine, and a linear rise") {
    CHECK(Poly{}(0.5f) == doctest::Approx(std::pow(0.5, 0.9)));
    CHECK(Cosine{}(0.5f) == doctest::Approx(0.5));
    const WarmUp<Cosine> risen{.fraction = 0.1f, .after = {}};
    CHECK(risen(0.05f) == doctest::Approx(0.051 / 0.101));
    CHECK(risen(0.1f) == doctest::Approx(1));
    CHECK(risen(1) == doctest::Approx(0).epsilon(1e-6));
  }
}
