// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdio>

double first_unit();
double second_unit();
double third_unit();

int main() {
  bool second_runs = true, third_runs = true;
#if defined(UNITS_DIFFER)  // in their instruction sets: any, x86-64-v3, x86-64-v4
  second_runs = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  third_runs = __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
#endif
  const double first = first_unit();
  std::printf("the units say %.9g", first);
  int wrong = 0;
  const auto compare = [&](bool runs, double (*unit)()) {
    if (!runs) {
      std::printf(", nothing on this processor");
      return;
    }
    const double result = unit();
    std::printf(", %.9g", result);
    wrong += std::abs(result - first) <= 1e-5 * std::abs(first) ? 0 : 1;
  };
  compare(second_runs, second_unit);
  compare(third_runs, third_unit);
  std::puts("");
  return wrong;
}
