// SPDX-License-Identifier: Apache-2.0
// Patches made on a GPU beside the processor's. Without a GPU each test says that it is skipped.
#include "../cuda/gpu.hpp"
#include "parity.hpp"
#include <segmed/backend/cuda.hpp>
#include <segmed/core/bfloat16.hpp>

namespace {
using namespace made_there;
}

TEST_SUITE_BEGIN("data/cuda");

TEST_CASE("patches made on the GPU are those of the processor") {
  if (check::no_gpu()) return;
  for (const Augment& augment : {still(), flipped(), bent(), elastic(bent()), softened()})
    for (const Index channels : {1, 2})
      for (const Extent3 patch : {Extent3{40, 33, 29}, {17, 48, 1}, {60, 5, 12}}) {
        const SampleOptions options{.patch = patch, .augment = augment, .strong_view = true};
        check_beside_processor<float, Cuda>(scan({48, 40, 30}, channels), options, 4, 1e-4f, 1);
      }
}
TEST_CASE("all changes together, and maps of half the size, on the GPU") {
  if (check::no_gpu()) return;
  for (const Extent3 extent : {Extent3{48, 40, 30}, {6, 30, 5}, {11, 10, 1}}) {
    const SampleOptions options{
        .patch = {24, 20, 18}, .augment = everything(), .strong_view = true};
    check_beside_processor<float, Cuda>(scan(extent, 2), options, 4, 5e-4f, 1);
    check_beside_processor<Bfloat16, Cuda>(scan(extent, 2), options, 4, 5e-3f, 1);
  }
}

TEST_SUITE_END();
