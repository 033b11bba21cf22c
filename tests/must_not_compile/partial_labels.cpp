// expect: Marginal: this loss already takes partial labels; add it to Marginal with Sum
// SPDX-License-Identifier: Apache-2.0
#include <segmed/losses/partial.hpp>

int main() {
  const segmed::Marginal loss{segmed::Exclusion{}};
  return loss.sums;
}
