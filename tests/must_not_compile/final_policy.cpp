// expect: run: the policy is final, so that a hook with a wrong signature would pass
// SPDX-License-Identifier: Apache-2.0
#include <segmed/losses/region.hpp>
#include <segmed/semi/policy.hpp>

using namespace segmed;
struct Net {
  using Features = segmed::Features<3, float, Cpu>;
  Features operator()(const Features& x) const { return x; }
  static void members(auto&, auto&&) {}
};

struct Last final : Supervised {
  void after_step(int) {}
};

int main() { return checked_policy<Last, Net, Dice>(); }
