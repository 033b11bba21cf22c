// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>
#include <segmed/image/volume.hpp>

namespace segmed {

/// The pieces of a mask, which hang together by faces, edges and corners, found from its runs along
/// x: runs that touch one of an earlier row join its piece, and a piece goes by its first run.
class PieceFinder {
 public:
  PieceFinder(const std::vector<std::uint8_t>& mask, const Extent3& extent) : width_(extent[0]) {
    const auto [nx, ny, nz] = extent;
    begin_.push_back(0);
    for (Index row = 0; row < ny * nz; ++row) {
      const Index y = row % ny;
      add_runs(mask.data() + row * nx);
      if (y > 0) join(row, row - 1);
      if (row < ny) continue;
      for (Index other = std::max<Index>(0, y - 1); other <= std::min(ny - 1, y + 1); ++other)
        join(row, row - y - ny + other);
    }
  }
  /// The voxels of the largest; of equal pieces the one that begins first.
  std::vector<std::uint8_t> largest() {
    std::vector<Index> sizes(runs_.size(), 0);
    Index best = 0;
    for (Index r = 0; r < Index(runs_.size()); ++r)
      sizes[std::size_t(first_of(r))] += runs_[std::size_t(r)].end - runs_[std::size_t(r)].begin;
    for (Index r = 1; r < Index(runs_.size()); ++r)
      if (sizes[std::size_t(r)] > sizes[std::size_t(best)]) best = r;
    const Index rows = Index(begin_.size()) - 1;
    std::vector<std::uint8_t> kept(std::size_t(rows * width_));
    for (Index row = 0; row < rows; ++row)
      for (Index r = begin_[std::size_t(row)]; r < begin_[std::size_t(row + 1)]; ++r)
        if (first_of(r) == best)
          std::fill_n(kept.begin() + row * width_ + runs_[std::size_t(r)].begin,
                      runs_[std::size_t(r)].end - runs_[std::size_t(r)].begin, std::uint8_t(1));
    return kept;
  }

 private:
  struct Run {
    Index begin, end, piece;  // along x; an earlier run of the same piece, or itself
  };
  void add_runs(const std::uint8_t* row) {
    for (Index x = 0; x < width_; ++x) {
      if (row[x] == 0) continue;
      const Index begin = x;
      while (x < width_ && row[x] != 0) ++x;
      runs_.push_back({begin, x, Index(runs_.size())});
    }
    begin_.push_back(Index(runs_.size()));
  }
  /// Joins what touches in two rows that are neighbours.
  void join(Index row, Index earlier) {
    Index a = begin_[std::size_t(row)], b = begin_[std::size_t(earlier)];
    const Index last_a = begin_[std::size_t(row + 1)], last_b = begin_[std::size_t(earlier + 1)];
    while (a < last_a && b < last_b) {
      const Run &one = runs_[std::size_t(a)], &other = runs_[std::size_t(b)];
      if (one.begin <= other.end && other.begin <= one.end) unite(a, b);
      (one.end < other.end ? a : b) += 1;
    }
  }
  Index first_of(Index run) {
    while (runs_[std::size_t(run)].piece != run) {
      Index& piece = runs_[std::size_t(run)].piece;
      piece = runs_[std::size_t(piece)].piece;  // a shorter way for the next who asks
      run = piece;
    }
    return run;
  }
  void unite(Index a, Index b) {
    const Index first = first_of(a), second = first_of(b);
    runs_[std::size_t(std::max(first, second))].piece = std::min(first, second);
  }

  Index width_;
  std::vector<Run> runs_;
  std::vector<Index> begin_;  // of each row's runs
};

/// The voxels of the largest piece of a mask; pieces hang together by faces, edges and corners. Of
/// equal pieces the one that begins first.
///
///   shapes   mask and result x fastest, extent[0] * extent[1] * extent[2] values, 0 or not
///   throws   ShapeError when the mask has another size
inline std::vector<std::uint8_t> largest_component(const std::vector<std::uint8_t>& mask,
                                                   const Extent3& extent) {
  const auto [nx, ny, nz] = extent;
  require(nx >= 1 && ny >= 1 && nz >= 1 && Index(mask.size()) == nx * ny * nz, "component",
          "a mask of ", mask.size(), " voxels is not ", nx, "x", ny, "x", nz);
  return PieceFinder(mask, extent).largest();
}

}  // namespace segmed
