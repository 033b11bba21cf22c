// SPDX-License-Identifier: Apache-2.0
// What the tests of this floor share: random maps and parameters, comparisons bit for bit.
#pragma once
#include <cstring>
#include <functional>

#include <doctest/doctest.h>

#include <segmed/autograd/gradient_check.hpp>
#include <segmed/autograd/group.hpp>
#include <segmed/autograd/scalar.hpp>
#include <segmed/backend/cpu.hpp>

namespace check {

using namespace segmed;
using Map3 = Features<3, double, Cpu>;
using Map2 = Features<2, double, Cpu>;
using Single3 = Features<3, float, Cpu>;
using Single2 = Features<2, float, Cpu>;

/// Between -1 and 1, and the same in float and double.
template <class T>
std::vector<T> numbers(Index size, std::uint64_t seed) {
  const Philox random{seed, Purpose::sample};
  std::vector<T> out(static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = T(random.uniform(Index(i), -1, 1));
  return out;
}
template <class F>
F random_map(const Grid& grid, std::uint64_t seed, bool tracked = false) {
  return F(grid,
           Storage<typename F::value_type, Cpu>(numbers<typename F::value_type>(grid.size(), seed)),
           tracked);
}

/// Some parameters with random values.
template <class F>
struct Weights {
  using P = typename F::P;
  std::vector<P> list;

  explicit Weights(const std::vector<Index>& sizes, std::uint64_t seed = 100) {
    for (const Index size : sizes) {
      list.emplace_back(size);
      list.back().value().assign(numbers<typename F::Wide>(size, seed++));
    }
  }
  P& operator[](std::size_t i) { return list[i]; }
  const P& operator[](std::size_t i) const { return list[i]; }
  static void members(auto& self, auto&& visit) { visit("list", self.list); }
};

/// What is under test: a map made of maps and weights.
template <class F>
using Op = std::function<F(const std::vector<F>&, const Weights<F>&)>;

/// The bytes of everything that a run gave, to be compared as a whole.
struct Bytes {
  std::vector<std::vector<unsigned char>> parts;

  template <class T>
  void add(const std::vector<T>& values) {
    std::vector<T> positive = values;
    for (T& value : positive) value += T(0);  // -0 and 0 are one number
    parts.emplace_back(sizeof(T) * values.size());
    if (!values.empty()) std::memcpy(parts.back().data(), positive.data(), parts.back().size());
  }
  bool empty() const { return parts.empty(); }
  friend bool operator==(const Bytes&, const Bytes&) = default;
};

/// y = op(maps, weights) and the gradients of every map and weight under random upstream gradients.
template <class F>
Bytes run_bytes(const std::vector<Grid>& grids, const std::vector<Index>& sizes, const Op<F>& op) {
  Tape::current()->clear();
  std::vector<F> maps;
  for (std::size_t i = 0; i < grids.size(); ++i)
    maps.push_back(random_map<F>(grids[i], 10 + i, true));
  Weights<F> weights(sizes);
  GroupOf<F> group(Role::trained, weights);
  Draws::current() = {};
  const F y = value(op(maps, weights));
  backward(probe(y));
  Bytes bytes;
  bytes.add(y.dense().value.host());
  for (const F& x : maps) {
    REQUIRE_FALSE(x.gradient().empty());
    bytes.add(x.gradient().host());
  }
  bytes.add(group.grads.host());
  return bytes;
}
template <class F>
bool same_for_threads(const std::vector<Grid>& grids, const std::vector<Index>& sizes,
                      const Op<F>& op) {
  const int before = threads();
  std::vector<Bytes> runs;
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    runs.push_back(run_bytes<F>(grids, sizes, op));
  }
  set_threads(before);
  return !runs[0].empty() && runs[0] == runs[1] && runs[0] == runs[2];
}
template <class F>
bool same_materialized(const std::vector<Grid>& grids, const std::vector<Index>& sizes,
                       const Op<F>& op) {
  const Bytes fused = run_bytes<F>(grids, sizes, op);
  const Bytes written = materialized([&] { return run_bytes<F>(grids, sizes, op); });
  return !fused.empty() && fused == written;
}

/// The worst numeric gradient error over every map and every weight of y = op(maps, weights).
template <class F>
double worst_gradient(const std::vector<Grid>& grids, const std::vector<Index>& sizes,
                      const Op<F>& op) {
  Tape::current()->clear();
  std::vector<F> maps;
  for (std::size_t i = 0; i < grids.size(); ++i) maps.push_back(random_map<F>(grids[i], 10 + i));
  Weights<F> weights(sizes);
  GroupOf<F> group(Role::trained, weights);
  const auto loss = [&] {
    Draws::current() = {};  // the same mask each time
    return probe(op(maps, weights));
  };
  double worst = 0;
  for (std::size_t i = 0; i < grids.size(); ++i) {
    const F kept = maps[i];
    const double error = gradient_error<F>(grids[i], kept.dense().value.host(), [&](const F& x) {
      maps[i] = x;
      return loss();
    });
    worst = !(error <= worst) ? error : worst;
    maps[i] = kept;
  }
  for (auto& p : weights.list) {
    const double error = parameter_gradient_error(p, loss);
    worst = !(error <= worst) ? error : worst;
  }
  return worst;
}

}  // namespace check
