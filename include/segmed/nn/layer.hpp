// SPDX-License-Identifier: Apache-2.0
// The smallest modules: convolutions, normalisations, activations.
#pragma once
#include <segmed/autograd/layer_norm.hpp>
#include <segmed/autograd/leaky_convolution.hpp>
#include <segmed/autograd/module.hpp>
#include <segmed/autograd/normalize.hpp>
#include <segmed/autograd/pointwise.hpp>
#include <segmed/autograd/pool.hpp>
#include <segmed/autograd/spatial.hpp>
#include <segmed/autograd/stretch.hpp>

namespace segmed {

/// The geometry of a convolution that is the same along every axis.
struct ConvOptions {
  Index kernel = 3, stride = 1, dilation = 1, groups = 1;
  bool bias = true;
};

/// Convolution with zero padding that keeps the extent (divided by the stride, rounded up).
///
///   source   start: He et al., 2015, arXiv:1502.01852, eq. 14, over the fan-in
template <FeatureMap F>
struct Conv {
  using Features = F;
  using Geometry = ConvGeometry<F::dim>;
  typename F::P weight, bias;
  Geometry geometry;

  Conv(Index in, Index out, ConvOptions o = {})
      : Conv(in, out, Geometry::cubic(o.kernel, o.stride, -1, o.dilation, o.groups), o.bias) {}
  Conv(Index in, Index out, const Geometry& g, bool with_bias)
      : weight(fan_in(in, g) * out, {.deviation = std::sqrt(2.0 / double(fan_in(in, g)))}),
        bias(with_bias ? out : 0),
        geometry(g) {
    require<ConfigError>(
        in > 0 && out > 0 && g.groups > 0 && in % g.groups == 0 && out % g.groups == 0, "Conv", in,
        " channels in and ", out, " out do not fit ", g.groups, " groups");
  }
  F operator()(const F& x) const { return conv(x, weight, bias, geometry); }
  /// act(conv(x)) for blocks without a normalisation: a fixed leak is applied on store where the
  /// device can.
  template <class Act>
  F operator()(const F& x, const Act& act) const {
    if constexpr (requires { double(act.leak); })
      return leaky_conv(x, weight, bias, geometry, double(act.leak));
    else
      return act((*this)(x));
  }
  static void members(auto& self, auto&& visit) {
    visit("weight", self.weight);
    visit("bias", self.bias);
  }

 private:
  static Index fan_in(Index in, const Geometry& g) {
    Index taps = 1;
    for (const Index k : g.kernel) taps *= k;
    return taps * in / std::max<Index>(1, g.groups);
  }
};

/// Transposed convolution whose kernel equals its stride: every input voxel becomes one block of
/// output voxels.
template <FeatureMap F>
struct TransposedConv {
  using Features = F;
  typename F::P weight, bias;
  ConvGeometry<F::dim> geometry;

  TransposedConv(Index in, Index out, const std::array<Index, F::dim>& stride)
      : weight(block(stride) * in * out, {.deviation = std::sqrt(2.0 / double(in))}),
        bias(out),
        geometry(ConvGeometry<F::dim>::cubic(1, 1, 0)) {
    geometry.kernel = geometry.stride = stride;
  }
  F operator()(const F& x) const { return transposed_conv(x, weight, bias, geometry); }
  static void members(auto& self, auto&& visit) {
    visit("weight", self.weight);
    visit("bias", self.bias);
  }

 private:
  static Index block(const std::array<Index, F::dim>& stride) {
    Index taps = 1;
    for (const Index s : stride) taps *= s;
    return taps;
  }
};

template <FeatureMap F>
struct InstanceNorm {
  typename F::P gain, bias;
  explicit InstanceNorm(Index channels) : gain(channels, {.constant = 1}), bias(channels) {}
  F operator()(const F& x) const { return instance_norm(x, gain, bias); }
  static void members(auto& self, auto&& visit) {
    visit("gain", self.gain);
    visit("bias", self.bias);
  }
};

/// Groups of as many channels as divide evenly, at most `Groups` groups.
template <FeatureMap F, Index Groups = 8>
struct GroupNorm {
  typename F::P gain, bias;
  Index groups = Groups;
  explicit GroupNorm(Index channels) : gain(channels, {.constant = 1}), bias(channels) {
    while (channels % groups != 0) --groups;
  }
  F operator()(const F& x) const { return group_norm(x, groups, gain, bias); }
  static void members(auto& self, auto&& visit) {
    visit("gain", self.gain);
    visit("bias", self.bias);
  }
};

template <FeatureMap F>
struct BatchNorm {
  using Statistic = Buffer<typename F::Wide, typename F::device>;
  typename F::P gain, bias;
  Statistic mean, variance;
  double momentum = 0.1;
  explicit BatchNorm(Index channels)
      : gain(channels, {.constant = 1}), bias(channels), mean(channels), variance(channels, 1) {}
  F operator()(const F& x) const { return batch_norm(x, gain, bias, {&mean, &variance, momentum}); }
  static void members(auto& self, auto&& visit) {
    visit("gain", self.gain);
    visit("bias", self.bias);
    visit("mean", self.mean);
    visit("variance", self.variance);
  }
};

/// Over the channels of each voxel by itself, as transformers have it.
template <FeatureMap F>
struct LayerNorm {
  typename F::P gain, bias;
  double epsilon;
  explicit LayerNorm(Index channels, double e = 1e-5)
      : gain(channels, {.constant = 1}), bias(channels), epsilon(e) {}
  F operator()(const F& x) const { return layer_norm(x, gain, bias, epsilon); }
  static void members(auto& self, auto&& visit) {
    visit("gain", self.gain);
    visit("bias", self.bias);
  }
};

struct Relu {
  static constexpr float leak = 0;
  auto operator()(const auto& x) const { return leaky_relu(x, 0.0); }
};
struct LeakyRelu {
  float leak = 0.01f;
  auto operator()(const auto& x) const { return leaky_relu(x, double(leak)); }
};
/// One learned slope per channel.
template <FeatureMap F>
struct Prelu {
  typename F::P slope;
  explicit Prelu(Index channels) : slope(channels, {.constant = 0.25}) {}
  F operator()(const F& x) const { return prelu(x, slope); }
  static void members(auto& self, auto&& visit) { visit("slope", self.slope); }
};
struct Gelu {
  auto operator()(const auto& x) const { return map(math::Gelu{}, x); }
};
struct Silu {
  auto operator()(const auto& x) const { return map(math::Silu{}, x); }
};

/// An activation for a number of channels; a plain one has no constructor that asks for it.
template <class Act>
Act activation_for(Index channels) {
  if constexpr (!std::is_aggregate_v<Act> && std::constructible_from<Act, Index>)
    return Act(channels);
  else
    return Act{};
}

}  // namespace segmed
