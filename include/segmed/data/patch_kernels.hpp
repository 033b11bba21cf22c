// SPDX-License-Identifier: Apache-2.0
// What PatchReader and change_intensity do, for all patches of a batch on a device.
#pragma once
#include <segmed/backend/teams/sums.hpp>
#include <segmed/data/patch_source.hpp>

namespace segmed {

/// Reads patches out of their sources: the scan linearly, the labels by the nearest voxel.
///
///   shapes   image (patches, z, y, x, channels), labels without channels; rows patches * z * y,
///            columns x
struct ReadPatches {
  const SourceView* views;
  const float* numbers;
  const std::uint8_t* classes;
  Index extent[3], channels;
  float* image;
  std::uint8_t* labels;

  SEGMED_HD void operator()(Index row, Index x) const {
    const SourceView& view = views[row / (extent[1] * extent[2])];
    const Index at[3] = {x, row % extent[1], row / extent[1] % extent[2]};
    const ScanBox box = box_of(view);
    float* const to = image + (row * extent[0] + x) * channels;
    std::uint8_t& label = labels[row * extent[0] + x];
    if (!view.bent) return take(view, box, at, to, label);
    float place[3], moved[3] = {0, 0, 0};
    if (view.points[0] > 0) displace(view, at, moved);
    for (int k = 0; k < 3; ++k) {
      const float ox = -0.5f * float(extent[0] - 1),
                  oy = float(at[1]) - 0.5f * float(extent[1] - 1),
                  oz = float(at[2]) - 0.5f * float(extent[2] - 1);
      const float start =
          view.center[k] + ox * view.step[0][k] + oy * view.step[1][k] + oz * view.step[2][k];
      place[k] = start + float(x) * view.step[0][k] + moved[0] * view.step[0][k] +
                 moved[1] * view.step[1][k] + moved[2] * view.step[2][k];
    }
    box.interpolate(place, to, label);
  }

 private:
  SEGMED_HD ScanBox box_of(const SourceView& v) const {
    return {numbers + v.voxels,
            v.labelled ? classes + v.labels : nullptr,
            numbers + v.outside,
            v.renamed,
            {v.scan[0], v.scan[1], v.scan[2]},
            {v.first[0], v.first[1], v.first[2]},
            {v.extent[0], v.extent[1], v.extent[2]},
            channels};
  }
  /// A patch that was flipped at most: its voxels are voxels of the scan.
  SEGMED_HD void take(const SourceView& view, const ScanBox& box, const Index (&at)[3], float* to,
                      std::uint8_t& label) const {
    Index from[3];
    for (int k = 0; k < 3; ++k) {
      const Index offset = view.step[k][k] < 0 ? extent[k] - 1 - at[k] : at[k];
      from[k] = Index(view.center[k]) - extent[k] / 2 + offset;
      if (from[k] < 0 || from[k] >= box.scan[k]) return box.blank(to, label);
    }
    box.take(box.offset(from), to, label);
  }
  SEGMED_HD void displace(const SourceView& view, const Index (&at)[3], float* moved) const {
    const ControlLattice lattice{numbers + view.by,
                                 {view.points[0], view.points[1], view.points[2]},
                                 {view.per_voxel[0], view.per_voxel[1], view.per_voxel[2]}};
    const SplineTap x = lattice.tap(0, at[0]), y = lattice.tap(1, at[1]), z = lattice.tap(2, at[2]);
    float sums[12];
    for (int column = 0; column < 4; ++column)
      lattice.gather(y, z, x.first + column, sums + 3 * column);
    ControlLattice::blend(x, sums, moved);
  }
};

/// Moments of blocks of voxels, a team for each block of each channel of each patch: of the values
/// as they are or, with `tones`, as gamma makes them. Channels that need none are left out.
///
///   shapes   image (patches, voxels, channels); partial (patches, channels, blocks)
struct BlockMoments {
  static constexpr int threads = 128;
  static constexpr Index block = 4096;  // voxels; part of the numerics
  struct Shared {
    LineSums<2, threads> sums;
    float least[threads], most[threads];
  };
  const IntensityDraw* draws;
  const Tone* tones;  // null: as they are
  const float *numbers, *image;
  Index voxels, channels, blocks;
  VoxelMoments* partial;

