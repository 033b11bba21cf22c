// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include <segmed/data/normalize.hpp>
#include <segmed/data/sampler.hpp>
#include <segmed/image/orient.hpp>
#include <segmed/image/resample.hpp>

namespace segmed {

/// What happens to every case before patches are drawn, and to every scan before a prediction.
struct Preparation {
  std::array<double, 3> spacing_mm = {0, 0, 0};  // along R, A and S; 0 keeps the scan's own
  Normalization normalization = {};
  friend bool operator==(const Preparation&, const Preparation&) = default;
};

/// A volume with its axes along R, A, S and with the preparation's spacing.
template <class T>
Volume<T> regridded(const Volume<T>& volume, const std::array<double, 3>& spacing_mm,
                    Interpolation how) {
  Volume<T> turned = reorient(volume, "RAS");
  std::array<double, 3> wanted = spacing_mm;
  const Eigen::Vector3d own = turned.spacing();
  bool same = true;
  for (std::size_t k = 0; k < 3; ++k) {
    if (wanted[k] <= 0) wanted[k] = own[Index(k)];
    same = same && std::abs(wanted[k] - own[Index(k)]) < 1e-3 * own[Index(k)];
  }
  return same ? turned : resample(turned, wanted, how);
}

/// The example as the network sees it: axes R, A, S, the plan's spacing, normalized. Labels are
/// resampled by the nearest voxel.
inline Example prepared(const Example& example, const Preparation& how) {
  Example ready;
  ready.id = example.id, ready.patient = example.patient;
  ready.annotated = example.annotated;
  ready.image = regridded(example.image, how.spacing_mm, Interpolation::linear);
  if (!example.labels.empty())
    ready.labels = regridded(example.labels, how.spacing_mm, Interpolation::nearest);
  normalize(ready.image, how.normalization);
  return ready;
}

/// The prepared example with what the sampler needs.
inline ReadyCase make_ready(const Example& example, const Preparation& how) {
  std::vector<float> outside;
  for (Index c = 0; c < example.image.channels; ++c)
    outside.push_back(how.normalization.outside(std::size_t(c)));
  Example ready = prepared(example, how);
  if (how.normalization.kind == Normalization::Kind::z_score ||
      how.normalization.kind == Normalization::Kind::none)
    for (Index c = 0; c < ready.image.channels; ++c) {
      float least = 0;
      for (Index i = 0; i < ready.image.grid_size(); ++i) {
        const float value = ready.image.voxels[std::size_t(i * ready.image.channels + c)];
        least = i == 0 ? value : std::min(least, value);
      }
      outside[std::size_t(c)] = least;
    }
  return ReadyCase(std::move(ready), std::move(outside));
}

}  // namespace segmed
