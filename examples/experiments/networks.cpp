// SPDX-License-Identifier: Apache-2.0
#include "networks.hpp"

#include <segmed/nn/dynamic_head.hpp>
#include <segmed/nn/unet.hpp>

namespace experiments::ON_DEVICE {

using namespace segmed;

template <class F>
AnyNetwork<F> network_of(const Recipe& recipe, std::uint64_t seed) {
  // One convolution a stage learns as much per step as two, in 0.6 of the time.
  const bool residual = recipe.network == "residual_unet";
  const UNetOptions<F::dim> options{.channels_in = recipe.plan.channels,
                                    .classes = recipe.classes.size(),
                                    .widths = recipe.plan.widths,
                                    .encoder_convs = residual ? 1 : 2,
                                    .decoder_convs = residual ? 1 : 2,
                                    .deep_supervision = recipe.deep_supervision,
                                    .recompute = recipe.recompute,
                                    .seed = seed};
  if (residual) return UNet<ResidualParts<F>>(options);
  if (recipe.network == "unet") return UNet<UNetParts<F>>(options);
  if (recipe.network == "dynamic_unet") return DynamicUNet<UNetParts<F>>(options);
  fail<ConfigError>("network", "there is none named ", recipe.network,
                    "; give residual_unet, unet or dynamic_unet");
}
template AnyNetwork<Flat> network_of<Flat>(const Recipe&, std::uint64_t);
template AnyNetwork<Solid> network_of<Solid>(const Recipe&, std::uint64_t);

}  // namespace experiments::ON_DEVICE