  template <class Team>
  SEGMED_HD void operator()(Team team, Shared& shared) const {
    const Index segment = team.index / blocks;
    const IntensityDraw& draw = draws[segment];
    if (!(tones ? draw.gamma && tones[segment].raises : draw.asks_moments())) return;
    const Index begin = team.index % blocks * block;
    const Index end = begin + block < voxels ? begin + block : voxels;
    const float* of = image + segment / channels * voxels * channels + segment % channels;
    const auto value = [&](Index i) {
      const float as_is = of[i * channels];
      return tones ? tones[segment].raised(numbers + draw.powers, as_is) : as_is;
    };
    const float any = value(begin);
    VoxelMoments seen{0, 0, any, any};
    for (Index i = begin + team.thread; i < end; i += threads) seen.add(value(i));
    shared.least[team.thread] = seen.least, shared.most[team.thread] = seen.most;
    double own[2] = {seen.sum, seen.square};
    sum_lines(team, shared.sums, threads, 1, own);
    if (team.thread > 0) return;
    seen.sum = own[0], seen.square = own[1];
    for (int k = 1; k < threads; ++k) {
      seen.least = shared.least[k] < seen.least ? shared.least[k] : seen.least;
      seen.most = shared.most[k] > seen.most ? shared.most[k] : seen.most;
    }
    partial[team.index] = seen;
  }
};

/// Puts the moments of a channel's blocks together, in their order, and makes its tone of them:
/// begins it or settles it.
struct MergeBlocks {
  const IntensityDraw* draws;
  const VoxelMoments* partial;
  Index voxels, blocks;
  bool settles;
  VoxelMoments* seen;
  Tone* tones;

  SEGMED_HD void operator()(Index segment) const {
    const IntensityDraw& draw = draws[segment];
    if (!(settles ? draw.gamma && tones[segment].raises : draw.asks_moments())) return;
    VoxelMoments all = partial[segment * blocks];
    for (Index b = 1; b < blocks; ++b) {
      const VoxelMoments& next = partial[segment * blocks + b];
      all.sum += next.sum, all.square += next.square;
      all.least = next.least < all.least ? next.least : all.least;
      all.most = next.most > all.most ? next.most : all.most;
    }
    if (settles)
      tones[segment].settle(seen[segment], all, double(voxels));
    else
      seen[segment] = all, tones[segment] = Tone::of(draw, all, double(voxels));
  }
};

/// Changes intensities as they were drawn, and stores them in the type of feature maps.
///
///   shapes   from, to (patches, voxels, channels), perhaps the same; rows patches, columns voxels
template <class T>
struct StoreIntensities {
  const IntensityDraw* draws;
  const Tone* tones;
  const float* numbers;
  Index voxels, channels;
  const float* from;
  T* to;

  SEGMED_HD void operator()(Index patch, Index i) const {
    for (Index c = 0; c < channels; ++c) {
      const Index segment = patch * channels + c, place = (patch * voxels + i) * channels + c;
      to[place] = T(Wide<T>(changed(draws[segment], tones + segment, i, from[place])));
    }
  }

 private:
  SEGMED_HD float changed(const IntensityDraw& draw, const Tone* tone, Index i, float value) const {
    if (draw.gamma && tone->raises)
      value = tone->settled(tone->raised(numbers + draw.powers, value));
    if (draw.contrasted)
      value = tone->contrasted(value);
    else if (draw.bright)
      value *= draw.multiply;
    if (draw.noisy)
      value +=
          draw.noise * IntensityDraw::grain(draw.random.bits(draw.noise_from + i / 4).word[i % 4]);
    return value;
  }
};

}  // namespace segmed
