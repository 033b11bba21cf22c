// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <segmed/data/abdomen.hpp>
#include <segmed/data/example.hpp>

namespace segmed::phantom {

/// What a generated abdominal CT cohort looks like.
struct AbdomenOptions {
  Index cases = 24;
  Index organs = 10;     // the first ones of organ_names()
  Index labelled = -1;   // the first ones, with every organ; -1: all but the last ones
  Index validation = 4;  // the last ones, with every organ, for validation
  std::uint64_t seed = 1;
  Extent3 extent = {96, 96, 96};  // the field of view is extent times spacing
  double spacing_mm = 4;
  bool partial_views = true;  // some scans show a part of the abdomen only
};

/// The class table of the first `organs` organs.
inline ClassTable abdomen_classes(Index organs = 10) {
  require<ConfigError>(organs >= 1 && organs <= 10, "phantom", organs,
                       " organs were asked for; give 1 to 10");
  const auto& names = organ_names();
  return ClassTable::of({names.begin(), names.begin() + std::ptrdiff_t(organs)});
}

/// What the scanner makes of the tissues: texture, a blur of half a voxel, shading and noise.
inline void expose(const Volume<std::uint8_t>& tissue, const Intensities& hu, float noise,
                   float shading, float gain, double spacing_mm, Philox random,
                   Volume<float>& image) {
  const auto field = [&](std::uint32_t number, double step_mm) {
    random.draw = number;
    return SmoothField(tissue.extent, std::max(1.0, step_mm / spacing_mm), random);
  };
  const SmoothField coarse = field(11, 20), fine = field(12, 9), shade = field(13, 130);
  random.draw = 14;
  const Index wide = tissue.extent[0], rows = tissue.extent[1] * tissue.extent[2];
  parallel_for(rows, 64, [&](Index begin, Index end) {
    std::vector<float> a(static_cast<std::size_t>(wide)), b(a);
    for (Index row = begin; row < end; ++row) {
      const Index y = row % tissue.extent[1], z = row / tissue.extent[1];
      coarse.row(y, z, a.data()), fine.row(y, z, b.data());
      for (Index x = 0; x < wide; ++x) {
        const auto at = std::size_t(row * wide + x), i = std::size_t(x);
        const std::uint8_t t = tissue.voxels[at];
        image.voxels[at] = hu.mean[t] + hu.texture[t] * (0.8f * a[i] + 0.6f * b[i]);
      }
    }
  });
  const Index steps[3] = {1, wide, wide * tissue.extent[1]};
  std::vector<float> blurred(image.voxels.size());
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const Index step = steps[axis], length = tissue.extent[axis];
    parallel_for(rows, 64, [&](Index begin, Index end) {
      for (Index row = begin; row < end; ++row) {
        const Index y = row % tissue.extent[1], z = row / tissue.extent[1];
        const Index line = axis == 1 ? y : z;  // the whole row shares it, but along x
        const Index back = line > 0 ? step : 0, ahead = line + 1 < length ? step : 0;
        const float* from = &image.voxels[std::size_t(row * wide)];
        float* to = &blurred[std::size_t(row * wide)];
        if (axis == 0) {
          for (Index x = 0; x < wide; ++x)
            to[x] = 0.76f * from[x] +
                    0.12f * (from[std::max<Index>(x - 1, 0)] + from[std::min(x + 1, wide - 1)]);
        } else {
          for (Index x = 0; x < wide; ++x)
            to[x] = 0.76f * from[x] + 0.12f * (from[x - back] + from[x + ahead]);
        }
      }
    });
    image.voxels.swap(blurred);
  }
  parallel_for(rows, 64, [&](Index begin, Index end) {
    std::vector<float> a(static_cast<std::size_t>(wide));
    for (Index row = begin; row < end; ++row) {
      shade.row(row % tissue.extent[1], row / tissue.extent[1], a.data());
      for (Index x = 0; x < wide; ++x) {
        float& value = image.voxels[std::size_t(row * wide + x)];
        value = (value + 1000) * gain - 1000 + shading * a[std::size_t(x)];
        value += noise * random.normal(row * wide + x);
        value = std::round(std::clamp(value, -1024.0f, 3071.0f));
      }
    }
  });
}

