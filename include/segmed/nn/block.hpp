// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <vector>

#include <segmed/autograd/perturb.hpp>
#include <segmed/nn/layer.hpp>

namespace segmed {

/// What a stage of a network asks of its block.
template <std::size_t Dim>
struct BlockOptions {
  std::array<Index, Dim> stride = filled<Dim>(1);  // of the first convolution
  std::array<Index, Dim> kernel = filled<Dim>(3);
  int convs = 2;
  float dropout = 0;  // of whole channels, after each activation but the last

  template <std::size_t N>
  static constexpr std::array<Index, N> filled(Index x) {
    std::array<Index, N> a{};
    for (auto& e : a) e = x;
    return a;
  }
};

/// Convolution and normalisation; the convolution has no bias, since normalisation would take it
/// away again.
template <FeatureMap F, class Norm>
struct ConvNorm {
  Conv<F> conv;
  Norm norm;
  ConvNorm(Index in, Index out, const ConvGeometry<F::dim>& g)
      : conv(in, out, g, false), norm(out) {}
  F operator()(const F& x) const { return norm(conv(x)); }
  static void members(auto& self, auto&& visit) {
    visit("conv", self.conv);
    visit("norm", self.norm);
  }
};

/// Convolution, normalisation, activation, repeated.
template <FeatureMap F, class Norm = InstanceNorm<F>, class Act = LeakyRelu>
struct ConvBlock {
  using Features = F;
  using Norms = Norm;
  using Options = BlockOptions<F::dim>;
  std::vector<ConvNorm<F, Norm>> units;
  std::vector<Act> acts;
  Options options;

  ConvBlock(Index in, Index out, const Options& o = {}) : options(o) {
    require<ConfigError>(o.convs >= 1, "ConvBlock", "convs is ", o.convs, "; give at least 1");
    auto geometry = ConvGeometry<F::dim>::cubic(1);
    geometry.kernel = o.kernel;
    for (std::size_t a = 0; a < F::dim; ++a) geometry.padding[a] = (o.kernel[a] - 1) / 2;
    for (int i = 0; i < o.convs; ++i) {
      geometry.stride = i == 0 ? o.stride : Options{}.stride;
      units.emplace_back(i == 0 ? in : out, out, geometry);
      acts.push_back(activation_for<Act>(out));
    }
  }
  /// Everything but the last activation, for blocks that add to it first. Takes its input over, so
  /// that in use, without a tape, nothing keeps it longer than the first convolution reads it.
  F body(F x) const {
    F y = units[0](x);
    x = {};
    for (std::size_t i = 1; i < units.size(); ++i)
      y = units[i](channel_dropout(acts[i - 1](y), options.dropout));
    return y;
  }
  F activate(const F& x) const { return acts.back()(x); }
  F operator()(F x) const { return activate(body(std::move(x))); }
  static void members(auto& self, auto&& visit) {
    visit("units", self.units);
    visit("acts", self.acts);
  }
};

/// A block that adds its input to its result before the last activation; where channels or extents
/// change, a 1x1 convolution and a normalisation carry the input over.
///
///   source   He et al., Deep residual learning, 2016, arXiv:1512.03385, section 3.2
template <class Block>
struct Residual {
  using Features = typename Block::Features;
  using F = Features;
  using Options = typename Block::Options;
  Block block;
  std::optional<ConvNorm<F, typename Block::Norms>> shortcut;

  Residual(Index in, Index out, const Options& o = {}) : block(in, out, o) {
    if (in == out && o.stride == Options{}.stride) return;
    auto geometry = ConvGeometry<F::dim>::cubic(1);
    geometry.stride = o.stride;
    shortcut.emplace(in, out, geometry);
  }
  F operator()(const F& x) const {
    return block.activate(block.body(x) + (shortcut ? (*shortcut)(x) : x));
  }
  static void members(auto& self, auto&& visit) {
    visit("block", self.block);
    if (self.shortcut) visit("shortcut", *self.shortcut);
  }
};

/// Raises the resolution by a transposed convolution.
template <FeatureMap F>
struct TransposedUp {
  TransposedConv<F> conv;
  TransposedUp(Index in, Index out, const std::array<Index, F::dim>& factor)
      : conv(in, out, factor) {}
  F operator()(const F& x) const { return conv(x); }
  static void members(auto& self, auto&& visit) { visit("conv", self.conv); }
};
/// Raises the resolution by interpolation; a 1x1 convolution before it sets the channels.
template <FeatureMap F, Interpolation how>
struct InterpolatedUp {
  Conv<F> conv;
  std::array<Index, F::dim> factor;
  InterpolatedUp(Index in, Index out, const std::array<Index, F::dim>& by)
      : conv(in, out, {.kernel = 1}), factor(by) {}
  F operator()(const F& x) const { return upsample(conv(x), factor, how); }
  static void members(auto& self, auto&& visit) { visit("conv", self.conv); }
};
template <FeatureMap F>
using LinearUp = InterpolatedUp<F, Interpolation::linear>;
template <FeatureMap F>
using NearestUp = InterpolatedUp<F, Interpolation::nearest>;

}  // namespace segmed
