// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/warp.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// What the student says of a deformed image is what it says of the image, deformed in the same
/// way. Uses D_1's partial labels by the usual term of the labels alone.
///
///   source   Bortsova et al., 2019, arXiv:1911.01218: one network, no teacher, the gradient goes
///            through both answers; the squared distance of probabilities, on D_1 only, and one of
///            the two views is the image itself
struct DeformationConsistency {
  float weight = 0.1f;  // after its warm-up
  float farthest = 4;   // voxels that anything moves along an axis; at most a quarter of a cell
  Index cell = 16;      // voxels over which the displacement changes

  template <class Now>
  typename Now::Value loss(Now& now) {
    if (now.partial.empty()) return {};
    const auto& image = now.partial.image;
    const auto field = smooth_displacement<typename Now::F>(Draws::next(Purpose::view),
                                                            image.grid(), cell, farthest);
    const auto of_warped = softmax(now.student(warp(image, field, farthest)));
    const auto warped = warp(softmax(now.logits_partial()), field, farthest);
    return now.clock.ramp(weight) * mean_square(of_warped, warped);
  }
};

}  // namespace segmed
