// SPDX-License-Identifier: Apache-2.0
// Links every component, reads the geometry of an image and runs a convolution.
#include <cstdio>
#if __has_include(<segmed/segmed.hpp>)
#include <segmed/segmed.hpp>
#else
#include <segmed/autograd/convolution.hpp>
#include <segmed/backend/cpu.hpp>
#include <segmed/image/geometry.hpp>
#endif

int main() {
  using F = segmed::Features<3, float, segmed::Cpu>;
  const auto geometry = segmed::Geometry::of_spacing(0.8, 0.8, 2.5);
  const F::P weight(27 * 2 * 4, {0.5, 0});
  const F x(segmed::Grid{1, 4, 4, 4, 2}, segmed::Storage<float, segmed::Cpu>(128, 1.0f));
  const F y = conv(x, weight, F::P(), segmed::ConvGeometry<3>::cubic(3));
  std::printf("segmed %d.%d.%d: a voxel of %.1f mm, a sum of %.1f\n", SEGMED_VERSION_MAJOR,
              SEGMED_VERSION_MINOR, SEGMED_VERSION_PATCH, geometry.spacing().z(),
              double(y.dense().value.host()[0]));
  return y.dense().value.host()[0] == 8.0f ? 0 : 1;  // a corner: 8 voxels, 2 channels, 0.5 each
}
