// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include <segmed/semi/complete.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

namespace math {

/// A factor and a shift per case, and Gaussian noise of one deviation.
struct StrongChange {
  const float *factor, *shift;  // per case
  Index per_case;               // elements
  Philox random;
  float noise;

  template <class W>
  SEGMED_HD W slope(W, Index i) const {
    return W(factor[i / per_case]);
  }
  template <class W>
  SEGMED_HD W operator()(W x, Index i) const {
    return slope(x, i) * x + W(shift[i / per_case] + noise * random.normal(i));
  }
};

}  // namespace math

/// What the student is sure of on D_1 teaches it the same under two strong changes of intensity,
/// and with half of its features dropped; where it is not sure, nothing is asked. Uses D_1's
/// partial labels: in the usual term of the labels, and here drawn voxels keep their label and
/// annotated classes appear nowhere else.
///
///   throws   ConfigError for another number of views than 1 or 2
///   source   Yang et al., UniMatch, 2023, arXiv:2208.09910, without CutMix. The first strong view
///            is the loader's, the second is made here: contrast, shift and noise of the weak one;
///            the user's loss instead of cross-entropy, over the voxels that have a label instead
///            of all, and warmed up, because a network that starts from nothing is sure too early
struct UniMatch {
  static constexpr Needs needs{.strong_view = true};
  float weight = 1;          // of the whole term after its warm-up
  float strong = 0.5f;       // of the strong views together
  float features = 0.5f;     // of the dropped features
  float dropout = 0.5f;      // of whole channels
  float confidence = 0.95f;  // below which a voxel has no label
  int views = 2;             // strong ones; each is a pass forward and backward
  // Of the second strong view, in the units of the normalised image.
  float contrast = 0.4f;    // a factor up to so much above or below 1
  float brightness = 0.4f;  // a shift up to so much up or down
  float noise = 0.125f;     // a deviation

  template <class Now>
  typename Now::Value loss(Now& now) {
    static_assert(
        requires { now.levels_partial(); },
        "UniMatch: the network needs `encode`, `decode`, `classify` and `branch`; see "
        "nn/network.hpp");
    require<ConfigError>(views == 1 || views == 2, "UniMatch", views, " strong views; give 1 or 2");
    if (now.partial.empty()) return {};
    const auto labels = complete(now.partial.labels, now.logits_partial(), confidence);
    const auto felt = now.spoilt_partial(dropout);
    auto seen = now.criterion(now.student(now.partial.strong), labels);
    if (views == 2)
      seen = 0.5f * (seen + now.criterion(now.student(changed(now.partial.image)), labels));
    return now.clock.ramp(weight * strong) * seen +
           now.clock.ramp(weight * features) * now.criterion(felt, labels);
  }
  static void options(auto& self, auto&& visit) {
    visit("weight", self.weight, at_least(0));
    visit("strong", self.strong, at_least(0));
    visit("features", self.features, at_least(0));
    visit("dropout", self.dropout, half_open(0, 1));
    visit("confidence", self.confidence, between(0, 1));
    visit("views", self.views, between(1, 2));
    visit("contrast", self.contrast, between(0, 1));
    visit("brightness", self.brightness, at_least(0));
    visit("noise", self.noise, at_least(0));
  }

 private:
  /// The second strong view. A constant.
  template <FeatureMap F>
  F changed(const F& image) const {
    const Grid grid = image.grid();
    const Philox cases = Draws::next(Purpose::strong_view, 2 * grid.cases);
    std::vector<float> factor, shift;
    for (Index n = 0; n < grid.cases; ++n) {
      factor.push_back(cases.uniform(2 * n, 1 - contrast, 1 + contrast));
      shift.push_back(cases.uniform(2 * n + 1, -brightness, brightness));
    }
    using Numbers = Storage<float, typename F::device>;
    const Numbers factors(factor), shifts(shift);
    const Philox voxels = Draws::next(Purpose::noise, grid.size());
    return map(math::StrongChange{factors.read(), shifts.read(), grid.voxels() * grid.channels,
                                  voxels, noise},
               detach(image));
  }
};

}  // namespace segmed
