// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include <segmed/data/example.hpp>
#include <segmed/data/placement.hpp>
#include <segmed/data/scan_box.hpp>

namespace segmed {

/// A value for each channel: the last one given goes on, and 0 stands for none.
inline std::vector<float> outside_of(const std::vector<float>& given, Index channels) {
  std::vector<float> outside(std::size_t(channels), given.empty() ? 0.0f : given.back());
  std::copy_n(given.begin(), std::min(given.size(), outside.size()), outside.begin());
  return outside;
}

/// Reads a patch out of a scan: `outside` (one value a channel) and `ignored` beyond its border;
/// labels go through `map`. A scan without labels gives `ignored` everywhere.
class PatchReader {
 public:
  PatchReader(const Example& example, const Placement& placement, const Extent3& extent,
              const std::vector<float>& outside, const std::array<std::uint8_t, 256>& map)
      : placement_(placement),
        extent_(extent),
        outside_(outside_of(outside, example.image.channels)),
        map_(map) {
    box_.voxels = example.image.voxels.data();
    box_.labels = example.labels.empty() ? nullptr : example.labels.voxels.data();
    box_.outside = outside_.data(), box_.renamed = map_.data();
    for (std::size_t k = 0; k < 3; ++k)
      box_.scan[k] = box_.extent[k] = example.image.extent[k], box_.first[k] = 0;
    box_.channels = example.image.channels;
    in_eights_ = box_.channels == 1 && example.image.grid_size() <= (Index{1} << 31) - 1;
  }

