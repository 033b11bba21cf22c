// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include <doctest/doctest.h>
#include <zlib.h>

#include <segmed/experiment/overlay.hpp>
#include <segmed/experiment/png.hpp>

using namespace segmed;

namespace {

std::uint32_t word(const std::string& bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i)
    value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

// A reader of its own for the PNGs that are written here: 8-bit RGB, one pass.
Picture decode(const std::string& bytes) {
  REQUIRE(bytes.substr(0, 8) == "\x89PNG\r\n\x1a\n");
  Picture picture;
  std::string packed;
  for (std::size_t at = 8; at < bytes.size();) {
    const std::size_t length = word(bytes, at);
    const std::string kind = bytes.substr(at + 4, 4);
    const auto crc =
        ::crc32(0, reinterpret_cast<const Bytef*>(bytes.data() + at + 4), uInt(length + 4));
    REQUIRE(crc == word(bytes, at + 8 + length));
    if (kind == "IHDR") {
      picture = Picture(word(bytes, at + 8), word(bytes, at + 12));
      REQUIRE(bytes.substr(at + 16, 5) == std::string("\x08\x02\0\0\0", 5));
    }
    if (kind == "IDAT") packed += bytes.substr(at + 8, length);
    at += 12 + length;
  }
  const std::size_t row = std::size_t(picture.width) * 3;
  std::string raw((row + 1) * std::size_t(picture.height), '\0');
  uLongf size = uLongf(raw.size());
  REQUIRE(::uncompress(reinterpret_cast<Bytef*>(raw.data()), &size,
                       reinterpret_cast<const Bytef*>(packed.data()),
                       uLong(packed.size())) == Z_OK);
  std::string above(row, '\0');
  for (std::size_t y = 0; y < std::size_t(picture.height); ++y) {
    const int filter = raw[y * (row + 1)];
    std::string line = raw.substr(y * (row + 1) + 1, row);
    for (std::size_t i = 0; i < row; ++i) {
      const auto byte = [](char c) { return int(static_cast<unsigned char>(c)); };
      const int a = i >= 3 ? byte(line[i - 3]) : 0, b = byte(above[i]),
                c = i >= 3 ? byte(above[i - 3]) : 0;
      const int p = a + b - c, pa = std::abs(p - a), pb = std::abs(p - b), pc = std::abs(p - c);
      const int paeth = pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
      const int add[] = {0, a, b, (a + b) / 2, paeth};
      line[i] = char(byte(line[i]) + add[filter]);
    }
    for (Index x = 0; x < picture.width; ++x) {
      const auto* p = reinterpret_cast<const std::uint8_t*>(line.data()) + x * 3;
      picture.at(x, Index(y)) = {p[0], p[1], p[2]};
    }
    above = line;
  }
  return picture;
}

}  // namespace

TEST_SUITE("experiment/png") {
  TEST_CASE("a picture is encoded without loss") {
    for (const auto& [width, height] : {std::pair<Index, Index>{1, 1}, {7, 5}, {64, 33}}) {
      Picture picture(width, height);
      for (Index y = 0; y < height; ++y)
        for (Index x = 0; x < width; ++x)
          picture.at(x, y) = {std::uint8_t(x * 40), std::uint8_t(y * 51), std::uint8_t(x * y)};
      const Picture back = decode(encode_png(picture));
      CHECK(back.width == width);
      CHECK(back.pixels == picture.pixels);
    }
    CHECK_THROWS_WITH_AS(encode_png(Picture{}), "segmed: png: a picture of 0x0 holds 0 pixels",
                         ShapeError);
  }
  TEST_CASE("base64 gives the values of RFC 4648") {
    const char* pairs[][2] = {{"", ""},
                              {"f", "Zg=="},
                              {"fo", "Zm8="},
                              {"foo", "Zm9v"},
                              {"foob", "Zm9vYg=="},
                              {"fooba", "Zm9vYmE="},
                              {"foobar", "Zm9vYmFy"}};
    for (const auto& pair : pairs) CHECK(base64(pair[0]) == pair[1]);
    CHECK(base64("\xFF\xFE\xFD") == "//79");
    CHECK(data_uri(Picture(1, 1)).find("data:image/png;base64,iVBORw0KGgo") == 0);
  }
  TEST_CASE("every class has a color of its own") {
    std::set<std::tuple<int, int, int>> seen;
    for (Index label = 0; label < 118; ++label) {
      const Rgb color = class_color(label);
      seen.insert({color.red, color.green, color.blue});
      if (label > 0) CHECK(int(color.red) + color.green + color.blue > 200);
    }
    CHECK(seen.size() >= 112);
    CHECK(css_color({255, 0, 10}) == "#ff000a");
  }
}

