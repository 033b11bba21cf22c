// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>

namespace segmed {

/// A voxel with this label takes part in no loss and no metric.
inline constexpr std::uint8_t ignored = 255;

/// The classes that somebody looked for in one case. A class in the set and without a voxel is
/// absent; a class outside of the set may be anywhere. Background (0) is always in it.
struct AnnotatedSet {
  std::uint64_t words[4] = {1, 0, 0, 0};  // 256 classes, as many as a label has values

  SEGMED_HD bool has(Index c) const { return (words[c / 64] >> (c % 64) & 1) != 0; }
  /// Whether a voxel on which nobody drew may turn out to be this class: background, or one that
  /// nobody looked for.
  SEGMED_HD bool open(Index c) const { return c == 0 || !has(c); }
  /// Whether this label settles what a voxel is: somebody drew it, or it lies outside of the scan.
  /// The label of a class that is not annotated says nothing; in an unlabelled case none does.
  SEGMED_HD bool settles(std::uint8_t label) const {
    if (label == ignored) return !none();
    return label != 0 && has(label);
  }
  /// Throws DataError for a class that no label can have.
  AnnotatedSet with(Index c) const {
    require<DataError>(c >= 0 && c < ignored, "AnnotatedSet", "there is no class ", c,
                       "; labels name classes 0 to 254");
    AnnotatedSet set = *this;
    set.words[c / 64] |= std::uint64_t{1} << (c % 64);
    return set;
  }
  AnnotatedSet without(Index c) const {
    AnnotatedSet set = *this;
    if (c > 0 && c < ignored) set.words[c / 64] &= ~(std::uint64_t{1} << (c % 64));
    return set;
  }
  /// Number of annotated foreground classes.
  Index count() const {
    Index total = -1;
    for (Index c = 0; c < 256; ++c) total += has(c) ? 1 : 0;
    return total;
  }
  /// No foreground class: an unlabelled case.
  SEGMED_HD bool none() const {
    return words[0] <= 1 && words[1] == 0 && words[2] == 0 && words[3] == 0;
  }

  /// Classes 0 to classes - 1.
  static AnnotatedSet all(Index classes) {
    AnnotatedSet set;
    for (Index c = 1; c < classes; ++c) set = set.with(c);
    return set;
  }
  /// The classes that are in both.
  static AnnotatedSet both(const AnnotatedSet& a, const AnnotatedSet& b) {
    AnnotatedSet set;
    for (int k = 0; k < 4; ++k) set.words[k] = a.words[k] & b.words[k];
    return set;
  }
  friend bool operator==(const AnnotatedSet&, const AnnotatedSet&) = default;
};

}  // namespace segmed
