// SPDX-License-Identifier: Apache-2.0
// The table from names to networks; each rank is compiled once, in networks.cpp.
#pragma once
#include "recipe.hpp"
#include <segmed/backend/backend.hpp>
#include <segmed/nn/any_network.hpp>

namespace experiments {

using Flat = segmed::Features<2, float, segmed::Cpu>;
using Solid = segmed::Features<3, float, segmed::Cpu>;

/// The names that --network takes.
std::vector<std::string> network_names();

/// Builds the recipe's network with starting weights from `seed`.
///
///   throws   ConfigError for a name that is not in the table
template <class F>
segmed::AnyNetwork<F> network_of(const Recipe& recipe, std::uint64_t seed);
extern template segmed::AnyNetwork<Flat> network_of<Flat>(const Recipe&, std::uint64_t);
extern template segmed::AnyNetwork<Solid> network_of<Solid>(const Recipe&, std::uint64_t);

}  // namespace experiments
