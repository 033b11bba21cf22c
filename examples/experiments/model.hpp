// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>

#include "recipe.hpp"
#include <segmed/image/volume.hpp>

namespace experiments {

/// A trained network, ready to label scans.
struct Model {
  Recipe recipe;
  /// Class numbers on the scan's own grid; `mirror` averages over mirrored views.
  std::function<segmed::Volume<std::uint8_t>(const segmed::Volume<float>& scan, bool mirror)>
      predict;

  /// From a checkpoint, or from the last one in a run's folder.
  ///
  ///   throws   FileError when there is none, DataError when it was made by another network
  static Model load(const std::string& path);
};

}  // namespace experiments
