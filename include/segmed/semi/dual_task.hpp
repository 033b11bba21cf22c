// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include <segmed/image/distance.hpp>
#include <segmed/losses/lanes.hpp>
#include <segmed/nn/layer.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// Signed distances to the border of every foreground class, as a head shall give them: of labels
/// that cover all classes; on the host, one distance transform per case and class.
///
///   shapes   result (N, spatial..., classes - 1), between -1 and 1; 2 at ignored voxels
template <FeatureMap F>
F level_sets(const Labels<typename F::device>& labels, Index classes) {
  using T = typename F::value_type;
  const Grid grid = labels.grid.with_channels(classes - 1);
  const auto all = labels.classes.host();
  const auto voxels = std::size_t(grid.voxels()), organs = std::size_t(classes - 1);
  std::vector<T> to(std::size_t(grid.size()));
  std::vector<std::uint8_t> mask(voxels);
  for (std::size_t n = 0; n < std::size_t(grid.cases); ++n)
    for (std::size_t c = 0; c < organs; ++c) {
      for (std::size_t v = 0; v < voxels; ++v) mask[v] = all[n * voxels + v] == c + 1;
      const auto distances = signed_distances(mask, {grid.width, grid.height, grid.depth});
      for (std::size_t v = 0; v < voxels; ++v)
        to[(n * voxels + v) * organs + c] =
            T(typename F::Wide(all[n * voxels + v] == ignored ? 2 : distances[v]));
    }
  return F(grid, Storage<T, typename F::device>(to));
}

/// The hyperbolic tangent, without a call.
template <class N>
SEGMED_HD N level_of(const N& head) {
  return N(2) * math::logistic(N(2) * head) - N(1);
}
/// The squared distance of a head's level to the one that is wanted, if there is one.
struct LevelError {
  template <class W>
  SEGMED_HD W operator()(W head, W wanted) const {
    const W apart = level_of(head) - wanted;
    return wanted > W(1) ? W(0) : apart * apart;
  }
  template <class W>
  SEGMED_HD W first_slope(W head, W wanted) const {
    const W level = level_of(head);
    return wanted > W(1) ? W(0) : W(2) * (level - wanted) * (W(1) - level * level);
  }
  template <class W>
  SEGMED_HD W second_slope(W, W) const {
    return 0;
  }
};

/// What a head and the logits say of the same voxels.
template <class T>
struct HeadAndLogits {
  const T *head, *logits;
  Index rows, organs;
  Wide<T> steepness;  // of the sigmoid that makes a mask of a level
};
/// n voxels of them.
template <class T, int n>
struct DualVoxels {
  using W = NumbersOf<T, n>;
  using Number = Wide<T>;
  static constexpr Index kept = 16;  // classes whose numbers are formed once
  const HeadAndLogits<T>& from;
  Index row;
  W top, share;

  SEGMED_HD DualVoxels(const HeadAndLogits<T>& maps, Index first) : from(maps), row(first) {
    for (Index c = 0; few() && c <= from.organs; ++c) kept_[c] = read(c);
    top = logit(0);
    for (Index c = 1; c <= from.organs; ++c) top = math::larger(top, logit(c));
    W sum = Number(0);
    for (Index c = 0; c <= from.organs; ++c) {
      const W e = math::fast_exp(logit(c) - top);
      if (few()) kept_[c] = e;
      sum += e;
    }
    share = W(Number(1)) / sum;
    for (Index c = 0; few() && c <= from.organs; ++c) kept_[c] *= share;
  }
  SEGMED_HD bool few() const { return from.organs < kept; }
  SEGMED_HD W p(Index c) const { return few() ? kept_[c] : math::fast_exp(logit(c) - top) * share; }
  SEGMED_HD W level(Index organ) const {
    return level_of(read_lanes<n>(from.head + row * from.organs + organ, from.organs));
  }
  SEGMED_HD W mask(const W& level) const { return math::logistic(W(-from.steepness) * level); }
  SEGMED_HD W apart(Index organ) const { return mask(level(organ)) - p(organ + 1); }

 private:
  W kept_[kept];  // logits, then probabilities

