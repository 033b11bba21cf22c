// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>

#include <segmed/core/config.hpp>

namespace segmed {

/// Bytes of the UTF-8 character that `text` begins with; 0 where it begins with none: a stray or
/// missing byte, an overlong form, a surrogate, or a code above U+10FFFF.
inline std::size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? unsigned(static_cast<unsigned char>(text[i])) : 0u;
  };
  const auto follows = [&](std::size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned lead = byte(0), next = byte(1);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return follows(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    const bool fits = follows(1) && (lead != 0xE0 || next >= 0xA0) && (lead != 0xED || next < 0xA0);
    return fits && follows(2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const bool fits = follows(1) && (lead != 0xF0 || next >= 0x90) && (lead != 0xF4 || next < 0x90);
    return fits && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

/// The number in the fewest digits that read back the same, whole numbers without an exponent;
/// "null" for NaN and infinities.
inline std::string number_text(double number) {
  if (!std::isfinite(number)) return "null";
  if (number == 0 && std::signbit(number)) return "-0.0";
  char digits[32];
  const bool whole = number == std::floor(number) && std::abs(number) <= 9007199254740992.0;
  const auto end = whole ? std::to_chars(digits, digits + sizeof digits, Index(number)).ptr
                         : std::to_chars(digits, digits + sizeof digits, number).ptr;
  return {digits, end};
}

/// The text between quotes, with everything escaped that JSON wants escaped.
inline std::string json_quoted(std::string_view text) {
  constexpr const char* hex = "0123456789abcdef";
  std::string out = "\"";
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const auto byte = static_cast<unsigned char>(text[0]);
    if (length == 0) {
      out += "\xEF\xBF\xBD";
    } else if (byte == '"' || byte == '\\') {
      (out += '\\') += text[0];
    } else if (byte == '\n') {
      out += "\\n";
    } else if (byte == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      ((out += "\\u00") += hex[byte >> 4]) += hex[byte & 15];
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return out += '"';
}

}  // namespace segmed
