// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include <segmed/core/random.hpp>
#include <segmed/data/blur.hpp>
#include <segmed/image/volume.hpp>

namespace segmed {

/// What happens to the intensities of one channel of one patch.
struct IntensityDraw {
  Sharpness sharpness = {};
  bool bright = false, contrasted = false, gamma = false, noisy = false;
  float power = 1, multiply = 1, stretch = 1;
  float noise = 0;  // times what `grain` gives
  Philox random = {};
  Index noise_from = 0;
  Index powers = 0;  // of gamma: where their table lies, on a device

  SEGMED_HD bool asks_moments() const { return contrasted || gamma; }

  /// The draws of all channels, each by itself.
  static std::vector<IntensityDraw> draw(const IntensityChange& how, Index channels,
                                         const Philox& random, Index base) {
    std::vector<IntensityDraw> drawn;
    for (Index c = 0; c < channels; ++c, base += 64) {
      const auto happens = [&](Index k, float chance) { return random.uniform(base + k) < chance; };
      IntensityDraw one;
      one.bright = happens(0, how.brightness_chance);
      one.contrasted = happens(1, how.contrast_chance);
      one.gamma = happens(2, how.gamma_chance), one.noisy = happens(3, how.noise_chance);
      if (one.gamma) one.power = random.uniform(base + 4, how.gamma_low, how.gamma_high);
      if (one.bright)
        one.multiply = random.uniform(base + 5, 1 - how.brightness, 1 + how.brightness);
      if (one.contrasted)
        one.stretch = random.uniform(base + 6, 1 - how.contrast, 1 + how.contrast);
      // The sum of four random bytes is close enough to normal for noise: deviation 147.8.
      if (one.noisy) one.noise = random.uniform(base + 7, 0, how.noise) / 147.80f;
      one.random = random, one.noise_from = (base + 1) << 32;
      if (happens(8, how.blur_chance))
        for (Index k = 0; k < 3; ++k)
          one.sharpness.blur[k] =
              BlurTaps::of(random.uniform(base + 9 + k, how.blur_low, how.blur_high));
      if (happens(12, how.low_resolution_chance))
        one.sharpness.left = random.uniform(base + 13, how.low_resolution, 1);
      drawn.push_back(one);
    }
    return drawn;
  }

  SEGMED_HD static float grain(std::uint32_t word) {
    const std::uint32_t pair = (word & 0x00FF00FFu) + (word >> 8 & 0x00FF00FFu);
    return float(std::int32_t((pair & 0xFFFFu) + (pair >> 16)) - 510);
  }
};

/// Extremes and sums of the voxels of a channel.
struct VoxelMoments {
  double sum = 0, square = 0;
  float least = 0, most = 0;

  SEGMED_HD void add(float value) {
    least = value < least ? value : least, most = value > most ? value : most;
    sum += double(value), square += double(value) * double(value);
  }
};

/// How intensities change by their moments: gamma between the extremes, after which mean and
/// deviation are brought back; then contrast about the mean, within the extremes, and brightness.
struct Tone {
  static constexpr Index steps = 1024;  // of the table of powers
  bool raises = false;
  float from = 0, scale = 0, widen = 1, shift = 0;
  float least = 0, most = 0, middle = 0, stretch = 1, multiply = 1;

  SEGMED_HD static Tone of(const IntensityDraw& draw, const VoxelMoments& seen, double count) {
    Tone tone;
    tone.raises = draw.gamma && seen.most > seen.least;
    tone.from = tone.least = seen.least, tone.most = seen.most;
    if (tone.raises) tone.scale = float(steps) / (seen.most - seen.least);
    tone.middle = float(seen.sum / count), tone.stretch = draw.stretch;
    tone.multiply = draw.multiply;
    return tone;
  }
  /// Takes in the moments of what `raised` gives.
  SEGMED_HD void settle(const VoxelMoments& seen, const VoxelMoments& raised, double count) {
    const double mean = seen.sum / count, new_mean = raised.sum / count;
    const double variance = seen.square / count - mean * mean;
    const double new_variance = raised.square / count - new_mean * new_mean;
    const double kept = variance > 0 ? variance : 0;
    widen = new_variance > 1e-12 ? float(std::sqrt(kept / new_variance)) : 1.0f;
    shift = float(mean) - float(new_mean) * widen;
    least = shift, most = widen + shift;
  }

