// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/core/json.hpp>
#include <segmed/core/random.hpp>

using namespace segmed;

namespace {

std::string message(const std::string& text) {
  try {
    parse_json(text, "a.json");
  } catch (const FileError& error) {
    return error.what();
  }
  return "accepted";
}
bool refused(const std::string& text) { return message(text) != "accepted"; }

}  // namespace

TEST_SUITE("core/json") {
  TEST_CASE("a value is read and written back as it stood") {
    const std::string text =
        R"({"name":"Task04","modality":{"0":"MRI"},"labels":[0,1,255],"tensorImageSize":"3D",)"
        R"("z":null,"yes":true,"no":false,"nested":[[],{},[1,[2]]],"x":-0.5,"tiny":1e-300})";
    CHECK(parse_json(text).dump() == text);
    CHECK(parse_json(parse_json(text).dump(2)) == parse_json(text));
  }
  TEST_CASE("members keep their order and are found by name") {
    const Json json = parse_json(R"( { "b" : 1 , "a" : [ 2 , 3 ] , "" : "empty" } )");
    CHECK(json.as_object()[0].name == "b");
    CHECK(json.as_object()[1].name == "a");
    CHECK(json.at("a").as_array()[1].as_index() == 3);
    CHECK(json.at("").as_string() == "empty");
    CHECK(json.has("b"));
    CHECK_FALSE(json.has("c"));
    CHECK(json.find("c") == nullptr);
    CHECK(Json(3).find("c") == nullptr);
  }
  TEST_CASE("values are built from plain ones") {
    Json json;
    json["classes"] = Json::list(std::vector<std::string>{"liver", "spleen"});
    json["seed"] = std::uint64_t{7};
    json["gain"] = 0.1;
    json["done"] = true;
    json["note"] = "a";
    json["none"] = std::numeric_limits<double>::quiet_NaN();
    json["runs"].push_back(Json::Object{{"policy", "supervised"}, {"d1", 0}});
    json["seed"] = 8;
    CHECK(json.dump() == R"({"classes":["liver","spleen"],"seed":8,"gain":0.1,"done":true,)"
                         R"("note":"a","none":null,"runs":[{"policy":"supervised","d1":0}]})");
    CHECK(json.at("runs").dump(2) ==
          "[\n  {\n    \"policy\": \"supervised\",\n    \"d1\": 0\n  }\n]");
    CHECK(Json(Json::Array{1, 2}).dump(2) == "[1, 2]");
    CHECK(Json(Json::Object{}).dump(2) == "{}");
  }
  TEST_CASE("whole numbers are exact up to 2^53 and refused beyond") {
    const std::int64_t limit = std::int64_t{1} << 53;
    for (const std::int64_t n : {std::int64_t{0}, std::int64_t{1}, limit - 1, limit, -limit,
                                 std::int64_t{100000}, std::int64_t{123456789012}})
      CHECK(Json(n).dump() == std::to_string(n));
    CHECK(parse_json("9007199254740991").as_index() == limit - 1);
    CHECK(parse_json("-9007199254740991").as_index() == 1 - limit);
    CHECK_THROWS_WITH_AS(Json(limit + 1),
                         "segmed: json: 9007199254740993 is beyond 2^53; write it as a string",
                         DataError);
    CHECK_THROWS_AS(Json{std::numeric_limits<std::int64_t>::min()}, DataError);
    CHECK_THROWS_AS(Json{std::numeric_limits<std::uint64_t>::max()}, DataError);
    CHECK_THROWS_AS(parse_json("9007199254740993").as_index(), DataError);
    CHECK_THROWS_AS(parse_json("1.5").as_index(), DataError);
  }
  TEST_CASE("any double reads back with the same bits") {
    const Philox random{1, Purpose::noise};
    for (Index i = 0; i < 20000; ++i) {
      const auto bits = random.bits(i);
      const std::uint64_t word = (std::uint64_t(bits.word[0]) << 32) | bits.word[1];
      double value = 0;
      std::memcpy(&value, &word, sizeof value);
      if (!std::isfinite(value)) continue;
      CHECK(parse_json(Json(value).dump()).as_number() == value);
    }
    for (const double value : {5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1, 1e22})
      CHECK(parse_json(Json(value).dump()).as_number() == value);
    CHECK(std::signbit(parse_json(Json(-0.0).dump()).as_number()));
    CHECK(Json(std::numeric_limits<double>::infinity()).dump() == "null");
    CHECK(Json(std::numeric_limits<float>::quiet_NaN()).is_null());
  }
  TEST_CASE("strings hold every character") {
    CHECK(parse_json(R"("\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC\ud83d\ude00")").as_string() ==
          "\"\\/\b\f\n\r\tA\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
    std::string all;
    for (int c = 0; c < 128; ++c) all += char(c);
    CHECK(parse_json(Json(all).dump()).as_string() == all);
    CHECK(Json("\n\t\x01\"").dump() == R"("\n\t\u0001\"")");
    CHECK(parse_json(Json("\xC3\xA9\xF0\x9F\x98\x80").dump()).as_string() ==
          "\xC3\xA9\xF0\x9F\x98\x80");
    CHECK(Json("a\xFF b").dump() == "\"a\xEF\xBF\xBD b\"");
  }
  TEST_CASE("what is not JSON is refused with its line and column") {
    CHECK(message("{\n  \"a\": 1,\n  \"a\": 2\n}") ==
          "segmed: json: a.json: line 3, column 3: the member \"a\" stands twice");
    CHECK(message("[1, 2") ==
          "segmed: json: a.json: line 1, column 6: a comma or ] is missing in an array");
    CHECK(message("[\"\xC3\xA9\" x]") ==
          "segmed: json: a.json: line 1, column 6: a comma or ] is missing in an array");
    CHECK(message("{} x") ==
          "segmed: json: a.json: line 1, column 4: there is text after the value");
    CHECK(message("") ==
          "segmed: json: a.json: line 1, column 1: the text ends where a value should be");
    CHECK(message("nan") == "segmed: json: a.json: line 1, column 1: no value begins like this");
    for (const char* text : {" ",
                             "{",
                             "}",
                             "[",
                             "]",
                             ",",
                             ":",
                             "\"",
                             "[1,]",
                             "[,1]",
                             "{\"a\":1,}",
                             "{\"a\"}",
                             "{\"a\":}",
                             "{a:1}",
                             "{1:1}",
                             "{'a':1}",
                             "[1 2]",
                             "01",
                             "-",
                             "-a",
                             "1.",
                             ".5",
                             "+1",
                             "1e",
                             "1e+",
                             "0x10",
                             "1e999",
                             "-1e999",
                             "1e-999",
                             "NaN",
                             "Infinity",
                             "-Infinity",
                             "nul",
                             "TRUE",
                             "truefalse",
                             "\"a",
                             "\"\\",
                             "\"\\x\"",
                             "\"\\u12\"",
                             "\"\\u12g4\"",
                             "\"\\ud800\"",
                             "\"\\udc00\"",
                             "\"\\ud800\\u0041\"",
                             "\"\\ud800x\"",
                             "\"a\nb\"",
                             "\"\t\"",
                             "// c\n1",
                             "/* c */1",
                             "1//",
                             "\xEF\xBB\xBF{}",
                             "{\"a\":1}{\"b\":2}",
                             "{\"\\u0061\":1,\"a\":2}"})
      CHECK_MESSAGE(refused(text), text);
    CHECK(refused(std::string("1\0", 2)));
    CHECK(refused(std::string("\"a\0b\"", 5)));
  }
  TEST_CASE("text that is not UTF-8 is refused") {
    for (const char* text : {"\"\x80\"", "\"\xC3\"", "\"\xC0\xAF\"", "\"\xC1\xBF\"",
                             "\"\xE0\x80\xAF\"", "\"\xED\xA0\x80\"", "\"\xF0\x80\x80\x80\"",
                             "\"\xF4\x90\x80\x80\"", "\"\xF5\x80\x80\x80\"", "\"\xE2\x82\"",
                             "\"\xF0\x9F\x98\"", "\"\xFE\"", "\"\xFF\"", "{\"\xFF\":1}"})
      CHECK(refused(text));
    CHECK(message("\"\xC3") ==
          "segmed: json: a.json: line 1, column 2: byte 195 does not belong to UTF-8 text");
  }
  TEST_CASE("nesting is bounded") {
    const auto nested = [](int depth) {
      return std::string(std::size_t(depth), '[') + std::string(std::size_t(depth), ']');
    };
    CHECK_FALSE(refused(nested(64)));
    CHECK(refused(nested(65)));
    CHECK(refused(std::string(1000000, '[')));
    std::string objects;
    for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
    CHECK(refused(objects));
  }
  TEST_CASE("every cut of a text, and every changed byte, ends in a value or a FileError") {
    const std::string text =
        R"({"a":[1,-2.5e3,"x\u00e9\ud83d\ude00"],"b":{"c":null,"d":true},"e":"é"})";
    for (std::size_t n = 0; n < text.size(); ++n) CHECK(refused(text.substr(0, n)));
    for (std::size_t n = 0; n < text.size(); ++n)
      for (int byte = 0; byte < 256; ++byte) {
        std::string changed = text;
        changed[n] = char(byte);
        if (refused(changed)) continue;
        const Json value = parse_json(changed);
        CHECK(parse_json(value.dump()) == value);
      }
  }
  TEST_CASE("a value of another kind is refused with both kinds named") {
    CHECK_THROWS_WITH_AS(Json("x").as_number(), "segmed: json: a value is a string, not a number",
                         DataError);
    CHECK_THROWS_WITH_AS(Json(1).at("a"), "segmed: json: a value is a number, not an object",
                         DataError);
    CHECK_THROWS_WITH_AS(Json(Json::Object{}).at("a"), "segmed: json: there is no member \"a\"",
                         DataError);
    CHECK_THROWS_AS(Json(true).as_string(), DataError);
    CHECK_THROWS_AS(Json().as_array(), DataError);
    CHECK_THROWS_AS(Json(1).as_bool(), DataError);
  }
  TEST_CASE("an object with a hundred thousand members is read in a moment") {
    std::string text = "{";
    for (int i = 0; i < 100000; ++i) text += (i ? ",\"k" : "\"k") + std::to_string(i) + "\":1";
    CHECK(parse_json(text + "}").as_object().size() == 100000);
    CHECK(refused(text + ",\"k5\":1}"));
  }
}
