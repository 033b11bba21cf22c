// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <string_view>

#include <segmed/core/config.hpp>
#include <segmed/core/elementary.hpp>

namespace segmed {

/// What a random number is for. Two purposes never share bits.
enum class Purpose : std::uint32_t {
  initialize,
  noise,
  dropout,
  split,
  hide,
  sample,
  augment,
  strong_view,
  phantom,
  statistics,
  view,  // what a policy does to an image: turns, mixes, deformations
};

/// FNV-1a: a name (a parameter's path, a case's id) as a number that is the same on every machine.
constexpr std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return hash;
}

/// Counter-based random numbers: the i-th depends on (seed, purpose, stream, draw, first + i) and
/// nothing else, so neither threads nor the order of calls change them.
///
///   source   Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011: Philox4x32-10
struct Philox {
  std::uint64_t seed = 0;
  Purpose purpose = Purpose::noise;
  std::uint32_t stream = 0;  // the case for data, the n-th random op of the step for networks
  std::uint32_t draw = 0;    // the step, or the epoch
  Index first = 0;           // what the others of a batch have drawn before

  struct Words {
    std::uint32_t word[4];
  };

  SEGMED_HD static Words rounds(Words c, std::uint32_t key0, std::uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t a = std::uint64_t{0xD2511F53u} * c.word[0];
      const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * c.word[2];
      c = {{std::uint32_t(b >> 32) ^ c.word[1] ^ key0, std::uint32_t(b),
            std::uint32_t(a >> 32) ^ c.word[3] ^ key1, std::uint32_t(a)}};
      key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
    }
    return c;
  }
  SEGMED_HD Words bits(Index i) const {
    const std::uint64_t u = std::uint64_t(first + i);
    return rounds(
        {{std::uint32_t(u), std::uint32_t(u >> 32) ^ (std::uint32_t(purpose) << 24), draw, stream}},
        std::uint32_t(seed), std::uint32_t(seed >> 32));
  }
  /// Between 0 and 1, both excluded.
  SEGMED_HD static float unit(std::uint32_t word) {
    return (float(word >> 9) + 0.5f) * (1.0f / 8388608.0f);
  }
  SEGMED_HD float uniform(Index i) const { return unit(bits(i).word[0]); }
  SEGMED_HD float uniform(Index i, float low, float high) const {
    return low + (high - low) * uniform(i);
  }
  /// Mean 0, deviation 1.
  SEGMED_HD float normal(Index i) const {
    const Words b = bits(i);
    return std::sqrt(-2.0f * math::fast_log(unit(b.word[0]))) * math::cos_of_turns(unit(b.word[1]));
  }
  /// Between 0 and 1, symmetric: Beta(shape, shape). Meant for shapes up to a few.
  ///
  ///   source   Joehnk, 1964, by logarithms, so that small shapes do not underflow
  SEGMED_HD float beta(Index i, float shape) const {
    for (Index attempt = 0;; ++attempt) {
      const Words b = bits(i + (attempt << 32));
      const float x = std::log(unit(b.word[0])) / shape, y = std::log(unit(b.word[1])) / shape;
      if (std::exp(x) + std::exp(y) <= 1) return 1 / (1 + std::exp(y - x));
    }
  }
  /// 0 to n - 1; the bias is below n / 2^64.
  SEGMED_HD Index below(Index i, Index n) const {
    const Words b = bits(i);
    const std::uint64_t word = (std::uint64_t(b.word[0]) << 32) | b.word[1];
    return Index(word % std::uint64_t(n));
  }
};

}  // namespace segmed