  SEGMED_HD W read(Index c) const {
    const Index classes = from.organs + 1;
    return read_lanes<n>(from.logits + row * classes + c, classes);
  }
  SEGMED_HD W logit(Index c) const { return few() ? kept_[c] : read(c); }
};
template <class T, int lanes>
struct DisagreementSum {
  HeadAndLogits<T> maps;
  SEGMED_HD void operator()(Index, Index item, double* sums) const {
    each_lanes<lanes>(maps.rows, item, [&](auto n, Index row) {
      const DualVoxels<T, decltype(n)::value> x(maps, row);
      for (Index c = 0; c < maps.organs; ++c) {
        const auto apart = x.apart(c);
        sums[0] += math::total(apart * apart);
      }
    });
  }
};
template <class T, int lanes>
struct DisagreementPull {
  HeadAndLogits<T> maps;
  const Wide<T>* g;
  double size;
  T *to_head, *to_logits;  // null: no gradient is asked for
  SEGMED_HD void operator()(Index item) const {
    each_lanes<lanes>(maps.rows, item, [&](auto n, Index row) {
      using Voxels = DualVoxels<T, decltype(n)::value>;
      using W = typename Voxels::W;
      const Voxels x(maps, row);
      const W one = Wide<T>(1), up = Wide<T>(2 * double(*g) / size);
      W total = Wide<T>(0), kept[Voxels::kept];
      for (Index c = 0; c < maps.organs; ++c) {
        const W level = x.level(c), mask = x.mask(level), p = x.p(c + 1);
        const W apart = up * (mask - p);
        if (x.few()) kept[c] = apart;
        total += apart * p;
        if (to_head)
          add_lanes(to_head + row * maps.organs + c, maps.organs,
                    W(W(-maps.steepness) * (apart * mask * (one - mask)) * (one - level * level)));
      }
      for (Index c = 0; to_logits && c <= maps.organs; ++c) {
        const W apart = c == 0 ? W(Wide<T>(0)) : x.few() ? kept[c - 1] : W(up * x.apart(c - 1));
        const W p = x.p(c);
        add_lanes(to_logits + row * (maps.organs + 1) + c, maps.organs + 1, W(p * (total - apart)));
      }
    });
  }
};
/// The mean squared difference between the masks of signed distances, which are a head's hyperbolic
/// tangents, and the probabilities of the foreground classes; in one pass each way.
///
///   shapes   head (N, spatial..., classes - 1); logits (N, spatial..., classes); result scalar
template <FeatureMap F>
Scalar<F> disagreement(const F& head, const F& logits, double steepness) {
  using T = typename F::value_type;
  using W = typename F::Wide;
  using D = typename F::device;
  constexpr int lanes = lanes_of<D>;
  const F h = value(head), z = value(logits);
  const Grid grid = h.grid();
  require(z.grid() == grid.with_channels(grid.channels + 1), "disagreement", "logits ", z.grid(),
          " do not fit distances ", grid);
  const HeadAndLogits<T> maps{h.data(), z.data(), grid.rows(), grid.channels, W(steepness)};
  const auto sum =
      over_ranks(reduce<D>(1, (maps.rows + lanes - 1) / lanes, 1, DisagreementSum<T, lanes>{maps}));
  const double size = double(grid.size() * Ranks::current().size());
  Scalar<F> y(h.tracked() || z.tracked());
  D::launch(1, StoreSum<W>{sum.read(), size, y.value().write()});
  record_scalar(y, [=](const W* g) {
    launch_lanes<D>(maps.rows, DisagreementPull<T, lanes>{
                                   maps, g, size, h.tracked() ? h.gradient_to_add() : nullptr,
                                   z.tracked() ? z.gradient_to_add() : nullptr});
  });
  return y;
}

/// A second head regresses signed distances to the organs' borders; everywhere, the sign of the
/// distance and the probability shall say the same.
///
///   source   Luo et al., Dual-task consistency, 2021, arXiv:2009.04448; for several
///            classes, one distance per foreground class, compared with its softmax probability. A
///            class that is not in a patch has distance 1 there; ignored voxels have none.
///            Distances are those within the patch
///
/// Uses D_1's partial labels: by the usual term of what is annotated. Without D_1 the terms are
/// those of D_0.
template <Network Net>
struct DualTask {
  static_assert(SplitNetwork<Net>,
                "DualTask: the network must show its decoder's features; see nn/network.hpp");
  using F = typename Net::Features;
  Conv<F> head;             // 1x1, a channel per foreground class
  float regression = 0.3f;  // of the distances on D_0
  float weight = 1;         // of the consistency on all samples, after its warm-up
  float steepness = 1500;   // of the sigmoid that makes a mask of a distance

  /// With a head that fits the features of `net`, which is asked once.
  static DualTask of(const Net& net, Index classes, Index channels_in = 1, std::uint64_t seed = 1) {
    const Index depth = F::dim == 3 ? 16 : 1;
    const F image({1, depth, 16, 16, channels_in},
                  Storage<typename F::value_type, typename F::device>(depth * 256 * channels_in));
    const Index width = evaluating([&] { return net.features(image).grid().channels; });
    DualTask policy{Conv<F>(width, classes - 1, {.kernel = 1})};
    initialize(policy, seed);
    return policy;
  }
  template <class Now>
  typename Now::Value loss(Now& now) {
    const F known = head(now.features_full());
    const F wanted = level_sets<F>(now.full.labels, known.grid().channels + 1);
    const auto regress = regression * mean_of<LevelError, F>({}, known, &wanted);
    const double steep = double(steepness);
    const auto agree = disagreement(known, now.logits_full(), steep);
    if (now.partial.empty()) return regress + now.clock.ramp(weight) * agree;
    const F guess = head(now.features_partial());
    const float all = float(known.grid().cases + guess.grid().cases);
    return regress +
           now.clock.ramp(weight) *
               (float(known.grid().cases) / all * agree +
                float(guess.grid().cases) / all * disagreement(guess, now.logits_partial(), steep));
  }
  static void options(auto& self, auto&& visit) {
    visit("regression", self.regression, at_least(0));
    visit("weight", self.weight, at_least(0));
    visit("steepness", self.steepness, above(0));
  }
  static void members(auto& self, auto&& visit) { visit("head", self.head); }
};

}  // namespace segmed
