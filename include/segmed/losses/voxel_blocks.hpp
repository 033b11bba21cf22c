// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>

#include <segmed/core/config.hpp>

namespace segmed {

/// Voxels that are summed in the type of the logits before they are added up in double. Part of the
/// numerics: another number gives other bits.
inline constexpr Index voxel_run = 2048;

/// How the voxels of a batch are cut into blocks, of which each leaves one set of partial sums:
/// enough of them to keep many threads busy, and so few that all sums stay small. A function of the
/// shape alone.
struct VoxelBlocks {
  /// What partial sums may take together, in bytes; 4 blocks of a case are allowed to take more.
  static constexpr Index most_bytes = 48 << 10;
  Index voxels, block, count;  // of a case; of a block; blocks of a case

  VoxelBlocks(Index cases, Index voxels_of_case, Index sums_of_case)
      : voxels(voxels_of_case), block(voxel_run), count(0) {
    const Index fitting =
        most_bytes / (Index(sizeof(double)) * sums_of_case * std::max<Index>(1, cases));
    const Index most = std::max<Index>(4, fitting), runs = (voxels + voxel_run - 1) / voxel_run;
    block *= std::max<Index>(1, (runs + most - 1) / most);
    count = (voxels + block - 1) / block;
  }
};

}  // namespace segmed
