// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <cstring>

#include <segmed/core/config.hpp>

namespace segmed {

/// The upper half of a float: its range, and 8 bits of precision. Feature maps are stored in it and
/// computed in float, so it reads as a float by itself and is written only by name: `T(value)`.
/// It has no arithmetic of its own: a sum that was kept in it would stop growing after 256 ones.
///
///   source   Kalamkar et al., A study of BFLOAT16 for deep learning training, 2019,
///            arXiv:1905.12322, section 3
struct Bfloat16 {
  std::uint16_t bits;

  Bfloat16() = default;
  /// Rounds to the nearest value, halfway cases to the even one; beyond the largest to infinity.
  SEGMED_HD explicit Bfloat16(float value) {
    std::uint32_t whole = 0;
    std::memcpy(&whole, &value, sizeof whole);
    const bool is_number = (whole & 0x7fffffffu) <= 0x7f800000u;
    // Of NaN the first bit of the fraction is set, for the rest of it may be what is cut off.
    bits = is_number ? std::uint16_t((whole + 0x7fffu + ((whole >> 16) & 1u)) >> 16)
                     : std::uint16_t((whole >> 16) | 0x40u);
  }
  SEGMED_HD operator float() const {
    const std::uint32_t whole = std::uint32_t(bits) << 16;
    float value = 0;
    std::memcpy(&value, &whole, sizeof value);
    return value;
  }
};
static_assert(sizeof(Bfloat16) == 2);

template <>
struct WideOf<Bfloat16> {
  using type = float;
};

}  // namespace segmed
