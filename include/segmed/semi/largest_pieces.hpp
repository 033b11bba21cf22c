// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/image/component.hpp>
#include <segmed/losses/labels.hpp>

namespace segmed {

/// Answers of which only the largest piece of every class stays in a case, and what was drawn; the
/// rest becomes background. On the host.
template <Device D>
Labels<D> largest_pieces(const Labels<D>& answers, const Labels<D>& drawn, Index classes) {
  const Grid& grid = answers.grid;
  auto labels = answers.classes.host();
  const auto people = drawn.classes.host();
  const auto voxels = std::size_t(grid.voxels());
  std::vector<std::uint8_t> mask(voxels);
  for (std::size_t n = 0; n < std::size_t(grid.cases); ++n)
    for (Index c = 1; c < classes; ++c) {
      bool any = false;
      for (std::size_t v = 0; v < voxels; ++v) any |= (mask[v] = labels[n * voxels + v] == c) != 0;
      if (!any) continue;
      const auto kept = largest_component(mask, {grid.width, grid.height, grid.depth});
      const bool known = !drawn.annotated[n].none() && drawn.annotated[n].has(c);
      for (std::size_t v = 0; v < voxels; ++v)
        if (mask[v] && !kept[v] && !(known && people[n * voxels + v] == c))
          labels[n * voxels + v] = 0;
    }
  return labels_of<D>(grid, labels, answers.annotated);
}

}  // namespace segmed
