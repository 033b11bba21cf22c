// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/dynamic_convolution.hpp>
#include <segmed/nn/unet.hpp>

namespace segmed {

/// A head per class that is made anew for every scan: a controller reads the mean of the
/// bottleneck and the number of a class, and writes the weights of three small convolutions that
/// tell this class from all else. All classes share the controller. Background's logit is 0, so
/// that a class is predicted where its probability by itself exceeds one half.
///
///   shapes   features (N, spatial..., channels); bottleneck (N, spatial..., its channels); result
///            (N, spatial..., classes)
///   source   Zhang et al., DoDNet, 2021, arXiv:2011.10217; one logit per class instead
///            of two (153 weights for 162), and every class in every pass instead of one task
template <FeatureMap F>
struct DynamicHead {
  using Features = F;
  using Chain = PointwiseChain<typename F::value_type>;
  Conv<F> narrow, controller;
  Index classes;  // with background

  DynamicHead(Index channels, Index bottleneck, Index class_count)
      : narrow(channels, Chain::width, {.kernel = 1}),
        controller(bottleneck + class_count - 1, Chain::size, {.kernel = 1}),
        classes(class_count) {}
  F operator()(const F& features, const F& bottleneck) const {
    const Grid grid = features.grid();
    const F background(grid.with_channels(1),
                       Storage<typename F::value_type, typename F::device>(grid.rows()));
    return value(concat(background, pointwise_chains(narrow(features), weights(bottleneck))));
  }
  /// The weights of every foreground class's convolutions, the classes side by side as voxels of a
  /// row: (N, 1..., classes - 1, 153).
  F weights(const F& bottleneck) const {
    std::array<Index, F::dim> row;
    row.fill(1);
    row.back() = classes - 1;
    const F scan = stretch(spatial_mean(bottleneck), row, Interpolation::nearest);
    return controller(concat(scan, codes(scan.grid())));
  }
  static void members(auto& self, auto&& visit) {
    visit("narrow", self.narrow);
    visit("controller", self.controller);
  }

 private:
  /// Voxel k of a row says k, one-hot.
  F codes(const Grid& grid) const {
    using T = typename F::value_type;
    const Grid coded = grid.with_channels(classes - 1);
    std::vector<T> one_hot(std::size_t(coded.size()), T(typename F::Wide(0)));
    for (Index row = 0; row < coded.rows(); ++row)
      one_hot[std::size_t(row * coded.channels + row % coded.channels)] = T(typename F::Wide(1));
    return F(coded, Storage<T, typename F::device>(one_hot));
  }
};

/// A U-Net whose head is dynamic. Train it with MaskedSigmoid{.background = false}; its options are
/// those of UNet without deep supervision.
///
///   shapes   image (N, spatial..., channels_in) of any extents; result (N, spatial..., classes)
///   throws   ConfigError for options that do not fit
///   source   Zhang et al., DoDNet, 2021, arXiv:2011.10217; see DynamicHead
template <class Parts>
struct DynamicUNet {
  using Features = typename Parts::Features;
  using F = Features;
  using Options = UNetOptions<F::dim>;
  Options options;
  UNetEncoder<Parts> encode;
  UNetDecoder<Parts> decode;
  DynamicHead<F> head;

  DynamicUNet(const Options& o)
      : options((o.check(), o)),
        encode(o),
        decode(o),
        head(o.widths.front(), o.widths.back(), o.classes) {
    require<ConfigError>(!o.deep_supervision, "DynamicUNet",
                         "there is no dynamic head at lower resolutions; leave out "
                         "deep_supervision");
    initialize(*this, o.seed);
  }
  F operator()(const F& image) const {
    const auto levels = encode(image);
    return head(decode(levels), levels.back());
  }
  static void members(auto& self, auto&& visit) {
    visit("encode", self.encode);
    visit("decode", self.decode);
    visit("head", self.head);
  }
};

}  // namespace segmed
