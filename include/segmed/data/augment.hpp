// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include <segmed/data/example.hpp>

namespace segmed {

/// Changes of intensity, each made with its own chance and a strength drawn from its range. They
/// are meant for normalized scans.
struct IntensityChange {
  float brightness_chance = 0.15f, brightness = 0.25f;  // times 1 - b to 1 + b
  float contrast_chance = 0.15f, contrast = 0.25f;      // about the mean, within the range
  float gamma_chance = 0.3f, gamma_low = 0.7f, gamma_high = 1.5f;  // mean and deviation stay
  float noise_chance = 0.15f, noise = 0.1f;                        // deviation, from 0 to this

  /// Stronger and almost always: the other view that consistency methods ask for.
  static IntensityChange strong() {
    return {0.8f, 0.4f, 0.8f, 0.4f, 0.8f, 0.5f, 2.0f, 0.8f, 0.25f};
  }
};

/// How training patches are varied. Places first: flips, rotation and scale together are one
/// resampling, linear for the scan and nearest for the labels; then intensities.
struct Augment {
  // Chance along x (which swaps sides), y and z. None by default: anatomy is not symmetric, and
  // learning its mirror images as well takes more steps (docs/results.md).
  std::array<float, 3> flip = {0, 0, 0};
  float turn_chance = 0.6f, turn_degrees = 20;  // about each of the three axes
  float scale_chance = 0.6f, scale_low = 0.75f, scale_high = 1.33f;
  IntensityChange weak = {};
  IntensityChange strong = IntensityChange::strong();

  /// No change at all.
  static Augment none() {
    Augment still;
    still.flip = {0, 0, 0};
    still.turn_chance = still.scale_chance = 0;
    still.weak.brightness_chance = still.weak.contrast_chance = 0;
    still.weak.gamma_chance = still.weak.noise_chance = 0;
    return still;
  }
};

/// Where the voxels of a patch lie in a scan: its middle, and the way of one step along each of the
/// patch's axes, both in the scan's voxels.
struct Placement {
  std::array<float, 3> center{};
  std::array<std::array<float, 3>, 3> step{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};  // step[axis]
  bool bent = false;      // rotated or scaled; else only flipped
  bool mirrored = false;  // left and right change places

  /// Draws flips, rotation and scale for a patch. The scan's axes run R, A, S.
  static Placement draw(const Augment& augment, const std::array<double, 3>& spacing_mm,
                        const Philox& random, Index base) {
    Placement placement;
    std::array<float, 3> sign{};
    for (std::size_t k = 0; k < 3; ++k)
      sign[k] = random.uniform(base + Index(k)) < augment.flip[k] ? -1.0f : 1.0f;
    const bool turned = random.uniform(base + 3) < augment.turn_chance;
    const bool scaled = random.uniform(base + 4) < augment.scale_chance;
    placement.bent = turned || scaled;
    placement.mirrored = sign[0] < 0;
    std::array<std::array<float, 3>, 3> m{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
    for (std::size_t k = 0; turned && k < 3; ++k) {
      const float most = augment.turn_degrees * 0.0174532925f;
      const float angle = random.uniform(base + 5 + Index(k), -most, most);
      const float c = std::cos(angle), s = std::sin(angle);
      const std::size_t a = (k + 1) % 3, b = (k + 2) % 3;
      for (auto& column : m) {
        const float u = column[a], v = column[b];
        column[a] = c * u - s * v, column[b] = s * u + c * v;
      }
    }
    const float grow =
        scaled ? 1 / random.uniform(base + 8, augment.scale_low, augment.scale_high) : 1.0f;
    // Angles are angles in mm, so a step is measured in mm and brought back to voxels.
    for (std::size_t axis = 0; axis < 3; ++axis)
      for (std::size_t k = 0; k < 3; ++k)
        placement.step[axis][k] =
            sign[axis] * grow * m[axis][k] * float(spacing_mm[axis] / spacing_mm[k]);
    return placement;
  }
};

/// Reads a patch out of a scan: `outside` (one value a channel) and `ignored` beyond its border;
/// labels go through `map`. A scan without labels gives `ignored` everywhere.
class PatchReader {
 public:
  PatchReader(const Example& example, const Placement& placement, const Extent3& extent,
              const std::vector<float>& outside, const std::array<std::uint8_t, 256>& map)
      : image_(example.image),
        labels_(example.labels),
        placement_(placement),
        extent_(extent),
        outside_(outside),
        map_(map) {}

  void read(std::vector<float>& image, std::vector<std::uint8_t>& labels) const {
    const Index count = extent_[0] * extent_[1] * extent_[2], channels = image_.channels;
    image.resize(std::size_t(count * channels));
    labels.resize(std::size_t(count));
    for (Index z = 0; z < extent_[2]; ++z)
      for (Index y = 0; y < extent_[1]; ++y) {
        const Index row = (z * extent_[1] + y) * extent_[0];
        float* to = &image[std::size_t(row * channels)];
        std::uint8_t* label = &labels[std::size_t(row)];
        if (placement_.bent)
          bent_row(y, z, to, label);
        else
          plain_row(y, z, to, label);
      }
  }

