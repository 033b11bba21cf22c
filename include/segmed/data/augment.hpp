// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <initializer_list>
#include <utility>

#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>

namespace segmed {

/// Changes of intensity, each made with its own chance and a strength drawn from its range. They
/// are meant for normalized scans.
///
///   source   Isensee et al., nnU-Net, 2021: blur and low resolution with its ranges. There they
///            happen in 1 of 10 and in 1 of 8 channels; what a low resolution leaves out comes back
///            cubically there, linearly as in MONAI here
struct IntensityChange {
  float brightness_chance = 0.15f, brightness = 0.25f;  // times 1 - b to 1 + b
  float contrast_chance = 0.15f, contrast = 0.25f;      // about the mean, within the range
  float gamma_chance = 0.3f, gamma_low = 0.7f, gamma_high = 1.5f;  // mean and deviation stay
  float noise_chance = 0.15f, noise = 0.1f;                        // deviation, from 0 to this
  // By a Gaussian whose deviation is drawn for each axis, in voxels.
  float blur_chance = 0, blur_low = 0.5f, blur_high = 1;
  // What is left of the voxels along each axis: this part of them, to all.
  float low_resolution_chance = 0, low_resolution = 0.5f;

  static constexpr float widest_blur = 4;

  /// Stronger and almost always: the other view that consistency methods ask for.
  static IntensityChange strong() {
    return {0.8f, 0.4f, 0.8f, 0.4f, 0.8f, 0.5f, 2.0f, 0.8f, 0.25f};
  }
  /// Throws ConfigError for a field out of its range.
  void check() const;
};

/// How training patches are varied. Places first: flips, rotation, scale and a smooth displacement
/// together are one resampling, linear for the scan and nearest for the labels; then intensities.
struct Augment {
  // Chance along x (which swaps sides), y and z. None by default: anatomy is not symmetric, and
  // learning its mirror images as well takes more steps (docs/results.md).
  std::array<float, 3> flip = {0, 0, 0};
  float turn_chance = 0.6f, turn_degrees = 20;  // about each of the three axes
  float scale_chance = 0.6f, scale_low = 0.75f, scale_high = 1.33f;
  // Points that lie `elastic_cell_mm` apart move by up to `elastic_mm` along each axis, but never
  // so far that the patch would fold.
  float elastic_chance = 0, elastic_mm = 8, elastic_cell_mm = 32;
  IntensityChange weak = {};
  IntensityChange strong = IntensityChange::strong();

  /// No change at all.
  static Augment none() {
    Augment still;
    still.flip = {0, 0, 0};
    still.turn_chance = still.scale_chance = still.elastic_chance = 0;
    still.weak.brightness_chance = still.weak.contrast_chance = 0;
    still.weak.gamma_chance = still.weak.noise_chance = 0;
    still.weak.blur_chance = still.weak.low_resolution_chance = 0;
    return still;
  }
  /// Throws ConfigError for a field out of its range.
  void check() const;
};

/// Throws ConfigError for what is no chance.
inline void check_chances(std::initializer_list<std::pair<const char*, float>> chances) {
  for (const auto& [name, chance] : chances)
    require<ConfigError>(chance >= 0 && chance <= 1, "augment", name, " is ", chance,
                         "; give a chance from 0 to 1");
}
inline void IntensityChange::check() const {
  check_chances({{"brightness_chance", brightness_chance},
                 {"contrast_chance", contrast_chance},
                 {"gamma_chance", gamma_chance},
                 {"noise_chance", noise_chance},
                 {"blur_chance", blur_chance},
                 {"low_resolution_chance", low_resolution_chance}});
  require<ConfigError>(blur_low > 0 && blur_low <= blur_high && blur_high <= widest_blur, "augment",
                       "blur_low and blur_high are ", blur_low, " and ", blur_high,
                       "; give deviations above 0 and up to ", widest_blur,
                       " voxels, the low one first");
  require<ConfigError>(low_resolution > 0 && low_resolution <= 1, "augment", "low_resolution is ",
                       low_resolution, "; give a part above 0 and up to 1");
}
inline void Augment::check() const {
  check_chances({{"flip along x", flip[0]},
                 {"flip along y", flip[1]},
                 {"flip along z", flip[2]},
                 {"turn_chance", turn_chance},
                 {"scale_chance", scale_chance},
                 {"elastic_chance", elastic_chance}});
  require<ConfigError>(elastic_mm >= 0, "augment", "elastic_mm is ", elastic_mm,
                       "; give a length from 0");
  require<ConfigError>(elastic_cell_mm > 0, "augment", "elastic_cell_mm is ", elastic_cell_mm,
                       "; give a length above 0");
  weak.check(), strong.check();
}

}  // namespace segmed
