// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/losses/entropy.hpp>
#include <segmed/semi/second_network.hpp>

namespace segmed {

/// Two networks of one kind with different starts label D_1 for each other; see with_other_start.
///
///   source   Chen et al., 2021, arXiv:2106.01226: cross-entropy of one network with
///            the other's likeliest class, on D_1 alone as in SSL4MIS; there the two starts differ
///            in kind (He and Glorot), here in seed
template <Network Net>
using CrossPseudoSupervision = LabelEachOther<Net, Net, CrossEntropy>;

}  // namespace segmed
