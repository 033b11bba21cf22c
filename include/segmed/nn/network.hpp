// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <vector>

#include <segmed/autograd/features.hpp>
#include <segmed/autograd/module.hpp>

namespace segmed {

template <class N>
concept CallsFeatures = requires(const N& net, const typename N::Features& x) {
  { net(x) } -> std::same_as<typename N::Features>;
};
/// From a batch of images to one logit per class and voxel: a copyable module with
/// `using Features = ...` and `Features operator()(const Features&) const`.
template <class N>
concept Network =
    Module<N> && FeatureMap<typename N::Features> && std::copyable<N> && CallsFeatures<N>;

/// A network that shows its decoder's features, so that a policy can put a head of its own on them.
template <class N>
concept SplitNetwork = Network<N> && requires(const N& net, const typename N::Features& x) {
  net.classify(net.features(x));
};
/// A network with logits at several resolutions, the finest first, for deep supervision.
template <class N>
concept DeepNetwork = Network<N> && requires(const N& net, const typename N::Features& x) {
  net.outputs(x).front();
};

}  // namespace segmed
