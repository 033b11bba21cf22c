// SPDX-License-Identifier: Apache-2.0
// killed FOLDER STEPS: ranks train together and write checkpoints all the time, so that somebody
// can kill one of them at any moment. Going on in the same folder must end with the same weights.
#include <cinttypes>

#include "../semi/small_cohort.hpp"
#include <segmed/backend/backend.hpp>
#include <segmed/distributed/mpi.hpp>
#include <segmed/experiment/run.hpp>
#include <segmed/losses/composition.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/region.hpp>
#include <segmed/nn/unet.hpp>
#include <segmed/semi/mean_teacher.hpp>

int main(int, char** arguments) {
  using namespace segmed;
  using Net = UNet<UNetParts<Features<3, float, Cpu>>>;
  set_threads(1);
  return with_mpi(
      [&](Mpi& mpi) {
        const auto cohort = trial::small_cohort();
        Net net({.classes = 3, .widths = {4, 8}, .encoder_convs = 1, .decoder_convs = 1});
        MeanTeacher<Net> policy{.teacher = {net}};
        RunOptions options{.steps = std::atoll(arguments[2]), .patch = {16, 16, 16}};
        options.batch = 2 * mpi.size(), options.quiet = true;
        options.out = arguments[1], options.resume = true, options.checkpoint_seconds = 0.02;
        options.ranks = Ranks(mpi);
        run(options, cohort, net, Sum{Dice{}, CrossEntropy{}}, policy, AdamW{.rate = 3e-3f});
        std::uint64_t hash = 0;
        for (const auto& at : Inventory(net).leaves)
          for (const float x : at.leaf->stored().as<float>())
            hash = hash_of(std::to_string(hash) + std::to_string(x));
        if (mpi.rank() == 0) std::printf("weights %016" PRIx64 "\n", hash);
        return 0;
      },
      20);
}
