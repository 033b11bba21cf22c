// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <atomic>
#include <cstdlib>
#include <string_view>

#include <segmed/core/error.hpp>

namespace segmed {

/// How convolutions are computed on the processor. Which algorithm that is for a shape never
/// depends on time or threads.
///   automatic  the fastest algorithm: relative errors about 5e-6 (TF32: 3e-4)
///   precise    fast algorithms whose errors are those of plain sums, about 5e-7
///   direct     plain sums
enum class ConvolutionMode { automatic, precise, direct };

/// Throws ConfigError.
inline ConvolutionMode convolution_mode_of(std::string_view name) {
  if (name == "auto" || name.empty()) return ConvolutionMode::automatic;
  if (name == "precise") return ConvolutionMode::precise;
  if (name == "direct") return ConvolutionMode::direct;
  fail<ConfigError>("SEGMED_CONV", "no mode named ", name, "; choose one of auto, precise, direct");
}
/// Throws ConfigError when the environment names no mode.
inline std::atomic<ConvolutionMode>& convolution_mode_in_use() {
  static std::atomic<ConvolutionMode> mode = [] {
    const char* name = std::getenv("SEGMED_CONV");
    return convolution_mode_of(name ? name : "");
  }();
  return mode;
}
/// Of this process: what the environment variable SEGMED_CONV names (auto, precise, direct), unless
/// it has been set.
inline ConvolutionMode convolution_mode() { return convolution_mode_in_use(); }
inline void set_convolution_mode(ConvolutionMode mode) { convolution_mode_in_use() = mode; }
inline const char* name_of(ConvolutionMode mode) {
  return mode == ConvolutionMode::direct    ? "direct"
         : mode == ConvolutionMode::precise ? "precise"
                                            : "auto";
}

}  // namespace segmed
