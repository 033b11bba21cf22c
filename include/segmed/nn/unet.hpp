// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/recompute.hpp>
#include <segmed/nn/any_decoder.hpp>
#include <segmed/nn/block.hpp>

namespace segmed {

/// The types of which a U-Net is made. Derive from it and name what shall be different.
template <FeatureMap F>
struct UNetParts {
  using Features = F;
  using Encoder = ConvBlock<F>;
  using Decoder = ConvBlock<F>;
  using Up = TransposedUp<F>;
};

template <std::size_t Dim>
struct UNetOptions {
  Index channels_in = 1;
  Index classes = 2;                                 // with background
  std::vector<Index> widths = {16, 32, 64, 128};     // channels per stage, the finest first
  std::vector<std::array<Index, Dim>> strides = {};  // into stages 1, 2, ...; empty: 2 everywhere
  int encoder_convs = 2, decoder_convs = 2;
  float dropout = 0;
  bool deep_supervision = false;  // a head at every resolution but the lowest
  bool recompute = false;         // stages run once more in backward: time for memory
  std::uint64_t seed = 1;         // of the starting weights

  std::array<Index, Dim> stride(std::size_t stage) const {
    return strides.empty() ? BlockOptions<Dim>::template filled<Dim>(2) : strides[stage - 1];
  }
  /// What an image's extent must be a multiple of, so that no stage needs padding.
  std::array<Index, Dim> divisor() const {
    auto d = BlockOptions<Dim>::template filled<Dim>(1);
    for (std::size_t s = 1; s < widths.size(); ++s)
      for (std::size_t a = 0; a < Dim; ++a) d[a] *= stride(s)[a];
    return d;
  }
  void check() const {
    require<ConfigError>(channels_in > 0 && classes >= 2 && !widths.empty(), "UNet", "channels_in ",
                         channels_in, ", classes ", classes, " and ", widths.size(),
                         " widths; give at least 1, 2 and 1");
    require<ConfigError>(strides.empty() || strides.size() == widths.size() - 1, "UNet",
                         widths.size(), " widths need ", widths.size() - 1, " strides, not ",
                         strides.size());
  }
};

/// Where nothing is recorded, a stage lets go of its input as soon as it has been read.
template <class Stage, FeatureMap F>
F run_stage(const Stage& stage, F x, bool again) {
  return again ? recompute(stage, x) : stage(std::move(x));
}

/// From an image to features at every resolution, the finest first.
template <class Parts>
struct UNetEncoder {
  using F = typename Parts::Features;
  std::vector<typename Parts::Encoder> stages;
  bool again;  // each runs once more in backward

  explicit UNetEncoder(const UNetOptions<F::dim>& o) : again(o.recompute) {
    for (std::size_t s = 0; s < o.widths.size(); ++s) {
      BlockOptions<F::dim> block{.convs = o.encoder_convs, .dropout = o.dropout};
      if (s > 0) block.stride = o.stride(s);
      stages.emplace_back(s == 0 ? o.channels_in : o.widths[s - 1], o.widths[s], block);
    }
  }
  std::vector<F> operator()(const F& image) const {
    std::vector<F> levels;
    for (const auto& stage : stages)
      levels.push_back(run_stage(stage, levels.empty() ? image : levels.back(), again));
    return levels;
  }
  static void members(auto& self, auto&& visit) { visit("stages", self.stages); }
};

/// Back from the lowest resolution to the finest, with the encoder's features beside at each level.
template <class Parts>
struct UNetDecoder {
  using F = typename Parts::Features;
  std::vector<typename Parts::Up> ups;
  std::vector<typename Parts::Decoder> stages;  // the finest first, as in the encoder
  bool again;                                   // each runs once more in backward

  explicit UNetDecoder(const UNetOptions<F::dim>& o) : again(o.recompute) {
    for (std::size_t s = 0; s + 1 < o.widths.size(); ++s) {
      ups.emplace_back(o.widths[s + 1], o.widths[s], o.stride(s + 1));
      stages.emplace_back(2 * o.widths[s], o.widths[s],
                          BlockOptions<F::dim>{.convs = o.decoder_convs, .dropout = o.dropout});
    }
  }
  /// Features at every resolution but the lowest, the finest first (a net of one stage passes its
  /// only level through).
  std::vector<F> all(std::vector<F> levels) const {
    std::vector<F> out(std::max<std::size_t>(1, stages.size()), levels.back());
    F below = std::move(levels.back());
    for (std::size_t s = stages.size(); s-- > 0;)
      out[s] = below = stage(s, std::move(below), std::move(levels[s]));
    return out;
  }
  /// The finest of them. What no tape keeps goes as soon as it has been read.
  F operator()(std::vector<F> levels) const {
    F below = std::move(levels.back());
    for (std::size_t s = stages.size(); s-- > 0;)
      below = stage(s, std::move(below), std::move(levels[s]));
    return below;
  }
  static void members(auto& self, auto&& visit) {
    visit("ups", self.ups);
    visit("stages", self.stages);
  }