  /// The powers of the places between the extremes.
  static std::array<float, steps + 2> table(float power) {
    std::array<float, steps + 2> powers{};
    for (Index i = 0; i < steps + 2; ++i)
      powers[std::size_t(i)] = std::pow(float(i) / float(steps), power);
    return powers;
  }
  SEGMED_HD float raised(const float* powers, float value) const {
    const float at = (value - from) * scale;
    const std::int32_t low = std::int32_t(at);
    return powers[low] + (at - float(low)) * (powers[low + 1] - powers[low]);
  }
  SEGMED_HD float settled(float value) const { return value * widen + shift; }
  SEGMED_HD float contrasted(float value) const {
    const float to = (value - middle) * stretch + middle;
    return (to < least ? least : to > most ? most : to) * multiply;
  }
};

/// Calls a kernel for all of its cells, on the calling thread alone: a loader's threads do not work
/// together.
template <class Kernel>
void each_cell(Index rows, Index columns, const Kernel& kernel) {
  for (Index row = 0; row < rows; ++row) {
    Index c = 0;
    if constexpr (requires { kernel.template columns<8>(row, c); })
      for (; c + 8 <= columns; c += 8) kernel.template columns<8>(row, c);
    for (; c < columns; ++c) kernel(row, c);
  }
}

/// Makes a patch less sharp in place.
inline void change_sharpness(std::vector<float>& image, const Extent3& extent,
                             const std::vector<IntensityDraw>& draws) {
  std::vector<Sharpness> how;
  bool blurs = false, lowers = false;
  for (const IntensityDraw& draw : draws) {
    how.push_back(draw.sharpness);
    blurs = blurs || draw.sharpness.blurred(), lowers = lowers || draw.sharpness.lowered();
  }
  if (!blurs && !lowers) return;
  std::vector<float> other(image.size());
  const Index rows = extent[1] * extent[2], channels = Index(draws.size());
  for (int axis = 0; blurs && axis < 3; ++axis) {
    each_cell(rows, extent[0],
              BlurAxis{how.data(),
                       axis,
                       {extent[0], extent[1], extent[2]},
                       channels,
                       image.data(),
                       other.data()});
    image.swap(other);
  }
  if (!lowers) return;
  each_cell(
      rows, extent[0],
      LowerResolution{
          how.data(), {extent[0], extent[1], extent[2]}, channels, image.data(), other.data()});
  image.swap(other);
}

/// Changes the intensities of a patch in place, each channel by itself.
///
///   shapes   image (z, y, x, channels); one draw per channel
inline void change_intensity(std::vector<float>& image, const Extent3& extent,
                             const std::vector<IntensityDraw>& draws) {
  change_sharpness(image, extent, draws);
  const Index channels = Index(draws.size()), count = Index(image.size()) / channels;
  for (Index c = 0; c < channels; ++c) {
    const IntensityDraw& draw = draws[std::size_t(c)];
    float* first = image.data() + c;
    VoxelMoments seen{0, 0, first[0], first[0]};
    for (Index i = 0; draw.asks_moments() && i < count; ++i) seen.add(first[i * channels]);
    Tone tone = Tone::of(draw, seen, double(count));
    if (tone.raises) {
      const auto powers = Tone::table(draw.power);
      VoxelMoments raised;
      for (Index i = 0; i < count; ++i) {
        float& value = first[i * channels];
        value = tone.raised(powers.data(), value);
        raised.add(value);
      }
      tone.settle(seen, raised, double(count));
      for (Index i = 0; i < count; ++i) first[i * channels] = tone.settled(first[i * channels]);
    }
    if (draw.contrasted) {
      for (Index i = 0; i < count; ++i) first[i * channels] = tone.contrasted(first[i * channels]);
    } else if (draw.bright) {
      for (Index i = 0; i < count; ++i) first[i * channels] *= draw.multiply;
    }
    if (draw.noisy)
      for (Index i = 0; i < count; i += 4) {
        const Philox::Words bits = draw.random.bits(draw.noise_from + i / 4);
        for (Index k = 0; k < std::min<Index>(4, count - i); ++k)
          first[(i + k) * channels] += draw.noise * IntensityDraw::grain(bits.word[k]);
      }
  }
}

}  // namespace segmed
