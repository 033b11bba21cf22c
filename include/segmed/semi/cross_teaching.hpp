// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/losses/region.hpp>
#include <segmed/semi/second_network.hpp>

namespace segmed {

/// Two networks of different architecture label D_1 for each other; the second is deep enough in
/// another way to err in other places.
///
///   source   Luo et al., 2022, arXiv:2112.04894: overlap (Dice) with the other's likeliest
///            class, on D_1 alone; there a convolutional network and a transformer. Dice has its
///            defaults here: no background, no squares
template <Network Net, Network Other = Net>
using CrossTeaching = LabelEachOther<Net, Other, Dice>;

}  // namespace segmed
