// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/spatial.hpp>
#include <segmed/image/distance.hpp>
#include <segmed/nn/layer.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// Signed distances to the border of every foreground class, as a head shall give them.
///
///   shapes   distances and known (N, spatial..., classes - 1); known is 0 at ignored voxels, else
///   1
template <FeatureMap F>
struct LevelSets {
  F distances, known;

  /// Of labels that cover all classes; on the host, one distance transform per case and class.
  static LevelSets of(const Labels<typename F::device>& labels, Index classes) {
    using T = typename F::value_type;
    using Store = Storage<T, typename F::device>;
    const Grid grid = labels.grid.with_channels(classes - 1);
    const auto all = labels.classes.host();
    const auto voxels = std::size_t(grid.voxels()), organs = std::size_t(classes - 1);
    std::vector<T> to(std::size_t(grid.size())), known(to.size());
    std::vector<std::uint8_t> mask(voxels);
    for (std::size_t n = 0; n < std::size_t(grid.cases); ++n)
      for (std::size_t c = 0; c < organs; ++c) {
        for (std::size_t v = 0; v < voxels; ++v) mask[v] = all[n * voxels + v] == c + 1;
        const auto distances = signed_distances(mask, {grid.width, grid.height, grid.depth});
        for (std::size_t v = 0; v < voxels; ++v) {
          const std::size_t at = (n * voxels + v) * organs + c;
          to[at] = T(typename F::Wide(distances[v]));
          known[at] = T(typename F::Wide(all[n * voxels + v] == ignored ? 0 : 1));
        }
      }
    return {F(grid, Store(to)), F(grid, Store(known))};
  }
};

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
    const F known = distances(now.features_full());
    const auto wanted = LevelSets<F>::of(now.full.labels, known.grid().channels + 1);
    const auto regress =
        regression * mean_square(where(wanted.known, known, wanted.distances), wanted.distances);
    const auto agree = disagreement(known, now.logits_full());
    if (now.partial.empty()) return regress + now.clock.ramp(weight) * agree;
    const F guess = distances(now.features_partial());
    const float all = float(known.grid().cases + guess.grid().cases);
    return regress + now.clock.ramp(weight) * (float(known.grid().cases) / all * agree +
                                               float(guess.grid().cases) / all *
                                                   disagreement(guess, now.logits_partial()));
  }
  static void members(auto& self, auto&& visit) { visit("head", self.head); }

 private:
  F distances(const F& features) const { return map(math::Tanh{}, head(features)); }
  Scalar<F> disagreement(const F& signed_distance, const F& logits) const {
    const F mask = map(math::Sigmoid{}, scaled(signed_distance, -double(steepness)));
    return mean_square(mask, channel_range(softmax(logits), 1, mask.grid().channels));
  }
};

}  // namespace segmed