 private:
  /// A row of voxels that fall on voxels.
  void plain_row(Index y, Index z, float* to, std::uint8_t* label) const {
    const std::array<Index, 3> at = {0, y, z};
    std::array<Index, 3> from{};
    for (std::size_t k = 0; k < 3; ++k) {
      const Index offset = placement_.step[k][k] < 0 ? extent_[k] - 1 - at[k] : at[k];
      from[k] = Index(placement_.center[k]) - extent_[k] / 2 + offset;
    }
    const Index step = placement_.step[0][0] < 0 ? -1 : 1, channels = image_.channels;
    const bool beside =
        from[1] < 0 || from[1] >= image_.extent[1] || from[2] < 0 || from[2] >= image_.extent[2];
    for (Index x = 0; x < extent_[0]; ++x) {
      const Index sx = from[0] + step * x;
      if (beside || sx < 0 || sx >= image_.extent[0]) {
        blank(to + x * channels, label[x]);
        continue;
      }
      const Index voxel = (from[2] * image_.extent[1] + from[1]) * image_.extent[0] + sx;
      std::copy_n(&image_.voxels[std::size_t(voxel * channels)], channels, to + x * channels);
      label[x] = labels_.empty() ? ignored : map_[labels_.voxels[std::size_t(voxel)]];
    }
  }
  /// A row at an angle: interpolated.
  void bent_row(Index y, Index z, float* to, std::uint8_t* label) const {
    std::array<float, 3> start{}, step = placement_.step[0];
    const float ox = -0.5f * float(extent_[0] - 1), oy = float(y) - 0.5f * float(extent_[1] - 1),
                oz = float(z) - 0.5f * float(extent_[2] - 1);
    float first = 0, last = float(extent_[0]);  // where all eight neighbors exist
    for (std::size_t k = 0; k < 3; ++k) {
      start[k] = placement_.center[k] + ox * step[k] + oy * placement_.step[1][k] +
                 oz * placement_.step[2][k];
      const float low = 0.01f - start[k], high = float(image_.extent[k] - 1) - 0.01f - start[k];
      if (std::abs(step[k]) < 1e-6f) {
        if (low > 0 || high < 0) last = 0;
        continue;
      }
      const float inverse = 1 / step[k];
      first = std::max(first, std::min(low * inverse, high * inverse));
      last = std::min(last, std::max(low * inverse, high * inverse));
    }
    Index begin = std::min(extent_[0], Index(std::ceil(first)));
    Index end = last > first ? std::min(extent_[0], Index(std::floor(last)) + 1) : 0;
    if (end <= begin) begin = end = extent_[0];
    for (Index x = 0; x < begin; ++x) border(x, start, step, to, label);
    const Index channels = image_.channels, line = image_.extent[0],
                slice = line * image_.extent[1];
    const float* voxels = image_.voxels.data();
    const std::uint8_t* classes = labels_.voxels.data();
    for (Index x = begin; x < end; ++x) {
      const float px = start[0] + float(x) * step[0], py = start[1] + float(x) * step[1],
                  pz = start[2] + float(x) * step[2];
      const auto ix = std::int32_t(px), iy = std::int32_t(py), iz = std::int32_t(pz);
      const float fx = px - float(ix), fy = py - float(iy), fz = pz - float(iz);
      const Index voxel = iz * slice + iy * line + ix;
      for (Index c = 0; c < channels; ++c) {
        const float* v = voxels + voxel * channels + c;
        const auto along = [&](const float* p) { return p[0] + fx * (p[channels] - p[0]); };
        const float a = along(v), b = along(v + line * channels), d = along(v + slice * channels),
                    e = along(v + (slice + line) * channels);
        const float low = a + fy * (b - a), high = d + fy * (e - d);
        to[x * channels + c] = low + fz * (high - low);
      }
      if (!labels_.empty())
        label[x] = map_[classes[voxel + (fx >= 0.5f ? 1 : 0) + (fy >= 0.5f ? line : 0) +
                                (fz >= 0.5f ? slice : 0)]];
      else
        label[x] = ignored;
    }
    for (Index x = end; x < extent_[0]; ++x) border(x, start, step, to, label);
  }
  /// A voxel near or beyond the scan's border: within half a voxel the border's value goes on.
  void border(Index x, const std::array<float, 3>& start, const std::array<float, 3>& step,
              float* to, std::uint8_t* label) const {
    const Index channels = image_.channels;
    Extent3 low{}, high{}, nearest{};
    std::array<float, 3> part{};
    for (std::size_t k = 0; k < 3; ++k) {
      const float most = float(image_.extent[k] - 1), at = start[k] + float(x) * step[k];
      if (!(at >= -0.5f && at <= most + 0.5f)) return blank(to + x * channels, label[x]);
      const float inside = std::clamp(at, 0.0f, most);
      low[k] = Index(inside), high[k] = std::min(low[k] + 1, image_.extent[k] - 1);
      part[k] = inside - float(low[k]);
      nearest[k] = part[k] >= 0.5f ? high[k] : low[k];
    }
    for (Index c = 0; c < channels; ++c) {
      float value = 0;
      for (int corner = 0; corner < 8; ++corner) {
        float weight = 1;
        Extent3 at{};
        for (std::size_t k = 0; k < 3; ++k) {
          const bool up = (corner >> k & 1) != 0;
          weight *= up ? part[k] : 1 - part[k];
          at[k] = up ? high[k] : low[k];
        }
        value += weight * image_.at(at[0], at[1], at[2], c);
      }
      to[x * channels + c] = value;
    }
    label[x] = labels_.empty() ? ignored : map_[labels_.at(nearest[0], nearest[1], nearest[2])];
  }
  void blank(float* to, std::uint8_t& label) const {
    for (Index c = 0; c < image_.channels; ++c)
      to[c] = outside_.empty() ? 0.0f : outside_[std::min(std::size_t(c), outside_.size() - 1)];
    label = ignored;
  }

