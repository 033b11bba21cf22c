// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <type_traits>

#include <doctest/doctest.h>

#include <segmed/core/bfloat16.hpp>

using namespace segmed;

namespace {
float rounded(float value) { return Bfloat16(value); }
}  // namespace

static_assert(std::is_same_v<Wide<Bfloat16>, float>);
static_assert(std::is_trivially_copyable_v<Bfloat16>);
static_assert(std::is_trivially_default_constructible_v<Bfloat16>);
static_assert(!std::is_convertible_v<float, Bfloat16>, "a value is rounded by name alone");
static_assert(std::is_convertible_v<Bfloat16, float>);

TEST_CASE("every value of 16 bits survives float") {
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    Bfloat16 value;
    value.bits = std::uint16_t(bits);
    const float wide = value;
    if (std::isnan(wide))
      CHECK(std::isnan(rounded(wide)));
    else
      CHECK(Bfloat16(wide).bits == value.bits);
  }
}

TEST_CASE("values between two neighbours go to the nearest one, halfway to the even one") {
  const float step = std::ldexp(1.0f, -7);  // between neighbours from 1 to 2
  CHECK(rounded(1 + 0.49f * step) == 1);
  CHECK(rounded(1 + 0.5f * step) == 1);
  CHECK(rounded(1 + 0.51f * step) == 1 + step);
  CHECK(rounded(1 + 1.5f * step) == 1 + 2 * step);
  CHECK(rounded(-1 - 1.5f * step) == -1 - 2 * step);
  CHECK(rounded(2 - 0.25f * step) == 2);
  CHECK(std::signbit(rounded(-0.0f)));
}

TEST_CASE("the ends of the range") {
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(rounded(infinity) == infinity);
  CHECK(rounded(-infinity) == -infinity);
  CHECK(rounded(std::numeric_limits<float>::max()) == infinity);
  CHECK(rounded(std::ldexp(1.0f, -133)) == std::ldexp(1.0f, -133));  // the smallest above zero
  CHECK(rounded(std::ldexp(1.0f, -135)) == 0);
  CHECK(std::isnan(rounded(std::numeric_limits<float>::quiet_NaN())));
  // A NaN whose fraction lies in the lower half alone must not become infinity.
  const std::uint32_t bits = 0x7f800001u;
  float low = 0;
  std::memcpy(&low, &bits, sizeof low);
  CHECK(std::isnan(rounded(low)));
}