TEST_SUITE("experiment/overlay") {
  TEST_CASE("a slice is drawn with the patient's right on the left and the front up") {
    auto image = make_volume<float>({10, 8, 3});
    auto labels = make_volume<std::uint8_t>({10, 8, 3});
    image.at(9, 7, 1) = 1;  // right, front
    const Picture gray = draw_slice(image, labels, 1, {0, 1, 10, 0.2});
    CHECK(gray.width == 10);
    CHECK(gray.height == 8);
    CHECK(gray.at(0, 0) == Rgb{255, 255, 255});
    CHECK(gray.at(9, 0) == Rgb{});
    CHECK(gray.at(0, 7) == Rgb{});
    for (Index y = 0; y < 4; ++y)
      for (Index x = 0; x < 4; ++x) labels.at(x, y, 1) = 2;  // left, back
    const Picture drawn = draw_slice(image, labels, 1, {0, 1, 10, 0.2});
    CHECK(drawn.at(9, 7) == class_color(2));
    CHECK(drawn.at(6, 5) == class_color(2));
    CHECK(drawn.at(8, 5) == Rgb{15, 34, 51});  // inside: a fifth of the color on black
    CHECK(drawn.at(5, 5) == Rgb{});
  }
  TEST_CASE("pixels are square in mm, and small images are enlarged") {
    const auto image = make_volume<float>({10, 10, 2}, Geometry::of_spacing(1, 2, 5));
    const Picture picture = draw_slice(image, make_volume_like<std::uint8_t>(image), 0);
    CHECK(picture.height == 420);
    CHECK(picture.width == 210);
    CHECK_THROWS_AS(draw_slice(image, make_volume_like<std::uint8_t>(image), 2), ShapeError);
  }
  TEST_CASE("black margins are cut off, labels never are") {
    auto image = make_volume<float>({64, 32, 1});
    auto labels = make_volume_like<std::uint8_t>(image);
    for (Index y = 8; y < 24; ++y)
      for (Index x = 20; x < 40; ++x) image.at(x, y, 0) = 1;
    labels.at(50, 2, 0) = 1;
    const LabelBox box = body_box(image, {labels}, 0, {0, 1});
    CHECK(box.first == Extent3{17, 0, 0});
    CHECK(box.extent == Extent3{37, 26, 1});
    const LabelBox black = body_box(make_volume_like<float>(image), {}, 0, {0, 1});
    CHECK(black.extent == Extent3{64, 32, 1});
  }
  TEST_CASE("the slice that shows most classes is drawn, in any orientation") {
    auto image = make_volume<float>({6, 7, 8});
    for (std::size_t i = 0; i < image.voxels.size(); ++i) image.voxels[i] = float(i % 13);
    auto truth = make_volume_like<std::uint8_t>(image);
    for (Index x = 0; x < 6; ++x) truth.at(x, 2, 1) = 1;
    for (Index x = 0; x < 3; ++x) truth.at(x, 2, 5) = 1, truth.at(x, 4, 5) = 2;
    truth.at(0, 0, 5) = ignored;
    auto prediction = truth;
    prediction.at(5, 5, 5) = 3;
    CHECK(busiest_slice(truth) == 5);
    const auto row = draw_overlays(image, {&truth, &prediction});
    CHECK(row.classes == std::vector<Index>{1, 2, 3});
    REQUIRE(row.pictures.size() == 2);
    const auto other = reorient(truth, "SLP"), ours = reorient(prediction, "SLP");
    const auto turned_row = draw_overlays(reorient(image, "SLP"), {&other, &ours});
    CHECK(turned_row.pictures[0].pixels == row.pictures[0].pixels);
    CHECK(turned_row.pictures[1].pixels == row.pictures[1].pixels);
    const auto none = make_volume_like<std::uint8_t>(image);
    CHECK(draw_overlays(image, {&none, &none}).classes.empty());
    const auto small = make_volume<std::uint8_t>({2, 2, 2});
    CHECK_THROWS_WITH_AS(draw_overlays(image, {&small}),
                         "segmed: overlay: labels of 2x2x2 lie over an image of 6x7x8", ShapeError);
  }
}
