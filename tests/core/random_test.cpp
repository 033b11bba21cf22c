// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <set>

#include <doctest/doctest.h>

#include <segmed/core/random.hpp>

TEST_SUITE_BEGIN("core/random");
using namespace segmed;

TEST_CASE("Philox gives the published words") {
  // The known answers of Random123 for philox4x32-10.
  const auto equal = [](Philox::Words a, std::uint32_t w0, std::uint32_t w1, std::uint32_t w2,
                        std::uint32_t w3) {
    return a.word[0] == w0 && a.word[1] == w1 && a.word[2] == w2 && a.word[3] == w3;
  };
  CHECK(
      equal(Philox::rounds({{0, 0, 0, 0}}, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  CHECK(equal(
      Philox::rounds({{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}}, 0xffffffff, 0xffffffff),
      0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  CHECK(equal(
      Philox::rounds({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0),
      0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST_CASE("numbers depend on seed, purpose, stream, draw and index, each") {
  const Philox base{1, Purpose::noise, 2, 3};
  const std::set<float> different{
      base.uniform(4),
      base.uniform(5),
      base.uniform(4 + (Index{1} << 32)),
      Philox{2, Purpose::noise, 2, 3}.uniform(4),
      Philox{1 + (std::uint64_t{1} << 32), Purpose::noise, 2, 3}.uniform(4),
      Philox{1, Purpose::dropout, 2, 3}.uniform(4),
      Philox{1, Purpose::noise, 3, 3}.uniform(4),
      Philox{1, Purpose::noise, 2, 4}.uniform(4),
  };
  CHECK(different.size() == 8);
  CHECK(base.uniform(4) == Philox{1, Purpose::noise, 2, 3}.uniform(4));
}

TEST_CASE("uniform numbers lie inside and spread evenly") {
  const Philox random{7};
  const Index count = 100000;
  double sum = 0, squares = 0;
  bool inside = true;
  Index bins[10] = {};
  for (Index i = 0; i < count; ++i) {
    const float u = random.uniform(i);
    inside &= u > 0 && u < 1;
    sum += double(u), squares += double(u) * double(u);
    ++bins[int(u * 10)];
  }
  CHECK(inside);
  CHECK(sum / double(count) == doctest::Approx(0.5).epsilon(0.01));
  CHECK(squares / double(count) == doctest::Approx(1.0 / 3).epsilon(0.01));
  for (const Index n : bins) CHECK(n == doctest::Approx(double(count) / 10).epsilon(0.05));
  CHECK(Philox::unit(0) > 0);
  CHECK(Philox::unit(0xffffffff) < 1);
  const float between = random.uniform(3, -2, 5);
  CHECK(between > -2);
  CHECK(between < 5);
}

TEST_CASE("normal numbers have mean 0, deviation 1 and the right tails") {
  const Philox random{7};
  const Index count = 100000;
  double sum = 0, squares = 0, fourth = 0;
  for (Index i = 0; i < count; ++i) {
    const double z = double(random.normal(i));
    sum += z, squares += z * z, fourth += z * z * z * z;
  }
  CHECK(std::abs(sum / double(count)) < 0.015);
  CHECK(squares / double(count) == doctest::Approx(1).epsilon(0.02));
  CHECK(fourth / double(count) == doctest::Approx(3).epsilon(0.05));
  // The largest that a word can give is finite.
  CHECK(std::isfinite(std::sqrt(-2.0f * math::fast_log(Philox::unit(0)))));
}

TEST_CASE("below gives every number and no other") {
  const Philox random{7};
  Index bins[7] = {};
  bool inside = true;
  for (Index i = 0; i < 70000; ++i) {
    const Index n = random.below(i, 7);
    inside &= n >= 0 && n < 7;
    ++bins[n];
  }
  CHECK(inside);
  for (const Index n : bins) CHECK(n == doctest::Approx(10000).epsilon(0.05));
  CHECK(random.below(3, 1) == 0);
  CHECK(random.below(3, Index{1} << 62) >= 0);
}

TEST_CASE("Beta(a, a) has the mean 1/2 and the variance 1 / (8 a + 4)") {
  const Philox random{5, Purpose::view, 2, 3};
  for (const float shape : {0.01f, 0.2f, 1.0f, 4.0f}) {
    double sum = 0, squares = 0;
    bool inside = true;
    for (Index i = 0; i < 20000; ++i) {
      const double x = double(random.beta(i, shape));
      inside &= x >= 0 && x <= 1;
      sum += x, squares += (x - 0.5) * (x - 0.5);
    }
    CHECK(inside);
    CHECK(std::abs(sum / 20000 - 0.5) < 0.01);
    CHECK(std::abs(squares / 20000 * (8 * double(shape) + 4) - 1) < 0.04);
  }
}

TEST_CASE("hash_of is FNV-1a, also when it is compiled in") {
  static_assert(hash_of("") == 0xcbf29ce484222325u);
  static_assert(hash_of("a") == 0xaf63dc4c8601ec8cu);
  CHECK(hash_of("foobar") == 0x85944171f73967e8u);
  CHECK(hash_of("\xff") != hash_of("\x7f"));
}

TEST_SUITE_END();
