// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
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

/// The pieces of a mask. Neighbouring rows are bundled so that what touches inside a bundle always
/// hangs together, which is 2 x 2 rows along x where corners join, 2 where edges do: a bundle's
/// runs are then whole, and only bundles have to be joined, where bits of their outer rows meet. A
/// piece goes by its first run. Slabs of bundles are joined side by side, then their seams. Pieces
/// are numbered from 1 by their first voxels in memory. Keeps a reference to the mask.
///
///   throws   ConfigError when the connectivity is none, ShapeError when the mask has another size
///            or more runs than an int counts
class PieceFinder {
 public:
  PieceFinder(const std::vector<std::uint8_t>& mask, const Extent3& extent, Connectivity c)
      : mask_(mask.data()),
        width_(extent[0]),
        height_(extent[1]),
        depth_(extent[2]),
        words_((width_ + 63) / 64),
        connectivity_(c) {
    const auto [nx, ny, nz] = extent;
    require(nx >= 1 && ny >= 1 && nz >= 1 && Index(mask.size()) == nx * ny * nz, "component",
            "a mask of ", mask.size(), " voxels is not ", nx, "x", ny, "x", nz);
    require<ConfigError>(
        c == Connectivity::faces || c == Connectivity::edges || c == Connectivity::corners,
        "component", "connectivity ", int(c), " is none of 6, 18 and 26");
    tall_ = c == Connectivity::faces ? 1 : 2;
    deep_ = c == Connectivity::corners ? 2 : 1;
    across_ = (height_ + tall_ - 1) / tall_;
    bundles_ = across_ * ((depth_ + deep_ - 1) / deep_);
    find_runs();
    // As many slabs as the bundles say: seams cost time on one thread.
    const Index slab = std::max<Index>(16, (bundles_ + 15) / 16);
    parallel_for(bundles_, slab, [&](Index begin, Index end) {
      for (Index b = begin; b < end; ++b) {
        measure_runs(b);
        join_earlier(b, begin, bundles_);
      }
    });
    for (Index seam = slab; seam < bundles_; seam += slab)
      for (Index b = seam; b < std::min({bundles_, seam + slab, seam + across_ + 1}); ++b)
        join_earlier(b, 0, seam);
    number();
  }

  /// Voxels by number of their piece, first those outside of all.
  const std::vector<Index>& sizes() const { return sizes_; }
  /// Writes value(piece) to each of its voxels, value(0) to those outside.
  template <class T, class Value>
  void paint(T* voxels, const Value& value) const {
    const Index rows = tall_ * deep_;
    parallel_for(bundles_, 16, [&](Index begin, Index end) {
      Scratch<T> whole(rows > 1 ? width_ : 0);
      for (Index b = begin; b < end; ++b) {
        T* const row = rows > 1 ? whole.data() : voxels + b * width_;
        std::fill_n(row, width_, value(0));
        each_stretch(b, [&](Index r, Index w, Word stretch) {
          std::fill_n(row + 64 * w + std::countr_zero(stretch), std::popcount(stretch),
                      value(runs_.data()[piece_.data()[r]].number));
        });
        for (Index k = 0; k < rows && rows > 1; ++k) {
          const Index at = row_of(b, k % tall_, k / tall_) * width_;
          if (at < 0) continue;
          for (Index x = 0; x < width_; ++x)
            voxels[at + x] = mask_[at + x] != 0 ? row[x] : value(0);
        }
      }
    });
  }

 private:
  using Word = std::uint64_t;
  struct Run {
    Index first;          // its voxel that comes first in memory; then of all its piece's
    Index voxels;         // that are set; then of all its piece's
    std::int32_t number;  // of its piece; only a piece's first run knows it
  };

