// SPDX-License-Identifier: Apache-2.0
// Numbers, and views of them with pending work, for tests of passes over feature maps.
#pragma once
#include <cstring>
#include <vector>

#include <segmed/backend/view.hpp>
#include <segmed/core/random.hpp>

namespace check {
using namespace segmed;

template <class T>
std::vector<T> random(Index n, std::uint32_t stream) {
  std::vector<T> x(static_cast<std::size_t>(n));
  const Philox philox{5, Purpose::noise, stream, 0};
  for (Index i = 0; i < n; ++i) x[std::size_t(i)] = T(philox.normal(i));
  return x;
}
template <class A>
bool same_bits(const A& a, const A& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0;
}
/// The largest difference beside 1 and the number, NaN if there is one.
template <class A>
double distance(const A& a, const A& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(double(a[i] - b[i])) / (1 + std::abs(double(b[i])));
    worst = !(d <= worst) ? d : worst;
  }
  return worst;
}

/// A view with pending work on every channel, and the numbers behind it; `shifted` numbers of it
/// lie before the first one, so that memory is not aligned.
template <class T>
struct View {
  std::vector<T> x, scale, shift, slope;
  Lane<T> lane;
  View(const Grid& grid, std::uint32_t stream, bool pending = true, Index shifted = 0)
      : x(random<T>(grid.size() + shifted, stream)),
        scale(random<T>(grid.pairs(), stream + 1)),
        shift(random<T>(grid.pairs(), stream + 2)),
        slope(random<T>(grid.pairs(), stream + 3)) {
    lane.grid = grid, lane.x = x.data() + shifted;
    if (pending) lane.scale = scale.data(), lane.shift = shift.data(), lane.slope = slope.data();
  }
};

}  // namespace check
