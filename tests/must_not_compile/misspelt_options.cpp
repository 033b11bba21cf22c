// expect: run: one of the policy's hooks has the name but not the signature
// SPDX-License-Identifier: Apache-2.0
#include <segmed/losses/region.hpp>
#include <segmed/semi/policy.hpp>

using namespace segmed;
struct Net {
  using Features = segmed::Features<3, float, Cpu>;
  Features operator()(const Features& x) const { return x; }
  static void members(auto&, auto&&) {}
};

struct Weighed : Supervised {
  float weight = 1;
  static void options(auto&& visit, auto& self) { visit("weight", self.weight); }
};

int main() { return checked_policy<Weighed, Net, Dice>(); }
