// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include <segmed/backend/parallel.hpp>
#include <segmed/core/config.hpp>
#include <segmed/core/random.hpp>
#include <segmed/image/volume.hpp>

namespace segmed::phantom {

/// The random choices of one generated patient, one after the other.
struct Draws {
  Philox random;
  Index next = 0;
  float uniform(float low, float high) { return random.uniform(next++, low, high); }
  float normal(float mean, float deviation) { return mean + deviation * random.normal(next++); }
  bool chance(float probability) { return random.uniform(next++) < probability; }
  Index below(Index n) { return random.below(next++, n); }
};

/// Smooth noise of mean 0 and deviation 1: a cubic B-spline over random knots.
class SmoothField {
 public:
  /// `step` is the distance between knots, in voxels.
  SmoothField(const Extent3& extent, double step, const Philox& random) : step_(step) {
    for (std::size_t k = 0; k < 3; ++k) knots_[k] = Index(double(extent[k]) / step) + 4;
    values_.resize(std::size_t(knots_[0] * knots_[1] * knots_[2]));
    // The knots' weights make a sum of deviation 0.332 on average.
    for (std::size_t i = 0; i < values_.size(); ++i)
      values_[i] = random.normal(Index(i)) * (1 / 0.332f);
    for (Index x = 0; x < extent[0]; ++x) along_x_.push_back(taps(x));
  }

  /// Writes the values of the row of voxels (0..., y, z).
  void row(Index y, Index z, float* out) const {
    const Taps ty = taps(y), tz = taps(z);
    std::vector<float> line(static_cast<std::size_t>(knots_[0]), 0.0f);
    for (std::size_t j = 0; j < 4; ++j)
      for (std::size_t i = 0; i < 4; ++i) {
        const float weight = ty.weight[i] * tz.weight[j];
        const float* knot = &values_[std::size_t(
            ((tz.first + Index(j)) * knots_[1] + ty.first + Index(i)) * knots_[0])];
        for (std::size_t k = 0; k < line.size(); ++k) line[k] += weight * knot[k];
      }
    for (std::size_t x = 0; x < along_x_.size(); ++x) {
      const Taps& t = along_x_[x];
      const float* from = &line[std::size_t(t.first)];
      out[x] = t.weight[0] * from[0] + t.weight[1] * from[1] + t.weight[2] * from[2] +
               t.weight[3] * from[3];
    }
  }

 private:
  struct Taps {
    Index first;
    float weight[4];
  };
  Taps taps(Index voxel) const {
    const double at = double(voxel) / step_;
    const Index first = Index(at);
    const float t = float(at - double(first)), s = 1 - t;
    return {first,
            {s * s * s / 6, (3 * t * t * t - 6 * t * t + 4) / 6,
             (3 * s * s * s - 6 * s * s + 4) / 6, t * t * t / 6}};
  }

  double step_;
  Extent3 knots_{};
  std::vector<float> values_;
  std::vector<Taps> along_x_;
};

/// A position in the patient, in mm: x to the right, y to the front, z to the head.
struct Spot {
  float x = 0, y = 0, z = 0;
};

/// An ellipsoid with three half axes, turned about z and then about y (degrees).
struct Blob {
  Spot center, half;
  float about_z = 0, about_y = 0;

  struct Ready {
    Spot center, scale;
    float cz, sz, cy, sy;
    /// Below 1 inside, growing with the square of the distance.
    float operator()(float x, float y, float z) const {
      x -= center.x, y -= center.y, z -= center.z;
      const float u = cz * x + sz * y, v = cz * y - sz * x;
      const float w = cy * u - sy * z, t = cy * z + sy * u;
      const float a = w * scale.x, b = v * scale.y, c = t * scale.z;
      return a * a + b * b + c * c;
    }
  };
  Ready ready() const {
    const float degree = 0.0174532925f;
    return {center,
            {1 / half.x, 1 / half.y, 1 / half.z},
            std::cos(about_z * degree),
            std::sin(about_z * degree),
            std::cos(about_y * degree),
            std::sin(about_y * degree)};
  }
  void bounds(Spot& low, Spot& high) const {
    const float reach = std::max({half.x, half.y, half.z});
    low = {center.x - reach, center.y - reach, center.z - reach};
    high = {center.x + reach, center.y + reach, center.z + reach};
  }
};

/// A string of balls joined into a tube; `radius` belongs to the points one by one.
struct Tube {
  std::vector<Spot> points;
  std::vector<float> radius;

  struct Ready {
    const Tube* tube;
    float operator()(float x, float y, float z) const {
      float least = 1e9f;
      const auto& p = tube->points;
      for (std::size_t i = 0; i + 1 < p.size(); ++i) {
        const float dx = p[i + 1].x - p[i].x, dy = p[i + 1].y - p[i].y, dz = p[i + 1].z - p[i].z;
        const float ex = x - p[i].x, ey = y - p[i].y, ez = z - p[i].z;
        const float length = dx * dx + dy * dy + dz * dz;
        const float t = std::clamp((dx * ex + dy * ey + dz * ez) / length, 0.0f, 1.0f);
        const float r = tube->radius[i] + t * (tube->radius[i + 1] - tube->radius[i]);
        const float fx = ex - t * dx, fy = ey - t * dy, fz = ez - t * dz;
        least = std::min(least, (fx * fx + fy * fy + fz * fz) / (r * r));
      }
      return least;
    }
  };
  Ready ready() const { return {this}; }
  void bounds(Spot& low, Spot& high) const {
    low = {1e9f, 1e9f, 1e9f}, high = {-1e9f, -1e9f, -1e9f};
    for (std::size_t i = 0; i < points.size(); ++i) {
      low = {std::min(low.x, points[i].x - radius[i]), std::min(low.y, points[i].y - radius[i]),
             std::min(low.z, points[i].z - radius[i])};
      high = {std::max(high.x, points[i].x + radius[i]), std::max(high.y, points[i].y + radius[i]),
              std::max(high.z, points[i].z + radius[i])};
    }
  }
};

/// A patient's space, sampled on a grid: where in the (bent and scaled) body each voxel lies, and
/// the tissue that was painted there last.
class Canvas {
 public:
  struct Shape {
    double spacing;     // mm
    Spot scale, shift;  // of the body against the standard one; shift in mm
    float bend = 6;     // deviation of the bending, mm
  };

