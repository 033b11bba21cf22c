// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/backend/cpu.hpp>
#include <segmed/tensor/clock.hpp>

TEST_SUITE_BEGIN("tensor/clock");
using namespace segmed;

TEST_CASE("the clock's block keeps its place, and random ops follow it") {
  Clock<Cpu> clock(7);
  const Ticks* place = clock.ticks();
  CHECK(place->seed == 7);
  CHECK(Draws::current().seed == 7);
  Draws::next(Purpose::noise);
  clock.set({.seed = 7, .step = 12, .progress = 0.5f, .ramp = 0.25f, .rate = 0.1f});
  CHECK(clock.ticks() == place);
  CHECK(place->step == 12);
  CHECK(place->rate == 0.1f);
  CHECK(clock.host().progress == 0.5f);
  CHECK(Draws::current().step == 12);
  CHECK(Draws::current().stream == 0);
  CHECK(clock.ramp(2)() == 0.5f);
  Draws::current() = {};
}

TEST_SUITE_END();
