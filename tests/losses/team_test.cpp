// SPDX-License-Identifier: Apache-2.0
#include "../backend/teamed_host.hpp"
#include "parity.hpp"
#include <segmed/core/bfloat16.hpp>

TEST_SUITE_BEGIN("losses/team");
using namespace check;

TEST_CASE("losses by teams are those of the processor, in 3-D") {
  const Index before = TeamedHost::teams;
  check_losses<3, float, TeamedHost>(2e-5);
  CHECK(TeamedHost::teams > before);
}
TEST_CASE("losses by teams are those of the processor, in 2-D") {
  check_losses<2, double, TeamedHost>(1e-10, {3, 200});
}
TEST_CASE("losses by teams read and write maps of Bfloat16") {
  check_losses<3, Bfloat16, TeamedHost>(1e-2, {3, 11});
}
TEST_CASE("a label that no class has makes the loss no number") {
  Batch batch = Batch::random({2, 3, 5, 7, 3});
  batch.y[40] = 7;
  CHECK(std::isnan(run_loss<Features<3, float, TeamedHost>>(batch, Dice{})[0][0]));
}
TEST_CASE("tiles cover all voxels, whatever the number of classes") {
  for (const Index classes : {2, 3, 31, 64, 127, 254, 255})
    for (const Index voxels : {1, 255, 257, 100000, 3000000}) {
      CAPTURE(classes);
      CAPTURE(voxels);
      const TileShape shape(2, voxels, classes, 6144, 256);
      CHECK(shape.stride * shape.tile <= 6144);
      CHECK(shape.tile * shape.parts <= 256);
      CHECK(shape.parts >= 1);
      CHECK(shape.block % shape.tile == 0);
      CHECK(shape.block * shape.blocks >= voxels);
      CHECK(shape.block * (shape.blocks - 1) < voxels);
    }
}

TEST_SUITE_END();
