// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/spatial.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// Quarter turns in one plane, and perhaps a reflection: what keeps voxels voxels.
struct RightAngles {
  std::size_t first = 0, second = 1;  // axes of the plane
  int turns = 0;                      // from the first axis towards the second
  bool mirrored = false;
  std::size_t along = 0;  // the axis that is mirrored afterwards

  template <FeatureMap F>
  F operator()(const F& x) const {
    const F turned = rot90(x, turns, first, second);
    return mirrored ? flip(turned, along) : turned;
  }
  /// One to three quarter turns in a plane whose extents agree, a half turn where there is none.
  template <FeatureMap F>
  static RightAngles drawn(const Philox& random, const F& image, bool mirrors) {
    const Grid grid = image.grid();
    const Index extents[3] = {grid.depth, grid.height, grid.width};
    std::vector<RightAngles> square, all;
    for (std::size_t a = 0; a < F::dim; ++a)
      for (std::size_t b = a + 1; b < F::dim; ++b) {
        all.push_back({a, b, 2});
        if (extents[a + 3 - F::dim] == extents[b + 3 - F::dim]) square.push_back({a, b, 1});
      }
    const auto& planes = square.empty() ? all : square;
    RightAngles change = planes[std::size_t(random.below(0, Index(planes.size())))];
    if (!square.empty()) change.turns = 1 + int(random.below(1, 3));
    change.mirrored = mirrors && random.below(2, 2) == 1;
    change.along = std::size_t(random.below(3, Index(F::dim)));
    return change;
  }
};

/// What the student says of a turned image is what it says of the image, turned; either answer is
/// the other's target. Uses D_1's partial labels by the usual term of the labels alone. Extents
/// are counted in voxels: where these are much longer along one axis, let the patch be so too.
///
///   source   Li et al., 2019, arXiv:1903.00348, in the form that SSL4MIS calls deep
///            co-training: one network, no teacher, both directions; one change for the batch,
///            never none at all, and in 3-D in a plane drawn at random
struct TransformConsistency {
  float weight = 0.1f;   // after its warm-up
  bool mirrors = false;  // also reflect; not where left and right are two classes

  template <class Now>
  typename Now::Value loss(Now& now) {
    if (now.partial.empty()) return {};
    const auto& image = now.partial.image;
    const auto change = RightAngles::drawn(Draws::next(Purpose::view), image, mirrors);
    const auto of_changed = softmax(now.student(change(image)));
    const auto changed = change(softmax(now.logits_partial()));
    return now.clock.ramp(0.5f * weight) *
           (mean_square(detach(of_changed), changed) + mean_square(of_changed, detach(changed)));
  }
  static void options(auto& self, auto&& visit) {
    visit("weight", self.weight, at_least(0));
    visit("mirrors", self.mirrors);
  }
};

}  // namespace segmed