  const Volume<float>& image_;
  const Volume<std::uint8_t>& labels_;
  const Placement& placement_;
  const Extent3& extent_;
  const std::vector<float>& outside_;
  const std::array<std::uint8_t, 256>& map_;
};

/// Changes the intensities of a patch in place, each channel by itself.
inline void change_intensity(std::vector<float>& image, Index channels, const IntensityChange& how,
                             const Philox& random, Index base) {
  const Index count = Index(image.size()) / channels;
  for (Index c = 0; c < channels; ++c, base += 64) {
    const auto happens = [&](Index k, float chance) { return random.uniform(base + k) < chance; };
    const bool bright = happens(0, how.brightness_chance);
    const bool contrasted = happens(1, how.contrast_chance);
    const bool gamma = happens(2, how.gamma_chance), noisy = happens(3, how.noise_chance);
    float* first = image.data() + c;
    float least = first[0], most = first[0];
    double sum = 0, square = 0;
    for (Index i = 0; (contrasted || gamma) && i < count; ++i) {
      const float value = first[i * channels];
      least = std::min(least, value), most = std::max(most, value);
      sum += double(value), square += double(value) * double(value);
    }
    const double mean = sum / double(count);
    if (gamma && most > least) {
      // A table: the power of a voxel's place between the extremes, then mean and deviation back.
      constexpr Index steps = 1024;
      std::array<float, steps + 2> table{};
      const float power = random.uniform(base + 4, how.gamma_low, how.gamma_high);
      for (Index i = 0; i < steps + 2; ++i)
        table[std::size_t(i)] = std::pow(float(i) / float(steps), power);
      const float scale = float(steps) / (most - least);
      double new_sum = 0, new_square = 0;
      for (Index i = 0; i < count; ++i) {
        float& value = first[i * channels];
        const float at = (value - least) * scale;
        const auto low = std::size_t(std::int32_t(at));
        value = table[low] + (at - float(std::int32_t(at))) * (table[low + 1] - table[low]);
        new_sum += double(value), new_square += double(value) * double(value);
      }
      const double new_mean = new_sum / double(count);
      const double variance = square / double(count) - mean * mean;
      const double new_variance = new_square / double(count) - new_mean * new_mean;
      const float widen =
          new_variance > 1e-12 ? float(std::sqrt(std::max(0.0, variance) / new_variance)) : 1.0f;
      const float shift = float(mean) - float(new_mean) * widen;
      least = shift, most = widen + shift;
      for (Index i = 0; i < count; ++i) first[i * channels] = first[i * channels] * widen + shift;
    }
    const float multiply =
        bright ? random.uniform(base + 5, 1 - how.brightness, 1 + how.brightness) : 1.0f;
    const float stretch =
        contrasted ? random.uniform(base + 6, 1 - how.contrast, 1 + how.contrast) : 1.0f;
    if (contrasted) {
      const float middle = float(mean);
      for (Index i = 0; i < count; ++i) {
        float& value = first[i * channels];
        value = std::clamp((value - middle) * stretch + middle, least, most) * multiply;
      }
    } else if (bright) {
      for (Index i = 0; i < count; ++i) first[i * channels] *= multiply;
    }
    if (noisy) {
      // The sum of four random bytes is close enough to normal for noise: deviation 147.8.
      const float deviation = random.uniform(base + 7, 0, how.noise) / 147.80f;
      const Index from = (base + 1) << 32;
      for (Index i = 0; i < count; i += 4) {
        const Philox::Words bits = random.bits(from + i / 4);
        for (Index k = 0; k < std::min<Index>(4, count - i); ++k) {
          const std::uint32_t word = bits.word[k];
          const std::uint32_t pair = (word & 0x00FF00FFu) + (word >> 8 & 0x00FF00FFu);
          const auto total = std::int32_t((pair & 0xFFFFu) + (pair >> 16)) - 510;
          first[(i + k) * channels] += deviation * float(total);
        }
      }
    }
  }
}

}  // namespace segmed
