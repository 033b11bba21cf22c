// expect: Both: the two policies both replace the term of the labels; see semi/policy.hpp
// SPDX-License-Identifier: Apache-2.0
#include <segmed/semi/policy.hpp>

struct Relabel {
  int loss(auto&) { return 0; }
  int supervised(auto&) { return 0; }
};

int main() {
  int now = 0;
  segmed::Both<Relabel, Relabel> both;
  both.supervised(now);
}
