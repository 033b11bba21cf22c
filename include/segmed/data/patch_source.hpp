// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include <segmed/data/example.hpp>
#include <segmed/data/intensity.hpp>
#include <segmed/data/placement.hpp>
#include <segmed/data/scan_box.hpp>

namespace segmed {

/// Where a patch lies in its scan and which box of that is at hand, as kernels read it. What does
/// not fit here lies in the buffers of a batch, from these places on.
struct SourceView {
  Index scan[3], first[3], extent[3];  // as in ScanBox
  float center[3], step[3][3];         // as in Placement
  bool bent, labelled;
  Index points[3];     // of a ControlLattice; 0: nothing is displaced
  float per_voxel[3];  // likewise
  std::uint8_t renamed[256];
  Index voxels, outside, by;  // places among the numbers
  Index labels;               // place among the labels
};

/// What a device makes a patch of: the box of the scan that the patch is read from, and all that
/// was drawn.
struct PatchSource {
  SourceView view = {};
  std::vector<float> voxels = {}, outside = {}, by = {};
  std::vector<std::uint8_t> labels = {};
  std::vector<IntensityDraw> weak = {}, strong = {};  // one a channel; strong: if asked for

  /// Cuts the box out of the scan. It reaches up to two voxels farther than the patch, and not
  /// beyond the scan; where they do not meet, it is the voxels of the scan that are nearest.
  static PatchSource of(const Example& example, const Placement& placement, const Extent3& extent,
                        const std::vector<float>& outside,
                        const std::array<std::uint8_t, 256>& map) {
    PatchSource source;
    SourceView& view = source.view;
    const Volume<float>& image = example.image;
    for (std::size_t k = 0; k < 3; ++k) {
      float reach = 0;
      for (std::size_t a = 0; a < 3; ++a)
        reach += (0.5f * float(extent[a]) + placement.elastic.farthest(a)) *
                 std::abs(placement.step[a][k]);
      const Index last = image.extent[k] - 1;
      const Index low = Index(std::floor(placement.center[k] - reach)) - 1;
      const Index high = Index(std::ceil(placement.center[k] + reach)) + 1;
      view.first[k] = std::clamp<Index>(low, 0, last);
      view.extent[k] = std::clamp<Index>(high, 0, last) - view.first[k] + 1;
      view.scan[k] = image.extent[k];
      view.center[k] = placement.center[k];
      for (std::size_t a = 0; a < 3; ++a) view.step[a][k] = placement.step[a][k];
      view.points[k] = placement.elastic.points[k];
      view.per_voxel[k] = placement.elastic.per_voxel[k];
    }
    view.bent = placement.bent, view.labelled = !example.labels.empty();
    std::copy(map.begin(), map.end(), view.renamed);
    source.outside = outside, source.by = placement.elastic.by;
    const Index channels = image.channels, size = view.extent[0] * view.extent[1] * view.extent[2];
    source.voxels.reserve(std::size_t(size * channels));
    if (view.labelled) source.labels.reserve(std::size_t(size));
    for (Index z = 0; z < view.extent[2]; ++z)
      for (Index y = 0; y < view.extent[1]; ++y) {
        const Index from = image.index(view.first[0], view.first[1] + y, view.first[2] + z);
        const float* row = image.voxels.data() + from;
        source.voxels.insert(source.voxels.end(), row, row + view.extent[0] * channels);
        if (!view.labelled) continue;
        const std::uint8_t* classes = example.labels.voxels.data() + from / channels;
        source.labels.insert(source.labels.end(), classes, classes + view.extent[0]);
      }
    return source;
  }
};

}  // namespace segmed