 private:
  F stage(std::size_t s, F below, F level) const {
    F up = fitted(ups[s](below), level);
    F both = concat(up, level);
    below = up = level = {};
    return run_stage(stages[s], std::move(both), again);
  }
  /// Where an extent was odd, the upsampled map is one voxel too long.
  static F fitted(const F& x, const F& like) {
    const Grid have = x.grid(), want = like.grid();
    if (have.with_channels(0) == want.with_channels(0)) return x;
    const Index extents[3] = {want.depth, want.height, want.width};
    std::array<Index, F::dim> extent;
    for (std::size_t a = 0; a < F::dim; ++a) extent[a] = extents[a + 3 - F::dim];
    return window(x, {}, extent);
  }
};

/// Those of a decoder alone: networks that differ in the encoder share it.
template <FeatureMap F, class Block, class Upward>
struct BranchParts {
  using Features = F;
  using Decoder = Block;
  using Up = Upward;
};
/// A further decoder of a U-Net, with a head of its own: from the encoder's levels to logits.
template <class Parts>
struct UNetBranch {
  using F = typename Parts::Features;
  UNetDecoder<Parts> decode;
  Conv<F> head;

  UNetBranch(const UNetOptions<F::dim>& o, std::uint64_t seed)
      : decode(o), head(o.widths[0], o.classes, {.kernel = 1}) {
    initialize(*this, seed);
  }
  F operator()(const std::vector<F>& levels) const { return head(decode(levels)); }
  static void members(auto& self, auto&& visit) {
    visit("decode", self.decode);
    visit("head", self.head);
  }
};

/// U-Net, plain or residual by its parts; strided convolutions down, any `Up` back.
///
///   shapes   image (N, spatial..., channels_in) of any extents; result (N, spatial..., classes)
///   throws   ConfigError for options that do not fit
///   source   Ronneberger et al., 2015, arXiv:1505.04597; strided convolutions instead of pooling
///            and instance normalisation as in Isensee et al., nnU-Net, 2021
template <class Parts>
struct UNet {
  using Features = typename Parts::Features;
  using F = Features;
  using Options = UNetOptions<F::dim>;
  Options options;
  UNetEncoder<Parts> encode;
  UNetDecoder<Parts> decode;
  Conv<F> head;
  std::vector<Conv<F>> lower_heads;

  UNet(const Options& o)
      : options((o.check(), o)), encode(o), decode(o), head(o.widths[0], o.classes, {.kernel = 1}) {
    for (std::size_t s = 1; o.deep_supervision && s + 1 < o.widths.size(); ++s)
      lower_heads.emplace_back(o.widths[s], o.classes, ConvOptions{.kernel = 1});
    initialize(*this, o.seed);
  }
  /// What the head reads: (N, spatial..., widths[0]).
  F features(const F& image) const { return decode(encode(image)); }
  F classify(const F& features) const { return head(features); }
  F operator()(const F& image) const { return classify(features(image)); }
  /// Logits at falling resolution; one without deep supervision.
  std::vector<F> outputs(const F& image) const { return outputs(encode(image)); }
  /// The same, from what `encode` gave.
  std::vector<F> outputs(const std::vector<F>& levels) const {
    const auto decoded = decode.all(levels);
    std::vector<F> logits = {head(decoded[0])};
    for (std::size_t s = 0; s < lower_heads.size(); ++s)
      logits.push_back(lower_heads[s](decoded[s + 1]));
    return logits;
  }
  /// A fresh decoder with a head.
  AnyDecoder<F> branch(const BranchOptions& o) const {
    if (o.raise == Raise::linear) return branch_with<LinearUp<F>>(o);
    if (o.raise == Raise::nearest) return branch_with<NearestUp<F>>(o);
    return branch_with<typename Parts::Up>(o);
  }
  static void members(auto& self, auto&& visit) {
    visit("encode", self.encode);
    visit("decode", self.decode);
    visit("head", self.head);
    visit("lower_heads", self.lower_heads);
  }

 private:
  template <class Up>
  UNetBranch<BranchParts<F, typename Parts::Decoder, Up>> branch_with(
      const BranchOptions& o) const {
    return {options, o.seed};
  }
};

/// A U-Net of residual encoder blocks, as nnU-Net's ResEnc presets use them.
template <FeatureMap F>
struct ResidualParts : UNetParts<F> {
  using Encoder = Residual<ConvBlock<F>>;
};

}  // namespace segmed
