// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <segmed/backend/memory.hpp>
#include <segmed/backend/parallel.hpp>
#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>
#include <segmed/image/volume.hpp>

namespace segmed {

/// Which neighbours hang together: those that share a face, also those that share an edge, also
/// those that share a corner. In a slice of its own that is 4, 8 and 8 neighbours.
enum class Connectivity { faces = 6, edges = 18, corners = 26 };

/// The pieces of a mask, found from its runs along x: runs that touch one of an earlier row join
/// its piece, and a piece goes by its first run. Slabs of rows are joined side by side, then their
/// seams. Pieces are numbered from 1 by their first voxels in memory.
///
///   throws   ConfigError when the connectivity is none, ShapeError when the mask has another size
///            or more runs than an int counts
class PieceFinder {
 public:
  PieceFinder(const std::vector<std::uint8_t>& mask, const Extent3& extent, Connectivity c)
      : width_(extent[0]), height_(extent[1]), rows_(extent[1] * extent[2]), connectivity_(c) {
    const auto [nx, ny, nz] = extent;
    require(nx >= 1 && ny >= 1 && nz >= 1 && Index(mask.size()) == nx * ny * nz, "component",
            "a mask of ", mask.size(), " voxels is not ", nx, "x", ny, "x", nz);
    require<ConfigError>(
        c == Connectivity::faces || c == Connectivity::edges || c == Connectivity::corners,
        "component", "connectivity ", int(c), " is none of 6, 18 and 26");
    find_edges(mask.data());
    piece_.grow(begin_.back());
    runs_.grow(begin_.back());
    // As many slabs as the rows say: seams cost time on one thread.
    const Index slab = std::max<Index>(16, (rows_ + 15) / 16);
    parallel_for(rows_, slab, [&](Index begin, Index end) {
      for (Index row = begin; row < end; ++row) {
        list_runs(row);
        join_earlier(row, begin, rows_);
      }
    });
    for (Index seam = slab; seam < rows_; seam += slab)
      for (Index row = seam; row < std::min({rows_, seam + slab, seam + height_ + 1}); ++row)
        join_earlier(row, 0, seam);
    number();
  }

  /// Voxels by number of their piece, first those outside of all.
  const std::vector<Index>& sizes() const { return sizes_; }
  /// Calls paint(first, count, piece) for every run, in any order; `first` is its first voxel.
  template <class Paint>
  void each_run(const Paint& paint) const {
    parallel_for(rows_, 64, [&](Index begin, Index end) {
      for (Index row = begin; row < end; ++row)
        for (Index r = begin_[std::size_t(row)]; r < begin_[std::size_t(row + 1)]; ++r) {
          const Run& run = runs_.data()[r];
          paint(row * width_ + run.begin, Index(run.end - run.begin), piece_.data()[r]);
        }
    });
  }

 private:
  struct Run {
    std::int32_t begin, end;  // along x
  };
  using Word = std::uint64_t;

