// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/convolution.hpp>
#include <segmed/autograd/normalize.hpp>

namespace segmed {

/// leaky_relu(conv(x, ...), leak), for networks without a normalisation between the two. A device
/// whose convolutions read dense tensors would write the activated map down for each reader: there
/// the convolution stores it where it can (cuDNN's fused graphs). Elsewhere the leak is pending.
///
///   shapes   as conv's; leak is the slope below zero, 0 or more
///   throws   ShapeError when channels, groups or weights do not fit; ConfigError below 0
template <FeatureMap F>
F leaky_conv(const F& x, const typename F::P& weight, const typename F::P& bias,
             const ConvGeometry<F::dim>& geometry, double leak) {
  require<ConfigError>(leak >= 0, "leaky_conv", "leak ", leak,
                       " would turn the sign; use map with a functor of your own");
  if constexpr (ConvolvesDense<typename F::device, typename F::value_type>) {
    const F y = convolved<true>(x, weight, bias, conv_window(x, weight, bias, geometry),
                                typename F::Wide(leak));
    if (!y.empty()) return y;
  }
  return leaky_relu(conv(x, weight, bias, geometry), leak);
}

}  // namespace segmed
