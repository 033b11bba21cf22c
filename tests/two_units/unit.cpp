// SPDX-License-Identifier: Apache-2.0
// Includes everything and runs the kernels of a convolution; compiled several times, with UNIT as
// the name of its one function.
#if __has_include(<segmed/segmed.hpp>)
#include <segmed/segmed.hpp>
#else
#include <segmed/autograd/convolution.hpp>
#include <segmed/backend/cpu.hpp>
#endif

double UNIT() {
  using F = segmed::Features<3, float, segmed::Cpu>;
  const segmed::Grid grid{1, 6, 7, 8, 16};
  const segmed::Philox noise{7, segmed::Purpose::noise, 0, 0};
  std::vector<float> voxels(std::size_t(grid.size()));
  for (std::size_t i = 0; i < voxels.size(); ++i) voxels[i] = noise.uniform(segmed::Index(i));
  F::P weight(27 * 16 * 16, {0, 1}), bias(16);
  weight.initialize(7, "weight");
  const F y = conv(F(grid, segmed::Storage<float, segmed::Cpu>(voxels)), weight, bias,
                   segmed::ConvGeometry<3>::cubic(3));
  double sum = 0;
  for (const float value : y.dense().value.host()) sum += double(value) * double(value);
  return sum;
}
