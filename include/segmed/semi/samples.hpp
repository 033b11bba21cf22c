// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/data/loader.hpp>
#include <segmed/semi/step.hpp>

namespace segmed {

/// Patches of equal extent as one batch on the device.
///
///   shapes   patches (x, y, z, C) become (N, z, y, x, C); 2-D networks take patches with z = 1
template <FeatureMap F>
Samples<F> to_samples(const std::vector<Patch>& patches) {
  using T = typename F::value_type;
  using D = typename F::device;
  require<DataError>(!patches.empty(), "to_samples", "a batch of no patches");
  const Patch& first = patches.front();
  const Grid grid{Index(patches.size()), first.extent[2], first.extent[1], first.extent[0],
                  first.channels};
  const std::size_t size = std::size_t(grid.size() / grid.cases);
  std::vector<T> image, strong;
  std::vector<std::uint8_t> labels;
  std::vector<AnnotatedSet> annotated;
  Samples<F> samples;
  image.reserve(std::size_t(grid.size()));
  const auto append = [](std::vector<T>& to, const std::vector<float>& from) {
    for (const float x : from) to.push_back(T(typename F::Wide(x)));
  };
  for (const Patch& patch : patches) {
    require(patch.extent == first.extent && patch.image.size() == size, "to_samples",
            "patches of one batch differ in extent or channels");
    append(image, patch.image);
    append(strong, patch.strong);
    labels.insert(labels.end(), patch.labels.begin(), patch.labels.end());
    annotated.push_back(patch.annotated);
    samples.cases.push_back(patch.id);
  }
  samples.image = F(grid, Storage<T, D>(image));
  if (!strong.empty()) samples.strong = F(grid, Storage<T, D>(strong));
  samples.labels = labels_of<D>(grid, labels, std::move(annotated));
  return samples;
}

}  // namespace segmed