/// The i-th patient of a cohort, with the first `organs` organs as labels.
///
///   throws   ConfigError when the options make no sense
inline Example abdomen_case(const AbdomenOptions& options, Index i) {
  abdomen_classes(options.organs);
  for (const Index n : options.extent)
    require<ConfigError>(n >= 8 && n <= 1024, "phantom", "an extent of ", n,
                         " voxels; give 8 to 1024");
  require<ConfigError>(options.spacing_mm >= 0.5 && options.spacing_mm <= 40, "phantom",
                       "a spacing of ", options.spacing_mm, " mm; give 0.5 to 40");
  const auto random = [&](std::uint32_t draw) {
    return Philox{options.seed, Purpose::phantom, std::uint32_t(i), draw};
  };
  Draws draws{random(0)};
  const Intensities hu = Intensities::draw(draws);
  const float size = std::clamp(draws.normal(1, 0.06f), 0.87f, 1.13f);
  const Canvas::Shape shape{
      options.spacing_mm,
      {size * draws.normal(1, 0.04f), size * draws.normal(1, 0.05f), size * draws.normal(1, 0.04f)},
      {draws.normal(0, 8), draws.normal(0, 8), draws.normal(0, 14)}};
  Canvas canvas(options.extent, shape, random(0));
  const float noise = draws.uniform(9, 24), bias = draws.uniform(4, 16),
              gain = draws.normal(1, 0.012f);
  // A view that starts or ends inside of the abdomen.
  Index first = 0, count = options.extent[2];
  if (options.partial_views && draws.chance(0.35f)) {
    const Index cut = Index(float(count) * draws.uniform(0.12f, 0.4f));
    first = draws.chance(0.5f) ? cut : 0, count -= cut;
  }
  Abdomen(canvas, draws);

  char id[16];
  std::snprintf(id, sizeof id, "s%04d", int(i));
  Example example{id, id, make_volume_like<float>(canvas.tissue),
                  make_volume_like<std::uint8_t>(canvas.tissue),
                  AnnotatedSet::all(options.organs + 1)};
  expose(canvas.tissue, hu, noise, bias, gain, options.spacing_mm, random(0), example.image);
  for (std::size_t v = 0; v < example.labels.voxels.size(); ++v) {
    const std::uint8_t organ = organ_of(canvas.tissue.voxels[v]);
    example.labels.voxels[v] = organ <= options.organs ? organ : std::uint8_t(0);
  }
  if (count < options.extent[2]) {
    const Extent3 view = {options.extent[0], options.extent[1], count};
    example.image = cropped(example.image, {0, 0, first}, view);
    example.labels = cropped(example.labels, {0, 0, first}, view);
  }
  return example;
}

/// A generated cohort of abdominal CT scans: contrast phases that overlap, patients that differ in
/// size and anatomy, gas, bones, vessels and gut that look like organs, and partial views.
///
/// The first `labelled` cases have all organs annotated (D_0); of the others each organ is
/// annotated with probability one half (D_1); the last `validation` cases have all of them again
/// (D_val).
///
///   units    HU; mm
///   throws   ConfigError when the options make no sense
inline MemoryCohort abdomen(const AbdomenOptions& options = {}) {
  const Index organs = options.organs;
  require<ConfigError>(options.cases >= 1 && options.cases <= 9999, "phantom", options.cases,
                       " cases were asked for; give 1 to 9999");
  require<ConfigError>(options.validation >= 0 && options.validation <= options.cases &&
                           options.labelled <= options.cases,
                       "phantom", options.labelled, " labelled and ", options.validation,
                       " validation cases do not fit in ", options.cases);
  const Index held_out = options.labelled < 0
                             ? options.validation
                             : std::min(options.validation, options.cases - options.labelled);
  const Index labelled = options.labelled < 0 ? options.cases - held_out : options.labelled;
  MemoryCohort cohort;
  cohort.classes = abdomen_classes(organs);
  for (Index i = 0; i < options.cases; ++i) {
    Example example = abdomen_case(options, i);
    if (i >= options.cases - held_out) {
      cohort.add(std::move(example), Part::validation);
      continue;
    }
    if (i >= labelled) {
      const Philox random{options.seed, Purpose::hide, std::uint32_t(i), 0};
      for (Index c = 1; c <= organs; ++c)
        if (random.uniform(c) < 0.5f) example.annotated = example.annotated.without(c);
      for (std::uint8_t& label : example.labels.voxels)
        if (!example.annotated.has(label)) label = 0;
      if (example.annotated.none()) example.labels = {};
    }
    cohort.add(std::move(example));
  }
  return cohort;
}

}  // namespace segmed::phantom