  /// The voxels of a row that differ from the one before, as bits, and how many runs that makes.
  void find_edges(const std::uint8_t* mask) {
    words_ = width_ / 64 + 1;  // with one bit behind the row, where its last run ends
    edges_.grow(rows_ * words_);
    begin_.resize(std::size_t(rows_) + 1);
    parallel_for(rows_, 256, [&](Index first, Index end) {
      for (Index row = first; row < end; ++row) {
        Word before = 0;
        int ends = 0;
        for (Index w = 0; w < words_; ++w) {
          const Word set = bits(mask + row * width_ + 64 * w, std::min<Index>(64, width_ - 64 * w));
          const Word edges = set ^ (set << 1 | before);
          edges_.data()[row * words_ + w] = edges;
          ends += std::popcount(edges);
          before = set >> 63;
        }
        begin_[std::size_t(row) + 1] = ends / 2;
      }
    });
    for (std::size_t row = 0; row < std::size_t(rows_); ++row) begin_[row + 1] += begin_[row];
    require(begin_.back() <= std::numeric_limits<std::int32_t>::max(), "component", "a mask of ",
            begin_.back(), " runs has more than can be numbered");
  }
  /// A bit for each of at most 64 voxels.
  static Word bits(const std::uint8_t* voxels, Index count) {
    Word set = 0;
    Index i = 0;
    if constexpr (std::endian::native == std::endian::little)
      for (; i + 8 <= count; i += 8) {
        Word eight;
        std::memcpy(&eight, voxels + i, 8);
        const Word low = 0x7f7f7f7f7f7f7f7f;
        const Word high = (((eight & low) + low) | eight) & ~low;  // of each byte that is not 0
        set |= ((high >> 7) * 0x0102040810204080 >> 56) << i;
      }
    for (; i < count; ++i) set |= Word(voxels[i] != 0) << i;
    return set;
  }
  void list_runs(Index row) {
    Index at = begin_[std::size_t(row)];
    Run* const runs = runs_.data();
    bool open = false;
    for (Index w = 0; w < words_; ++w)
      for (Word edges = edges_.data()[row * words_ + w]; edges != 0; edges &= edges - 1) {
        const auto x = std::int32_t(64 * w + std::countr_zero(edges));
        if (open) {
          runs[at].end = x;
          ++at;
        } else {
          runs[at].begin = x;
          piece_.data()[at] = std::int32_t(at);
        }
        open = !open;
      }
  }
  /// Joins a row with those of its earlier neighbours that lie from `first` to `last` - 1.
  void join_earlier(Index row, Index first, Index last) {
    const Index y = row % height_;
    const bool diagonal = connectivity_ != Connectivity::faces;
    const auto join_if = [&](Index other, bool reach) {
      if (first <= other && other < last) join(row, other, reach);
    };
    if (y > 0) join_if(row - 1, diagonal);
    if (row < height_) return;
    const Index below = row - height_;
    const bool corners = connectivity_ == Connectivity::corners;
    if (diagonal && y > 0) join_if(below - 1, corners);
    join_if(below, diagonal);
    if (diagonal && y + 1 < height_) join_if(below + 1, corners);
  }
  /// Joins what touches in two rows: side by side, and with `reach` also diagonally.
  void join(Index row, Index earlier, bool reach) {
    const Run* const runs = runs_.data();
    Index a = begin_[std::size_t(row)], b = begin_[std::size_t(earlier)];
    const Index last_a = begin_[std::size_t(row + 1)], last_b = begin_[std::size_t(earlier + 1)];
    while (a < last_a && b < last_b) {
      const Run one = runs[a], other = runs[b];
      if (one.begin < other.end + reach && other.begin < one.end + reach) unite(a, b);
      const bool first_ends = one.end < other.end;
      a += first_ends, b += !first_ends;
    }
  }
  std::int32_t first_of(Index run) {
    std::int32_t* const piece = piece_.data();
    auto at = std::int32_t(run);
    while (piece[at] != at) at = piece[at] = piece[piece[at]];  // a shorter way for the next
    return at;
  }
  void unite(Index a, Index b) {
    const std::int32_t first = first_of(a), second = first_of(b);
    piece_.data()[std::max(first, second)] = std::min(first, second);
  }
  /// From the first run of each piece to the piece's number; first runs come first.
  void number() {
    sizes_.assign(1, rows_ * width_);
    std::int32_t* const piece = piece_.data();
    for (std::int32_t r = 0; r < std::int32_t(begin_.back()); ++r) {
      if (piece[r] == r) {
        piece[r] = std::int32_t(sizes_.size());
        sizes_.push_back(0);
      } else {
        piece[r] = piece[piece[r]];
      }
      const Index voxels = runs_.data()[r].end - runs_.data()[r].begin;
      sizes_[std::size_t(piece[r])] += voxels, sizes_[0] -= voxels;
    }
  }

  Index width_, height_, rows_, words_ = 0;
  Connectivity connectivity_;
  Scratch<Word> edges_;
  Scratch<Run> runs_;
  Scratch<std::int32_t>
      piece_;                 // of each run: an earlier run of its piece, or itself; then a number
  std::vector<Index> begin_;  // of each row's runs
  std::vector<Index> sizes_;
};

/// The pieces of a mask, by number.
struct Components {
  std::vector<std::int32_t> labels;  // of every voxel: 0, or the number of its piece
  std::vector<Index> sizes;          // voxels by number; the first is that of the voxels outside

  Index count() const { return Index(sizes.size()) - 1; }
};
/// Numbers the pieces of a mask from 1, by their first voxels in memory. The same for any number of
/// threads.
///
///   shapes   mask and labels x fastest, extent[0] * extent[1] * extent[2] values; the mask's are
///            0 or not
///   throws   ConfigError when the connectivity is none, ShapeError when the mask has another size
///   source   the numbers of scipy.ndimage.label
inline Components label_components(const std::vector<std::uint8_t>& mask, const Extent3& extent,
                                   Connectivity connectivity = Connectivity::corners) {
  const PieceFinder pieces(mask, extent, connectivity);
  Components found{std::vector<std::int32_t>(mask.size()), pieces.sizes()};
  pieces.each_run([&](Index first, Index count, std::int32_t piece) {
    std::fill_n(found.labels.begin() + first, count, piece);
  });
  return found;
}

/// The voxels of the largest piece of a mask; pieces hang together by faces, edges and corners. Of
/// equal pieces the one that begins first.
///
///   shapes   mask and result x fastest, extent[0] * extent[1] * extent[2] values, 0 or not
///   throws   ShapeError when the mask has another size
inline std::vector<std::uint8_t> largest_component(const std::vector<std::uint8_t>& mask,
                                                   const Extent3& extent) {
  const PieceFinder pieces(mask, extent, Connectivity::corners);
  const auto& sizes = pieces.sizes();
  const auto largest = std::max_element(sizes.begin() + 1, sizes.end()) - sizes.begin();
  std::vector<std::uint8_t> kept(mask.size());
  pieces.each_run([&](Index first, Index count, std::int32_t piece) {
    if (piece == largest) std::fill_n(kept.begin() + first, count, std::uint8_t(1));
  });
  return kept;
}

}  // namespace segmed
