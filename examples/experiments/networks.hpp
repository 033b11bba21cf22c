// SPDX-License-Identifier: Apache-2.0
// The table from names to networks; each rank is compiled once a device, in networks.cpp.
#pragma once
#include "device.hpp"
#include "model.hpp"
#include "recipe.hpp"
#include <segmed/backend/backend.hpp>
#include <segmed/core/bfloat16.hpp>
#include <segmed/nn/any_network.hpp>

namespace experiments::ON_DEVICE {

#if defined(__CUDACC__)
using Device = segmed::Cuda;
using Number = segmed::Bfloat16;  // of feature maps; parameters, sums and losses are float
#else
using Device = segmed::Cpu;
using Number = float;
#endif
using Flat = segmed::Features<2, Number, Device>;
using Solid = segmed::Features<3, Number, Device>;

/// Builds the recipe's network with starting weights from `seed`.
///
///   throws   ConfigError for a name that is not in the table
template <class F>
segmed::AnyNetwork<F> network_of(const Recipe& recipe, std::uint64_t seed);
extern template segmed::AnyNetwork<Flat> network_of<Flat>(const Recipe&, std::uint64_t);
extern template segmed::AnyNetwork<Solid> network_of<Solid>(const Recipe&, std::uint64_t);

/// What Model::load does on this device.
Model load_model(const std::string& path);
/// Labels one patch of nothing with the recipe's network and starting weights.
void label_blank_patch(const Recipe& recipe);
/// One training run of the start's policies.
segmed::RunReport train(const TrainJob& job);
/// Throws what is wrong with the options of a start's policies.
void check_start(const Start& start);

}  // namespace experiments::ON_DEVICE
