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
/// How a decoder raises the resolution: as the network's own does, or by interpolation after a 1x1
/// convolution.
enum class Raise { own, linear, nearest };
/// What a further decoder of a network is made with.
struct BranchOptions {
  std::uint64_t seed = 1;  // of its starting weights
  Raise raise = Raise::own;
};
/// A network that shows its encoder as well: `encode` gives features at every resolution, the
/// finest first, `decode` makes of them what `features` gives, and `branch` is a fresh decoder with
/// a head of its own, from levels to logits, so that a policy can own further decoders.
template <class N>
concept CodedNetwork = SplitNetwork<N> &&
    requires(const N& net, const typename N::Features& x, const BranchOptions& options) {
  { net.encode(x) } -> std::same_as<std::vector<typename N::Features>>;
  net.classify(net.decode(net.encode(x)));
  { net.branch(options)(net.encode(x)) } -> std::same_as<typename N::Features>;
};
/// A network with logits at several resolutions, the finest first, for deep supervision.
template <class N>
concept DeepNetwork = Network<N> && requires(const N& net, const typename N::Features& x) {
  net.outputs(x).front();
};

}  // namespace segmed
