// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/core/archive.hpp>

using namespace segmed;

TEST_SUITE("core/archive") {
  TEST_CASE("numbers come back as they were, and as nothing else") {
    Archive archive;
    archive.keep("net.weight", StoredTensor::of(std::vector<float>{1, -2.5f, 1e-30f}));
    archive.keep("net.counts", StoredTensor::of(std::vector<std::int64_t>{7, -1}, {2, 1}));
    CHECK(archive.numbers<float>("net.weight") == std::vector<float>{1, -2.5f, 1e-30f});
    CHECK(archive.tensor("net.counts").shape == std::vector<Index>{2, 1});
    CHECK(archive.numbers<std::int64_t>("net.counts") == std::vector<std::int64_t>{7, -1});
    CHECK_THROWS_WITH_AS(archive.numbers<double>("net.weight"),
                         "segmed: archive: tensor net.weight is of type F32, not F64", DataError);
    CHECK_THROWS_WITH_AS(archive.tensor("net.bias"), "segmed: archive: there is no tensor net.bias",
                         DataError);
    CHECK_THROWS_WITH_AS(archive.keep("net.weight", {}),
                         "segmed: archive: tensor net.weight is kept twice", Error);
  }

  TEST_CASE("texts hold numbers that are checked") {
    Archive archive;
    archive.texts = {{"step", "41"}, {"rate", "0.5"}, {"note", "41 steps"}};
    CHECK(archive.number<Index>("step") == 41);
    CHECK(archive.number<double>("rate") == 0.5);
    CHECK_THROWS_AS(archive.number<Index>("note"), DataError);
    CHECK_THROWS_AS(archive.number<Index>("rate"), DataError);
    CHECK_THROWS_WITH_AS(archive.text("plan"), "segmed: archive: there is no entry plan",
                         DataError);
  }

  TEST_CASE("a prefix ends at a point") {
    Archive archive;
    for (const char* name : {"net.a", "net.b", "net2.a", "ne"})
      archive.keep(name, StoredTensor::of(std::vector<float>{}));
    CHECK(archive.names_under("net") == std::vector<std::string>{"net.a", "net.b"});
    CHECK(archive.has("net2"));
    CHECK_FALSE(archive.has("ne"));
  }

  TEST_CASE("type names and sizes agree") {
    CHECK(std::string(type_name<bool>()) == "BOOL");
    CHECK(std::string(type_name<std::uint8_t>()) == "U8");
    CHECK(std::string(type_name<std::int64_t>()) == "I64");
    CHECK(type_size(type_name<float>()) == 4);
    CHECK(type_size(type_name<double>()) == 8);
    CHECK(type_size("C128") == 0);
  }
}
