// SPDX-License-Identifier: Apache-2.0
#include <thread>

#include <doctest/doctest.h>

#include <segmed/core/clock.hpp>

TEST_SUITE_BEGIN("core/clock");
using namespace segmed;

TEST_CASE("the warm-up rises from exp(-5) to 1 and stays there") {
  CHECK(sigmoid_ramp(0) == doctest::Approx(std::exp(-5.0)));
  CHECK(sigmoid_ramp(0.2f) == doctest::Approx(std::exp(-1.25)));
  CHECK(sigmoid_ramp(0.4f) == 1);
  CHECK(sigmoid_ramp(1) == 1);
  CHECK(sigmoid_ramp(0.5f, 1) == doctest::Approx(std::exp(-1.25)));
  CHECK(sigmoid_ramp(0, 0) == 1);
  for (float t = 0; t < 1; t += 0.01f) CHECK(sigmoid_ramp(t) <= sigmoid_ramp(t + 0.01f));
}

TEST_CASE("a ramp reads its ticks when it is called") {
  Ticks ticks;
  const Ramp ramp{&ticks, 0.5f};
  CHECK(ramp() == 0);
  ticks.ramp = 0.5f;
  CHECK(ramp() == 0.25f);
}

TEST_CASE("the n-th random op of a step draws from stream n, on this thread") {
  Draws::current() = {.seed = 9, .step = 4};
  const Philox first = Draws::next(Purpose::dropout), second = Draws::next(Purpose::noise);
  CHECK(first.seed == 9);
  CHECK(first.draw == 4);
  CHECK(first.stream == 0);
  CHECK(first.purpose == Purpose::dropout);
  CHECK(second.stream == 1);
  std::uint32_t elsewhere = 7;
  std::thread([&] { elsewhere = Draws::next(Purpose::noise).stream; }).join();
  CHECK(elsewhere == 0);
  CHECK(Draws::current().stream == 2);
  Draws::current() = {};
}

TEST_SUITE_END();