  void read(std::vector<float>& image, std::vector<std::uint8_t>& labels) {
    const Index count = extent_[0] * extent_[1] * extent_[2], channels = box_.channels;
    image.resize(std::size_t(count * channels));
    labels.resize(std::size_t(count));
    const bool elastic = !placement_.elastic.empty();
    if (elastic) begin_elastic();
    for (Index z = 0; z < extent_[2]; ++z)
      for (Index y = 0; y < extent_[1]; ++y) {
        const Index row = (z * extent_[1] + y) * extent_[0];
        float* to = &image[std::size_t(row * channels)];
        std::uint8_t* label = &labels[std::size_t(row)];
        if (elastic)
          elastic_row(y, z, to, label);
        else if (placement_.bent)
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
    const Index step = placement_.step[0][0] < 0 ? -1 : 1, channels = box_.channels;
    const bool beside =
        from[1] < 0 || from[1] >= box_.scan[1] || from[2] < 0 || from[2] >= box_.scan[2];
    for (Index x = 0; x < extent_[0]; ++x) {
      const Index sx = from[0] + step * x;
      if (beside || sx < 0 || sx >= box_.scan[0])
        box_.blank(to + x * channels, label[x]);
      else
        box_.take((from[2] * box_.scan[1] + from[1]) * box_.scan[0] + sx, to + x * channels,
                  label[x]);
    }
  }
  /// Where a row begins.
  std::array<float, 3> start_of(Index y, Index z) const {
    const float ox = -0.5f * float(extent_[0] - 1), oy = float(y) - 0.5f * float(extent_[1] - 1),
                oz = float(z) - 0.5f * float(extent_[2] - 1);
    std::array<float, 3> start{};
    for (std::size_t k = 0; k < 3; ++k)
      start[k] = placement_.center[k] + ox * placement_.step[0][k] + oy * placement_.step[1][k] +
                 oz * placement_.step[2][k];
    return start;
  }
  /// A row at an angle: interpolated.
  void bent_row(Index y, Index z, float* to, std::uint8_t* label) const {
    const std::array<float, 3> start = start_of(y, z), step = placement_.step[0];
    float first = 0, last = float(extent_[0]);  // where all eight neighbors exist
    for (std::size_t k = 0; k < 3; ++k) {
      const float low = 0.01f - start[k], high = float(box_.scan[k] - 1) - 0.01f - start[k];
      if (high < low) last = 0;  // a scan of one voxel
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
    const auto border = [&](Index x) {
      box_.interpolate({start[0] + float(x) * step[0], start[1] + float(x) * step[1],
                        start[2] + float(x) * step[2]},
                       to + x * box_.channels, label[x]);
    };
    for (Index i = 0; i < begin; ++i) border(i);
    Index x = begin;
    if (in_eights_)
      for (; x + lanes <= end; x += lanes) {
        Places at;
        for (std::size_t k = 0; k < 3; ++k)
          for (int i = 0; i < lanes; ++i)
            at[k][i] = start[k] + float(std::int32_t(x) + i) * step[k];
        inner_lanes(at, to + x, label + x);
      }
    for (; x < end; ++x)
      inner(start[0] + float(x) * step[0], start[1] + float(x) * step[1],
            start[2] + float(x) * step[2], to + x * box_.channels, label[x]);
    for (x = end; x < extent_[0]; ++x) border(x);
  }
  /// What all rows of an elastic patch have in common.
  void begin_elastic() {
    const ControlLattice lattice = placement_.elastic.lattice(placement_.elastic.by.data());
    taps_.resize(std::size_t(extent_[0]));
    for (Index x = 0; x < extent_[0]; ++x) taps_[std::size_t(x)] = lattice.tap(0, x);
    sums_.resize(std::size_t(3 * lattice.points[0]));
  }
  /// A row of displaced voxels: each has a place of its own.
  void elastic_row(Index y, Index z, float* to, std::uint8_t* label) {
    const ControlLattice lattice = placement_.elastic.lattice(placement_.elastic.by.data());
    const SplineTap at_y = lattice.tap(1, y), at_z = lattice.tap(2, z);
    for (Index column = 0; column < lattice.points[0]; ++column)
      lattice.gather(at_y, at_z, column, &sums_[std::size_t(3 * column)]);
    const std::array<float, 3> start = start_of(y, z);
    const auto& step = placement_.step;
    Index x = 0;
    while (x < extent_[0]) {
      const int count = int(std::min<Index>(lanes, extent_[0] - x));
      Places at{};
      bool within = true;
      for (int i = 0; i < count; ++i) {
        const SplineTap& tap = taps_[std::size_t(x + i)];
        float moved[3];
        ControlLattice::blend(tap, &sums_[std::size_t(3 * tap.first)], moved);
        for (std::size_t k = 0; k < 3; ++k) {
          at[k][i] = start[k] + float(x + i) * step[0][k] + moved[0] * step[0][k] +
                     moved[1] * step[1][k] + moved[2] * step[2][k];
          within = within && at[k][i] >= 0 && at[k][i] < float(box_.scan[k] - 1);
        }
      }
      if (within && in_eights_ && count == lanes) {
        inner_lanes(at, to + x, label + x);
      } else {
        for (int i = 0; i < count; ++i) {
          float* const place = to + (x + i) * box_.channels;
          if (within)
            inner(at[0][i], at[1][i], at[2][i], place, label[x + i]);
          else
            box_.interpolate({at[0][i], at[1][i], at[2][i]}, place, label[x + i]);
        }
      }
      x += count;
    }
  }
  static constexpr int lanes = 8;
  using Places = float[3][lanes];
  /// Eight voxels of one channel all of whose neighbors exist. Loops of one step each, of which a
  /// compiler makes vectors.
  void inner_lanes(const Places& at, float* to, std::uint8_t* label) const {
    const auto line = std::int32_t(box_.scan[0]), slice = std::int32_t(box_.scan[0] * box_.scan[1]);
    std::int32_t base[lanes], nearest[lanes];
    float fx[lanes], fy[lanes], fz[lanes];
    for (int i = 0; i < lanes; ++i) {
      const auto ix = std::int32_t(at[0][i]), iy = std::int32_t(at[1][i]),
                 iz = std::int32_t(at[2][i]);
      fx[i] = at[0][i] - float(ix), fy[i] = at[1][i] - float(iy), fz[i] = at[2][i] - float(iz);
      base[i] = iz * slice + iy * line + ix;
      nearest[i] = base[i] + (fx[i] >= 0.5f ? 1 : 0) + (fy[i] >= 0.5f ? line : 0) +
                   (fz[i] >= 0.5f ? slice : 0);
    }
    const float* const voxels = box_.voxels;
    for (int i = 0; i < lanes; ++i) {
      const float* v = voxels + base[i];
      const auto along = [&](const float* p) { return p[0] + fx[i] * (p[1] - p[0]); };
      const float a = along(v), b = along(v + line), d = along(v + slice),
                  e = along(v + slice + line);
      const float low = a + fy[i] * (b - a), high = d + fy[i] * (e - d);
      to[i] = low + fz[i] * (high - low);
    }
    const std::uint8_t *labels = box_.labels, *renamed = box_.renamed;
    for (int i = 0; i < lanes; ++i) label[i] = labels ? renamed[labels[nearest[i]]] : ignored;
  }
  /// A voxel all of whose eight neighbors exist.
  void inner(float px, float py, float pz, float* to, std::uint8_t& label) const {
    const Index channels = box_.channels, line = box_.scan[0], slice = line * box_.scan[1];
    const auto ix = std::int32_t(px), iy = std::int32_t(py), iz = std::int32_t(pz);
    const float fx = px - float(ix), fy = py - float(iy), fz = pz - float(iz);
    const Index voxel = iz * slice + iy * line + ix;
    for (Index c = 0; c < channels; ++c) {
      const float* v = box_.voxels + voxel * channels + c;
      const auto along = [&](const float* p) { return p[0] + fx * (p[channels] - p[0]); };
      const float a = along(v), b = along(v + line * channels), d = along(v + slice * channels),
                  e = along(v + (slice + line) * channels);
      const float low = a + fy * (b - a), high = d + fy * (e - d);
      to[c] = low + fz * (high - low);
    }
    label = box_.labels
                ? box_.renamed[box_.labels[voxel + (fx >= 0.5f ? 1 : 0) + (fy >= 0.5f ? line : 0) +
                                           (fz >= 0.5f ? slice : 0)]]
                : ignored;
  }

  const Placement& placement_;
  const Extent3& extent_;
  std::vector<float> outside_;
  const std::array<std::uint8_t, 256>& map_;
  ScanBox box_{};
  bool in_eights_ = false;       // one channel, whose voxels 32 bits can count
  std::vector<SplineTap> taps_;  // of an elastic patch: at each x
  std::vector<float> sums_;      // likewise: of the points along x, in one row
};

}  // namespace segmed
