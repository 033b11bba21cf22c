// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <segmed/core/annotated_set.hpp>
#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>
#include <segmed/core/random.hpp>
#include <segmed/image/volume.hpp>

namespace segmed {

/// One scan with what is known of it. `labels` is empty for an unlabelled case; otherwise it lies
/// on the image's grid and holds class numbers, 0 where no annotated class is, 255 where nobody
/// knows.
struct Example {
  std::string id = {}, patient = {};
  Volume<float> image = {};
  Volume<std::uint8_t> labels = {};
  AnnotatedSet annotated = {};
};

/// Bytes that an example's voxels take.
inline Index bytes_of(const Example& example) {
  return Index(example.image.voxels.size() * sizeof(float) + example.labels.voxels.size());
}

/// A case's id as the stream of its random numbers.
inline std::uint32_t key_of(std::string_view id) {
  const std::uint64_t hash = hash_of(id);
  return std::uint32_t(hash ^ (hash >> 32));
}

/// The name of a structure on the other side of the body: "kidney_left" for "kidney_right",
/// "rib_right_1" for "rib_left_1"; the name itself where no part of it says left or right.
inline std::string mirrored_name(const std::string& name) {
  std::string other;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('_', begin), name.size());
    const std::string word = name.substr(begin, end - begin);
    other += word == "left" ? "right" : word == "right" ? "left" : word;
    if (end < name.size()) other += '_';
    begin = end + 1;
  }
  return other;
}

/// The classes of a data set: their names by number, background first, and each class's partner on
/// the other side of the body (itself where there is none).
struct ClassTable {
  std::vector<std::string> names = {"background"};
  std::vector<std::uint8_t> mirror = {0};

  /// A table from the foreground names; left/right pairs are found by name.
  ///
  ///   throws   ConfigError for more than 254 names, an empty one, or one that stands twice
  static ClassTable of(const std::vector<std::string>& foreground) {
    require<ConfigError>(foreground.size() <= 254, "classes", foreground.size(),
                         " classes are more than the 254 that a label can hold");
    ClassTable table;
    for (const std::string& name : foreground) {
      require<ConfigError>(!name.empty(), "classes", "a class has no name");
      require<ConfigError>(table.find(name) < 0, "classes", "class ", name, " stands twice");
      table.names.push_back(name);
    }
    table.mirror.resize(table.names.size());
    for (Index c = 0; c < table.size(); ++c) {
      const Index partner = table.find(mirrored_name(table.names[std::size_t(c)]));
      table.mirror[std::size_t(c)] = std::uint8_t(partner < 0 ? c : partner);
    }
    return table;
  }
  /// Number of classes, with background.
  Index size() const { return Index(names.size()); }
  /// The foreground's names, for messages.
  std::string text() const {
    std::string all;
    for (std::size_t c = 1; c < names.size(); ++c) all += (c > 1 ? ", " : "") + names[c];
    return all;
  }
  /// Number of a class, or -1.
  Index find(std::string_view name) const {
    for (std::size_t c = 0; c < names.size(); ++c)
      if (names[c] == name) return Index(c);
    return -1;
  }
  /// All foreground classes.
  AnnotatedSet all() const { return AnnotatedSet::all(size()); }
  /// What is left of an annotated set when left and right change places.
  AnnotatedSet mirrored(const AnnotatedSet& set) const {
    AnnotatedSet other;
    for (Index c = 1; c < size(); ++c)
      if (set.has(c)) other = other.with(mirror[std::size_t(c)]);
    return other;
  }
  friend bool operator==(const ClassTable&, const ClassTable&) = default;
};

/// What a case is for. Training takes `full` cases as D_0 and `partial` and `unlabelled` ones as
/// D_1; `validation` is D_val; `test` is a test split that the data set itself declares.
enum class Part : std::uint8_t { full, partial, unlabelled, validation, test };

/// The part's name as tables and JSON write it.
inline const char* name_of(Part part) {
  constexpr const char* names[] = {"full", "partial", "unlabelled", "validation", "test"};
  return names[std::size_t(part)];
}
/// The part that a training case with these annotated classes is in.
inline Part part_of(const AnnotatedSet& annotated, Index classes) {
  if (annotated == AnnotatedSet::all(classes)) return Part::full;
  return annotated.none() ? Part::unlabelled : Part::partial;
}

/// What is known of a case before its voxels are read.
struct CaseInfo {
  std::string id = {}, patient = {};
  Part part = Part::unlabelled;
  AnnotatedSet annotated = {};
  bool has_labels = false;
};

/// A data set: a plain struct with the classes, the number of cases, what is known of each, and its
/// voxels. `load` is called from several threads at once and throws what segmed throws.
template <class C>
concept Cohort = requires(const C& cohort, Index i) {
  { cohort.class_table() } -> std::convertible_to<ClassTable>;
  { cohort.size() } -> std::convertible_to<Index>;
  { cohort.info(i) } -> std::convertible_to<CaseInfo>;
  { cohort.load(i) } -> std::convertible_to<Example>;
};

/// Examples that lie in memory.
struct MemoryCohort {
  ClassTable classes;
  std::vector<Example> examples;
  std::vector<Part> parts;

  /// Appends a case; its part follows from its annotated classes.
  void add(Example example) {
    const Part part = part_of(example.annotated, classes.size());
    add(std::move(example), part);
  }
  void add(Example example, Part part) {
    examples.push_back(std::move(example));
    parts.push_back(part);
  }
  const ClassTable& class_table() const { return classes; }
  Index size() const { return Index(examples.size()); }
  CaseInfo info(Index i) const {
    const Example& example = load(i);
    return {example.id, example.patient, parts[std::size_t(i)], example.annotated,
            !example.labels.empty()};
  }
  const Example& load(Index i) const {
    require<DataError>(i >= 0 && i < size(), "cohort", "case ", i, " of ", size());
    return examples[std::size_t(i)];
  }
};
static_assert(Cohort<MemoryCohort>);

/// The numbers of the cases that are in a part.
template <Cohort C>
std::vector<Index> cases_in(const C& cohort, Part part) {
  std::vector<Index> cases;
  for (Index i = 0; i < cohort.size(); ++i)
    if (cohort.info(i).part == part) cases.push_back(i);
  return cases;
}

}  // namespace segmed
