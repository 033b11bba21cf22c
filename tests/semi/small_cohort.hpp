// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/data/phantom.hpp>

namespace trial {

/// Scans of 24^3 voxels with two organs, both annotated in the first `labelled`; in the rest each
/// organ is or is not, by chance.
inline segmed::MemoryCohort small_cohort(segmed::Index cases = 4, segmed::Index labelled = 2) {
  return segmed::phantom::abdomen({.cases = cases,
                                   .organs = 2,
                                   .labelled = labelled,
                                   .validation = 0,
                                   .extent = {24, 24, 24},
                                   .spacing_mm = 16,
                                   .partial_views = false});
}

}  // namespace trial
