// SPDX-License-Identifier: Apache-2.0
// Training on several processes: mpirun -n 2 together. What is learnt does not depend on how many
// there are; see docs/scaling.md.
#include <cstdio>

#include <segmed/distributed/mpi.hpp>
#include <segmed/segmed.hpp>

using namespace segmed;
using F = Features<3, float, Cpu>;

int main() {
  return with_mpi([](Mpi& mpi) {
    RunOptions options{.name = "together", .steps = 20, .patch = {16, 16, 16}, .batch = 4};
    options.ranks = Ranks(mpi);
    UNet<UNetParts<F>> net({.channels_in = 1, .classes = 3, .widths = {8, 16}});
    const auto cohort = phantom::abdomen({.cases = 6,
                                          .organs = 2,
                                          .labelled = 6,
                                          .validation = 0,
                                          .extent = {24, 24, 24},
                                          .spacing_mm = 16});
    const auto report = run(options, cohort, net, Dice{}, Supervised{}, AdamW{.rate = 3e-3f});
    if (mpi.rank() == 0)
      std::printf("%d ranks: loss %.3f after %d steps\n", mpi.size(), report.curve.back().labelled,
                  int(report.steps));
    return 0;
  });
}
