// SPDX-License-Identifier: Apache-2.0
// One step of a policy on made-up patches, to be compared with loops over host values.
#pragma once
#include "policy_trial.hpp"

namespace trial {

using F2 = Features<2, float, Cpu>;
using Net2 = UNet<UNetParts<F2>>;

inline Net2 small_net_2d(std::uint64_t seed = 1) {
  return Net2(
      {.classes = 3, .widths = {4, 8}, .encoder_convs = 1, .decoder_convs = 1, .seed = seed});
}

/// Patches of noise with a bright box per class; `annotated` per case, and none: unlabelled.
template <class Map>
Samples<Map> made_up(std::vector<AnnotatedSet> annotated, Index extent, std::uint64_t seed) {
  const Grid grid{Index(annotated.size()), Map::dim == 3 ? extent : 1, extent, extent, 1};
  const Philox random{seed, Purpose::sample};
  std::vector<float> image;
  std::vector<std::uint8_t> labels;
  for (Index i = 0; i < grid.rows(); ++i) {
    const Index x = i % extent, y = i / extent % extent, n = i / grid.voxels();
    const auto& set = annotated[std::size_t(n)];
    const bool first = x > 1 && x < extent / 2 && y > 2 && y < extent - 2;
    const bool second = x > extent / 2 && x < extent - 2 && y > 1 && y < extent / 2;
    const std::uint8_t label = first ? 1 : second ? 2 : 0;
    image.push_back(0.5f * random.normal(i) + 0.4f * float(label));
    labels.push_back(set.none() ? ignored : set.has(label) ? label : std::uint8_t(0));
  }
  Samples<Map> samples;
  samples.image = Map(grid, Storage<float, Cpu>(image));
  samples.labels = labels_of<Cpu>(grid, labels, annotated);
  samples.cases.assign(annotated.size(), "case");
  return samples;
}
inline AnnotatedSet everything() { return AnnotatedSet::all(3); }

/// Two cases of D_0; of D_1 one unlabelled case and one with class 1.
template <class Map = F, class L = Loss>
struct OneStep {
  Samples<Map> full = made_up<Map>({everything(), everything()}, 16, 1);
  Samples<Map> partial = made_up<Map>({AnnotatedSet{}, AnnotatedSet{}.with(1)}, 16, 2);
  Clock<Cpu> clock{3};
  L loss = {};

  OneStep() { clock.set({.seed = 3, .step = 5, .progress = 0.5f, .ramp = 0.5f}); }
  /// Every call repeats the same step, draws included.
  template <class N>
  SemiStep<N, L> now(N& net) {
    Tape::current()->clear();
    Draws::current() = {3, 5, 0};
    return {net, loss, full, partial, clock};
  }
};

template <class Map>
std::vector<float> host(const Map& x) {
  return value(x).dense().value.host();
}
/// The class of each voxel by the rules of completion, in double.
inline std::vector<std::uint8_t> completed(const Labels<Cpu>& drawn,
                                           const std::vector<float>& logits, Index classes) {
  auto labels = drawn.classes.host();
  for (std::size_t v = 0; v < labels.size(); ++v) {
    const auto& set = drawn.annotated[v / std::size_t(drawn.grid.voxels())];
    if (!set.none() && labels[v] != 0) continue;
    labels[v] = 0;
    for (Index c = 1; c < classes; ++c)
      if (!set.has(c) && logits[v * std::size_t(classes) + std::size_t(c)] >
                             logits[v * std::size_t(classes) + labels[v]])
        labels[v] = std::uint8_t(c);
  }
  return labels;
}
/// Probabilities in double.
inline std::vector<double> odds(const std::vector<float>& logits, std::size_t classes) {
  std::vector<double> p(logits.size());
  for (std::size_t v = 0; v < p.size(); v += classes) {
    double total = 0;
    for (std::size_t c = v; c < v + classes; ++c) total += std::exp(double(logits[c]));
    for (std::size_t c = v; c < v + classes; ++c) p[c] = std::exp(double(logits[c])) / total;
  }
  return p;
}
inline double cross_entropy(const std::vector<double>& p, const std::vector<std::uint8_t>& labels,
                            std::size_t classes) {
  double total = 0, voxels = 0;
  for (std::size_t v = 0; v < labels.size(); ++v)
    if (labels[v] != ignored) total -= std::log(p[v * classes + labels[v]]), ++voxels;
  return voxels > 0 ? total / voxels : 0;
}
/// The mean over cases and foreground classes.
inline double dice(const std::vector<double>& p, const std::vector<std::uint8_t>& labels,
                   std::size_t classes, std::size_t cases) {
  double value = 0;
  const std::size_t voxels = labels.size() / cases;
  for (std::size_t n = 0; n < cases; ++n)
    for (std::size_t c = 1; c < classes; ++c) {
      double both = 0, sizes = 0;
      for (std::size_t v = n * voxels; v < (n + 1) * voxels; ++v) {
        if (labels[v] == ignored) continue;
        both += labels[v] == c ? p[v * classes + c] : 0;
        sizes += p[v * classes + c] + (labels[v] == c ? 1 : 0);
      }
      value += 1 - (2 * both + 1e-5) / (sizes + 1e-5);
    }
  return value / double(cases * (classes - 1));
}

}  // namespace trial
