// expect: labelled_with: D_1 needs a loss that takes partial labels; wrap it in Marginal
// SPDX-License-Identifier: Apache-2.0
#include <segmed/backend/cpu.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/semi/partly_labelled.hpp>

struct Now {
  using Value = segmed::Scalar<segmed::Features<3, float, segmed::Cpu>>;
  segmed::Samples<segmed::Features<3, float, segmed::Cpu>> partial;
  Value labelled_full() { return {}; }
};

int main() {
  Now now;
  segmed::labelled_with(segmed::CrossEntropy{}, now);
}