  /// The row of a bundle that lies j rows and k slices into it, -1 beyond the grid.
  Index row_of(Index bundle, Index j, Index k) const {
    const Index y = bundle % across_ * tall_ + j, z = bundle / across_ * deep_ + k;
    return y < height_ && z < depth_ ? z * height_ + y : -1;
  }
  /// The bits of that row; beyond the grid none is set.
  const Word* bits_of(Index bundle, Index j, Index k) const {
    const Index row = row_of(bundle, j, k);
    return bits_.data() + (row < 0 ? height_ * depth_ : row) * words_;
  }
  /// The voxels of the rows as bits, where the runs of each bundle start, and how many start
  /// earlier.
  void find_runs() {
    const Index rows = height_ * depth_;
    bits_.grow((rows + 1) * words_);
    std::fill_n(bits_.data() + rows * words_, words_, Word(0));
    starts_.grow(bundles_ * words_);
    earlier_.grow(bundles_ * words_ + 1);
    parallel_for(bundles_, 64, [&](Index begin, Index end) {
      for (Index b = begin; b < end; ++b) {
        Word* const starts = starts_.data() + b * words_;
        std::fill_n(starts, words_, Word(0));
        for (Index k = 0; k < tall_ * deep_; ++k) {
          const Index row = row_of(b, k % tall_, k / tall_);
          if (row < 0) continue;
          for (Index w = 0; w < words_; ++w)
            starts[w] |= bits_.data()[row * words_ + w] =
                bits(mask_ + row * width_ + 64 * w, std::min<Index>(64, width_ - 64 * w));
        }
        Word before = 0;
        for (Index w = 0; w < words_; ++w) {
          const Word set = starts[w];
          starts[w] &= ~(set << 1 | before);
          before = set >> 63;
          earlier_.data()[b * words_ + w] = std::popcount(starts[w]);
        }
      }
    });
    Index runs = 0;
    for (Index w = 0; w < bundles_ * words_; ++w)
      runs += std::exchange(earlier_.data()[w], std::int32_t(runs));
    require(runs <= std::numeric_limits<std::int32_t>::max(), "component", "a mask of ", runs,
            " runs has more than can be numbered");
    earlier_.data()[bundles_ * words_] = std::int32_t(runs);
    piece_.grow(runs);
    runs_.grow(runs);
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
  /// Calls visit(run, w, stretch) for what of each of a bundle's runs lies in its word w, as bits.
  template <class Visit>
  void each_stretch(Index bundle, const Visit& visit) const {
    const Word* const starts = starts_.data() + bundle * words_;
    const Word* rows[4];
    for (Index k = 0; k < 4; ++k) rows[k] = bits_of(bundle, k % 2 % tall_, k / 2 % deep_);
    Index run = earlier_.data()[bundle * words_] - 1;
    for (Index w = 0; w < words_; ++w)
      for (Word rest = rows[0][w] | rows[1][w] | rows[2][w] | rows[3][w]; rest != 0;) {
        const Word first = rest & -rest, stretch = rest & ~(rest + first);
        run += (starts[w] & first) != 0;  // else it goes on from the word before
        visit(run, w, stretch);
        rest &= ~stretch;
      }
  }
  /// The voxels of a bundle's runs, each run as yet a piece of its own.
  void measure_runs(Index bundle) {
    Index rows[4];
    for (Index k = 0; k < 4; ++k)  // none twice
      rows[k] = k % 2 < tall_ && k / 2 < deep_ ? row_of(bundle, k % 2, k / 2) : -1;
    Index last = -1;
    each_stretch(bundle, [&](Index r, Index w, Word stretch) {
      Run& run = runs_.data()[r];
      if (r != last) run = {std::numeric_limits<Index>::max(), 0, 0};
      last = r;
      piece_.data()[r] = std::int32_t(r);
      for (const Index row : rows) {
        const Word set = row < 0 ? 0 : bits_.data()[row * words_ + w] & stretch;
        if (set == 0) continue;
        run.first = std::min(run.first, row * width_ + 64 * w + std::countr_zero(set));
        run.voxels += std::popcount(set);
      }
    });
  }
  /// Joins a bundle with those of its earlier neighbours that lie from `first` to `last` - 1.
  void join_earlier(Index bundle, Index first, Index last) {
    const Index y = bundle % across_, high = tall_ - 1, back = deep_ - 1;
    const bool diagonal = connectivity_ != Connectivity::faces;
    const bool corners = connectivity_ == Connectivity::corners;
    // Rows (j, k) of this bundle, two that may be one, and of the other.
    const auto join_if = [&](Index other, std::array<Index, 4> ours, std::array<Index, 4> theirs,
                             bool reach) {
      if (other < first || other >= last) return;
      join({bundle, bits_of(bundle, ours[0], ours[1]), bits_of(bundle, ours[2], ours[3])},
           {other, bits_of(other, theirs[0], theirs[1]), bits_of(other, theirs[2], theirs[3])},
           reach);
    };
    if (y > 0) join_if(bundle - 1, {0, 0, 0, back}, {high, 0, high, back}, diagonal);
    if (bundle < across_) return;
    const Index below = bundle - across_;
    if (connectivity_ == Connectivity::edges) {
      for (Index j = 0; j < 2; ++j) {
        join_if(below, {j, 0, j, 0}, {j, 0, j, 0}, true);
        join_if(below, {j, 0, j, 0}, {1 - j, 0, 1 - j, 0}, false);
      }
    } else {
      join_if(below, {0, 0, high, 0}, {0, back, high, back}, corners);
    }
    if (!diagonal) return;
    if (y > 0) join_if(below - 1, {0, 0, 0, 0}, {high, back, high, back}, corners);
    if (y + 1 < across_) join_if(below + 1, {high, 0, high, 0}, {0, back, 0, back}, corners);
  }
  struct Face {
    Index bundle;
    const Word *row, *other;  // voxels of either row count
  };
  /// Joins the runs of two bundles that meet in these faces: at one x, with `reach` also at the
  /// next.
  void join(const Face& ours, const Face& theirs, bool reach) {
    const Word* const our_starts = starts_.data() + ours.bundle * words_;
    const Word* const their_starts = starts_.data() + theirs.bundle * words_;
    const std::int32_t* const our_earlier = earlier_.data() + ours.bundle * words_;
    const std::int32_t* const their_earlier = earlier_.data() + theirs.bundle * words_;
    Word ours_before = 0, theirs_before = 0, met_before = 0;
    for (Index w = 0; w < words_; ++w) {
      const Word one = ours.row[w] | ours.other[w], two = theirs.row[w] | theirs.other[w];
      // With reach a voxel counts at its x and the next: those of two neighbours share one of them.
      const Word meet =
          reach ? (one | one << 1 | ours_before) & (two | two << 1 | theirs_before) : one & two;
      // The same two runs meet until one of them ends, and another starts.
      for (Word fresh = meet & (~(meet << 1 | met_before) | our_starts[w] | their_starts[w]);
           fresh != 0; fresh &= fresh - 1) {
        const Word until = fresh ^ (fresh - 1);
        unite(our_earlier[w] + std::popcount(our_starts[w] & until) - 1,
              their_earlier[w] + std::popcount(their_starts[w] & until) - 1);
      }
      ours_before = one >> 63, theirs_before = two >> 63, met_before = meet >> 63;
    }
  }
  std::int32_t first_of(std::int32_t run) {
    std::int32_t* const piece = piece_.data();
    while (piece[run] != run) run = piece[run] = piece[piece[run]];  // a shorter way for the next
    return run;
  }
  void unite(std::int32_t a, std::int32_t b) {
    const std::int32_t first = first_of(a), second = first_of(b);
    piece_.data()[std::max(first, second)] = std::min(first, second);
  }
  /// Gathers at each piece's first run what its runs hold, and numbers the pieces by their first
  /// voxels: a bit for each of those, and a number is how many bits there are up to it.
  void number() {
    const Index rows = height_ * depth_, runs = earlier_.data()[bundles_ * words_];
    std::int32_t* const piece = piece_.data();
    std::vector<std::int32_t> pieces;
    for (std::int32_t r = 0; r < runs; ++r) {
      const std::int32_t first = piece[r] = piece[piece[r]];
      if (first == r) {
        pieces.push_back(r);
      } else {
        Run &whole = runs_.data()[first], &part = runs_.data()[r];
        whole.first = std::min(whole.first, part.first);
        whole.voxels += part.voxels;
      }
    }
    std::vector<Word> firsts(std::size_t((rows * width_ + 63) / 64));
    std::vector<std::int32_t> up_to(firsts.size() + 1);
    for (const std::int32_t r : pieces) {
      const auto first = std::size_t(runs_.data()[r].first);
      firsts[first / 64] |= Word(1) << first % 64;
    }
    for (std::size_t w = 0; w < firsts.size(); ++w)
      up_to[w + 1] = up_to[w] + std::popcount(firsts[w]);
    sizes_.assign(pieces.size() + 1, 0);
    sizes_[0] = rows * width_;
    for (const std::int32_t r : pieces) {
      Run& whole = runs_.data()[r];
      const auto first = std::size_t(whole.first);
      whole.number = up_to[first / 64] + std::popcount(firsts[first / 64] << (63 - first % 64));
      sizes_[std::size_t(whole.number)] = whole.voxels;
      sizes_[0] -= whole.voxels;
    }
  }

  const std::uint8_t* mask_;
  Index width_, height_, depth_, words_;
  Connectivity connectivity_;
  Index tall_, deep_, across_, bundles_;  // rows and slices of a bundle; bundles of a slice, of all
  Scratch<Word> bits_, starts_;           // of each row its voxels, of each bundle its runs' first
  Scratch<std::int32_t> earlier_;         // runs that start before each of those words
  Scratch<std::int32_t> piece_;           // of each run: an earlier run of its piece, or itself
  Scratch<Run> runs_;
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
  pieces.paint(found.labels.data(), [](std::int32_t piece) { return piece; });
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
  pieces.paint(kept.data(),
               [&](std::int32_t piece) { return std::uint8_t(piece != 0 && piece == largest); });
  return kept;
}

}  // namespace segmed
