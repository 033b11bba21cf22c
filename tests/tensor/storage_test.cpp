// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/backend/cpu.hpp>
#include <segmed/tensor/storage.hpp>

TEST_SUITE_BEGIN("tensor/storage");
using namespace segmed;
using Numbers = Storage<float, Cpu>;
using Host = std::vector<float>;

TEST_CASE("a storage starts filled, or from a host's vector") {
  CHECK(Numbers(3).host() == Host{0, 0, 0});
  CHECK(Numbers(3, 2.5f).host() == Host{2.5f, 2.5f, 2.5f});
  CHECK(Numbers(Host{1, 2, 3}).host() == Host{1, 2, 3});
  CHECK(Numbers(10000, 1).host() == std::vector<float>(10000, 1));
}

TEST_CASE("an empty storage has nothing to read, and one of size 0 is not empty") {
  Numbers none;
  CHECK(none.empty());
  CHECK(none.read() == nullptr);
  CHECK(none.write() == nullptr);
  CHECK(none.version() == 0);
  CHECK(none.host().empty());
  CHECK_FALSE(Numbers(0).empty());
}

TEST_CASE("copies and slices share, clones do not") {
  Numbers a(Host{1, 2, 3, 4});
  Numbers b = a, part = a.slice(1, 2), deep = a.clone(), inner = part.slice(1, 1);
  a.write()[2] = 9;
  CHECK(b.host()[2] == 9);
  CHECK(part.host() == Host{2, 9});
  CHECK(inner.host() == Host{9});
  CHECK(deep.host() == Host{1, 2, 3, 4});
  CHECK(part.clone().host() == Host{2, 9});
  CHECK(a.shares(part));
  CHECK(part.shares(inner));
  CHECK_FALSE(a.shares(deep));
  CHECK_FALSE(Numbers().shares(Numbers()));
}

TEST_CASE("a write gives a new version to everybody who shares, and to nobody else") {
  Numbers a(4), other(4);
  Numbers part = a.slice(1, 2);
  const auto before = a.version(), elsewhere = other.version();
  CHECK(before != elsewhere);
  a.read();
  CHECK(a.version() == before);
  part.write();
  CHECK(a.version() != before);
  CHECK(a.version() == part.version());
  CHECK(other.version() == elsewhere);
}

TEST_CASE("adding adds, and or_zeros makes zeros once") {
  Numbers a(Host{1, 2}), gradient;
  gradient.or_zeros(2).add(a);
  gradient.or_zeros(2).add(a);
  CHECK(gradient.host() == Host{2, 4});
}

TEST_CASE("as many values as places") {
  Numbers a(2);
  a.assign({3, 4});
  CHECK(a.host() == Host{3, 4});
  CHECK_THROWS_WITH_AS(a.assign({1, 2, 3}), "segmed: Storage: 3 values for 2 places", ShapeError);
}

TEST_SUITE_END();
