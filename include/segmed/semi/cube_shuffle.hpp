// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <numeric>
#include <utility>
#include <vector>

#include <segmed/losses/region.hpp>
#include <segmed/semi/complete.hpp>
#include <segmed/semi/mean_teacher.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// A grid cut into cubes, `parts` along each axis that is long enough; voxels that are left over at
/// the far ends belong to none.
struct CubeCut {
  Grid grid;
  Index parts[3] = {1, 1, 1}, extent[3] = {1, 1, 1};

  static CubeCut of(const Grid& grid, Index parts) {
    CubeCut cut{grid, {}, {}};
    const Index extents[3] = {grid.depth, grid.height, grid.width};
    for (int a = 0; a < 3; ++a) {
      cut.parts[a] = extents[a] < parts ? 1 : parts;
      cut.extent[a] = extents[a] / cut.parts[a];
    }
    return cut;
  }
  SEGMED_HD Index cubes() const { return parts[0] * parts[1] * parts[2]; }
  /// The cube of a voxel, or -1.
  SEGMED_HD Index operator()(Index v) const {
    const Index at[3] = {v / grid.width / grid.height, v / grid.width % grid.height,
                         v % grid.width};
    Index cube = 0;
    for (int a = 0; a < 3; ++a) {
      const Index part = at[a] / extent[a];
      if (part >= parts[a]) return -1;
      cube = cube * parts[a] + part;
    }
    return cube;
  }
};

/// For every cube, from which case each case takes its voxels.
struct CubeOrder {
  CubeCut cut;
  Index cases;
  const Index* from;  // (cubes, cases)

  SEGMED_HD Index operator()(Index n, Index v) const {
    const Index cube = cut(v);
    return cube < 0 ? n : from[cube * cases + n];
  }
};
/// Cubes keep their place and change their case, in another order for every cube; and back.
template <Device D>
struct CubeExchange {
  CubeCut cut;
  Index cases;
  Storage<Index, D> there, back;

  /// The orders of this step, other ones on every rank.
  static CubeExchange draw(const CubeCut& cut, Index cases) {
    const Philox random = Draws::next(Purpose::noise, cut.cubes() * cases);
    std::vector<Index> there(std::size_t(cut.cubes() * cases)), back(there.size());
    for (Index cube = 0; cube < cut.cubes(); ++cube) {
      Index* const order = there.data() + cube * cases;
      std::iota(order, order + cases, Index{0});
      for (Index n = cases - 1; n > 0; --n)
        std::swap(order[n], order[random.below(cube * cases + n, n + 1)]);
      for (Index n = 0; n < cases; ++n) back[std::size_t(cube * cases + order[n])] = n;
    }
    return {cut, cases, Storage<Index, D>(there), Storage<Index, D>(back)};
  }
  CubeOrder order(const Storage<Index, D>& from) const { return {cut, cases, from.read()}; }
};

template <class T>
struct ExchangeKernel {  // of the cases of two batches
  CubeOrder order;
  const T *first, *second;
  Index cases, channels;  // of the first
  T* y;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index voxels = order.cut.grid.voxels(), v = row % voxels;
    const Index from = order(row / voxels, v);
    y[row * channels + c] = from < cases ? first[(from * voxels + v) * channels + c]
                                         : second[((from - cases) * voxels + v) * channels + c];
  }
};
template <class T>
struct RecoverKernel {  // the cases from `begin` on
  CubeOrder order;
  Index begin, channels;
  const T* x;
  T* y;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index voxels = order.cut.grid.voxels(), v = row % voxels;
    const Index from = order(begin + row / voxels, v);
    y[row * channels + c] = x[(from * voxels + v) * channels + c];
  }
};
template <class T>
struct RecoverPull {  // every voxel goes back to a place of its own
  CubeOrder order;
  Index begin, channels;
  const T* g;
  T* gx;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index voxels = order.cut.grid.voxels(), v = row % voxels;
    T& to = gx[(order(begin + row / voxels, v) * voxels + v) * channels + c];
    to = T(Wide<T>(to) + Wide<T>(g[row * channels + c]));
  }
};