  Canvas(const Extent3& extent, const Shape& shape, const Philox& random)
      : tissue(make_volume<std::uint8_t>(extent, centered(extent, shape.spacing))),
        shape_(shape),
        x_(tissue.voxels.size()),
        y_(x_),
        z_(x_),
        bump_(x_) {
    const auto field = [&](std::uint32_t number, double step_mm) {
      Philox own = random;
      own.draw = number;
      return SmoothField(extent, step_mm / shape.spacing, own);
    };
    const SmoothField bend_x = field(1, 70), bend_y = field(2, 70), bend_z = field(3, 70),
                      bump = field(4, 22);
    parallel_for(extent[2], 4, [&](Index begin, Index end) {
      for (Index z = begin; z < end; ++z)
        for (Index y = 0; y < extent[1]; ++y) {
          const auto row = std::size_t(tissue.index(0, y, z));
          bend_x.row(y, z, &x_[row]);
          bend_y.row(y, z, &y_[row]);
          bend_z.row(y, z, &z_[row]);
          bump.row(y, z, &bump_[row]);
          const float my = position(1, y, shape.shift.y), mz = position(2, z, shape.shift.z);
          for (Index x = 0; x < extent[0]; ++x) {
            const auto i = row + std::size_t(x);
            x_[i] = (position(0, x, shape.shift.x) + shape.bend * x_[i]) / shape.scale.x;
            y_[i] = (my + shape.bend * y_[i]) / shape.scale.y;
            z_[i] = (mz + shape.bend * z_[i]) / shape.scale.z;
          }
        }
    });
  }

  /// Calls choose(x, y, z, bump, tissue) for each voxel; what it returns is the tissue there.
  template <class Choose>
  void each(const Choose& choose) {
    parallel_for(tissue.extent[2], 4, [&](Index begin, Index end) {
      const auto first = std::size_t(tissue.index(0, 0, begin));
      const auto last = std::size_t(tissue.index(0, 0, end));
      for (std::size_t i = first; i < last; ++i)
        tissue.voxels[i] = choose(x_[i], y_[i], z_[i], bump_[i], tissue.voxels[i]);
    });
  }

  /// Paints a shape whose surface is lumpy by `lumps` (a part of its size). Where the shape is,
  /// choose(x, y, z, depth, tissue) gives the tissue; depth is 0 in the middle and 1 at the
  /// surface.
  template <class Solid, class Choose>
  void paint(const Solid& solid, float lumps, const Choose& choose) {
    Spot low, high;
    solid.bounds(low, high);
    const auto inside = solid.ready();
    const float margin = 3.5f * shape_.bend, growth = 1 + 3 * lumps;
    const std::array<float, 3> lows = {low.x, low.y, low.z}, highs = {high.x, high.y, high.z};
    const std::array<float, 3> scale = {shape_.scale.x, shape_.scale.y, shape_.scale.z};
    const std::array<float, 3> shift = {shape_.shift.x, shape_.shift.y, shape_.shift.z};
    Extent3 first{}, last{};
    for (std::size_t k = 0; k < 3; ++k) {
      const float middle = (lows[k] + highs[k]) / 2, reach = (highs[k] - lows[k]) / 2 * growth;
      first[k] = voxel(k, (middle - reach) * scale[k] - margin, shift[k]);
      last[k] = voxel(k, (middle + reach) * scale[k] + margin, shift[k]) + 1;
    }
    if (first[0] >= last[0] || first[1] >= last[1] || first[2] >= last[2]) return;
    parallel_for(last[2] - first[2], 4, [&](Index begin, Index end) {
      for (Index z = first[2] + begin; z < first[2] + end; ++z)
        for (Index y = first[1]; y < last[1]; ++y) {
          const auto row = std::size_t(tissue.index(0, y, z));
          for (auto i = row + std::size_t(first[0]); i < row + std::size_t(last[0]); ++i) {
            const float depth = inside(x_[i], y_[i], z_[i]) * (1 - lumps * bump_[i]);
            if (depth < 1) tissue.voxels[i] = choose(x_[i], y_[i], z_[i], depth, tissue.voxels[i]);
          }
        }
    });
  }

  Volume<std::uint8_t> tissue;

 private:
  static Geometry centered(const Extent3& extent, double spacing) {
    Geometry made = Geometry::of_spacing(spacing, spacing, spacing);
    for (int k = 0; k < 3; ++k)
      made.affine(k, 3) = -spacing * double(extent[std::size_t(k)] - 1) / 2;
    return made;
  }
  float position(std::size_t axis, Index at, float shift) const {
    return float((double(at) - double(tissue.extent[axis] - 1) / 2) * shape_.spacing) - shift;
  }
  Index voxel(std::size_t axis, float mm, float shift) const {
    const double at = double(mm + shift) / shape_.spacing + double(tissue.extent[axis] - 1) / 2;
    return std::clamp<Index>(Index(std::floor(at)), 0, tissue.extent[axis] - 1);
  }

  Shape shape_;
  std::vector<float> x_, y_, z_, bump_;
};

}  // namespace segmed::phantom
