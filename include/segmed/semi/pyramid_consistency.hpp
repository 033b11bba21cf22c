// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/stretch.hpp>
#include <segmed/losses/consistency.hpp>
#include <segmed/semi/partly_labelled.hpp>

namespace segmed {

/// The student's outputs at all resolutions learn from the labels and agree on D_1, less where one
/// of them diverges from their mean. Uses D_1's partial labels: in the term of the labels, for
/// every output.
///
///   throws   ConfigError for a network with one output
///   source   Luo et al., URPC, 2021, arXiv:2012.07042. Logits are raised to the finest resolution
///            linearly, then made probabilities; as many outputs as the network has, there four;
///            the labels weigh the mean of the user's loss over the outputs; no dropout
struct PyramidConsistency {
  float weight = 0.1f;  // of the term after its warm-up

  template <class Now>
  typename Now::Value supervised(Now& now) {
    auto term = labelled(now, raised(now.outputs_full()), now.full.labels);
    if constexpr (user_takes_partial_labels<Now>())
      if (any_annotated(now.partial))
        term = term + labelled(now, raised(now.outputs_partial()), now.partial.labels);
    return term;
  }
  template <class Now>
  typename Now::Value loss(Now& now) {
    static_assert(
        requires { now.outputs_partial(); },
        "PyramidConsistency: the network needs `outputs`; see nn/network.hpp");
    if (now.partial.empty()) return {};
    return now.clock.ramp(weight) * agreement(RectifiedDistance{}, raised(now.outputs_partial()));
  }
  static void options(auto& self, auto&& visit) { visit("weight", self.weight, at_least(0)); }

 private:
  /// All outputs on the grid of the finest.
  template <FeatureMap F>
  static std::vector<F> raised(const std::vector<F>& outputs) {
    require<ConfigError>(outputs.size() > 1, "PyramidConsistency",
                         "this network has an output at one resolution only; give it "
                         "deep_supervision = true and at least 3 widths");
    const Grid fine = outputs[0].grid();
    const Index extents[3] = {fine.depth, fine.height, fine.width};
    std::array<Index, F::dim> extent;
    for (std::size_t a = 0; a < F::dim; ++a) extent[a] = extents[a + 3 - F::dim];
    std::vector<F> all{outputs[0]};
    for (std::size_t s = 1; s < outputs.size(); ++s)
      all.push_back(stretch(outputs[s], extent, Interpolation::linear));
    return all;
  }
  template <class Now>
  static typename Now::Value labelled(const Now& now, const auto& outputs, const auto& labels) {
    typename Now::Value sum;
    for (const auto& output : outputs) sum = sum + now.criterion(output, labels);
    return (1 / float(outputs.size())) * sum;
  }
};

}  // namespace segmed