/// The cases of two batches, their cubes exchanged. A constant.
template <FeatureMap F>
F exchanged(const F& first, const F& second, const CubeExchange<typename F::device>& how) {
  using T = typename F::value_type;
  const F a = detach(first), b = detach(second);
  Grid grid = b.grid();
  grid.cases = a.grid().cases;
  require(grid == a.grid(), "exchanged", "shapes differ: ", a.grid(), " and ", b.grid());
  grid.cases = how.cases;
  F y(grid, false);
  F::device::launch_rows(grid.rows(), grid.channels,
                         ExchangeKernel<T>{how.order(how.there), a.data(), b.data(), a.grid().cases,
                                           grid.channels, y.mutable_data()});
  return y;
}
/// What became of `cases` cases of them, from `begin` on, with every cube back where it was.
template <FeatureMap F>
F recovered(const F& mixed, const CubeExchange<typename F::device>& how, Index begin, Index cases) {
  using T = typename F::value_type;
  using D = typename F::device;
  const F x = value(mixed);
  Grid grid = x.grid();
  require(grid.cases == how.cases && begin >= 0 && begin + cases <= how.cases, "recovered",
          "cases ", begin, " to ", begin + cases - 1, " of ", grid, ", exchanged among ",
          how.cases);
  grid.cases = cases;
  F y(grid, x.tracked());
  D::launch_rows(
      grid.rows(), grid.channels,
      RecoverKernel<T>{how.order(how.back), begin, grid.channels, x.data(), y.mutable_data()});
  record_dense(y, {}, [=](const T* g) {
    D::launch_rows(
        grid.rows(), grid.channels,
        RecoverPull<T>{how.order(how.back), begin, grid.channels, g, x.gradient_to_add()});
  });
  return y;
}

/// Patches are cut into 27 cubes that change places between all cases of D_0 and D_1; the student
/// sees the mixtures, and its answers, put back, shall be the labels and those of a slow average of
/// itself. The run's own network, or its average, predicts.
///
///   source   Chen et al., MagicNet, 2023, arXiv:2212.14310, of which this is the exchange across
///            images, by Dice: no branch for the location of cubes, no cubes by themselves, no
///            blending of answers by the frequency of organs. Logits are put back instead of
///            features; extents that three does not divide leave voxels where they are; the noise
///            of what the teacher sees has no limit, there it is cut off at two deviations
///
/// Cubes change places between the cases that a rank holds: several ranks mix other cases than one
/// process with the same batch does, of D_0 and of D_1 alike.
///
/// Uses D_1's partial labels: by the usual term of what is annotated; answers keep what was drawn
/// and propose annotated classes nowhere else.
template <Network Net>
struct CubeShuffle {
  using F = typename Net::Features;
  Frozen<Net> teacher;
  float keep = 0.99f;   // of the teacher, per step
  float labelled = 1;   // of the recovered D_0
  float weight = 0.1f;  // of the recovered D_1 after its warm-up
  float noise = 0.1f;   // of what the teacher sees, in the units of the normalised image
  Index parts = 3;      // cubes along each axis

  template <class Now>
  typename Now::Value loss(Now& now) {
    require<ConfigError>(parts >= 1, "CubeShuffle", parts,
                         " cubes along each axis; give 1 or more");
    if (now.partial.empty()) return {};
    const Grid grid = now.full.image.grid();
    const Index known = grid.cases, others = now.partial.image.grid().cases;
    const auto exchange =
        CubeExchange<typename F::device>::draw(CubeCut::of(grid, parts), known + others);
    const auto answer = no_grad([&] { return teacher(add_noise(now.partial.image, noise)); });
    const auto labels = complete(now.partial.labels, answer);
    const F logits = now.student(exchanged(now.full.image, now.partial.image, exchange));
    const F of_known = recovered(logits, exchange, 0, known),
            of_others = recovered(logits, exchange, known, others);
    return labelled * now.criterion_with(Dice{}, of_known, now.full.labels) +
           now.clock.ramp(weight) * now.criterion_with(Dice{}, of_others, labels);
  }
  void after_step(auto& now) { follow(teacher, keep, now); }
  static void options(auto& self, auto&& visit) {
    visit("keep", self.keep, between(0, 1));
    visit("labelled", self.labelled, at_least(0));
    visit("weight", self.weight, at_least(0));
    visit("noise", self.noise, at_least(0));
    visit("parts", self.parts, at_least(1));
  }
  static void members(auto& self, auto&& visit) { visit("teacher", self.teacher); }
};

}  // namespace segmed
