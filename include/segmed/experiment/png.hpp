// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <png.h>

#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>

namespace segmed {

/// A color, 0 to 255 each.
struct Rgb {
  std::uint8_t red = 0, green = 0, blue = 0;
  bool operator==(const Rgb&) const = default;
};

/// The color as HTML writes it.
inline std::string css_color(const Rgb& color) {
  constexpr const char* hex = "0123456789abcdef";
  std::string text = "#";
  for (const int value : {int(color.red), int(color.green), int(color.blue)})
    (text += hex[value >> 4]) += hex[value & 15];
  return text;
}

/// A color for each class that is told apart from its neighbors on a gray picture; background (0)
/// is black.
inline Rgb class_color(Index label) {
  constexpr std::array<Rgb, 11> first{{{0, 0, 0},
                                       {255, 99, 88},
                                       {77, 171, 255},
                                       {255, 203, 61},
                                       {63, 207, 142},
                                       {214, 134, 255},
                                       {255, 149, 51},
                                       {63, 213, 224},
                                       {247, 129, 191},
                                       {173, 214, 70},
                                       {158, 158, 255}}};
  if (label >= 0 && label < Index(first.size())) return first[std::size_t(label)];
  const double hue = std::fmod(double(label) * 0.618033988749895, 1.0) * 6;
  const auto channel = [&](double offset) {
    const double k = std::fmod(offset + hue, 6.0);
    return std::uint8_t(std::lround(255 * (0.95 - 0.6 * std::max(0.0, std::min({k, 4 - k, 1.0})))));
  };
  return {channel(5), channel(3), channel(1)};
}

/// A picture, row by row from the top left.
struct Picture {
  Index width = 0, height = 0;
  std::vector<Rgb> pixels;

  Picture() = default;
  Picture(Index w, Index h, Rgb color = {})
      : width(w), height(h), pixels(std::size_t(w * h), color) {}
  Rgb& at(Index x, Index y) { return pixels[std::size_t(y * width + x)]; }
  const Rgb& at(Index x, Index y) const { return pixels[std::size_t(y * width + x)]; }
};

/// The picture as the bytes of a PNG file.
///
///   throws   ShapeError for a picture without pixels or beyond 65535 x 65535
inline std::string encode_png(const Picture& picture) {
  require(picture.width >= 1 && picture.height >= 1 && picture.width <= 65535 &&
              picture.height <= 65535 &&
              Index(picture.pixels.size()) == picture.width * picture.height,
          "png", "a picture of ", picture.width, "x", picture.height, " holds ",
          picture.pixels.size(), " pixels");
  static_assert(sizeof(Rgb) == 3);
  ::png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  image.width = ::png_uint_32(picture.width);
  image.height = ::png_uint_32(picture.height);
  image.format = PNG_FORMAT_RGB;
  ::png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::string bytes(size, '\0');
  const int done = ::png_image_write_to_memory(&image, bytes.data(), &size, 0,
                                               picture.pixels.data(), 0, nullptr);
  require<FileError>(done != 0, "png", "a picture of ", picture.width, "x", picture.height,
                     " cannot be encoded: ", image.message);
  bytes.resize(size);
  return bytes;
}

/// Bytes as base64 text.
///
///   source   RFC 4648, section 4
inline std::string base64(std::string_view bytes) {
  constexpr const char* letters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t word = 0;
    for (std::size_t k = 0; k < 3; ++k)
      word = word << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k)
      text += i + k > bytes.size() ? '=' : letters[word >> (18 - 6 * k) & 63];
  }
  return text;
}

/// The picture as a source that an HTML page holds inside itself.
inline std::string data_uri(const Picture& picture) {
  return "data:image/png;base64," + base64(encode_png(picture));
}

}  // namespace segmed
