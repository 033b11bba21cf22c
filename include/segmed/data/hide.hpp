// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <segmed/data/example.hpp>
#include <segmed/data/split.hpp>

namespace segmed {

/// Which classes a named case or center annotates.
struct ClassList {
  std::string name;
  AnnotatedSet annotated;
};

/// Reads lines "NAME: class class ...". Commas may stand between the classes, "all" means every
/// class, "none" or nothing means no class; empty lines and what follows a # are skipped.
///
///   throws   FileError when the file cannot be read, DataError naming the line that is wrong
inline std::vector<ClassList> read_class_lists(const std::string& path, const ClassTable& classes) {
  std::ifstream file(path);
  require<FileError>(file.good(), "class lists", path, ": cannot be read");
  std::vector<ClassList> lists;
  std::string line;
  for (Index number = 1; std::getline(file, line); ++number) {
    line = line.substr(0, line.find('#'));
    for (char& c : line)
      if (c == ',' || c == '\t' || c == '\r') c = ' ';
    if (line.find_first_not_of(' ') == std::string::npos) continue;
    const std::size_t colon = line.find(':');
    require<DataError>(colon != std::string::npos && colon > 0, "class lists", path, " line ",
                       number, ": has no name with a colon; write \"name: class class\"");
    ClassList list;
    std::string word;
    for (const char c : line.substr(0, colon))
      if (c != ' ') list.name += c;
    for (const char c : line.substr(colon + 1) + ' ') {
      if (c != ' ') {
        word += c;
      } else if (!word.empty()) {
        const Index found = classes.find(word);
        require<DataError>(found > 0 || word == "all" || word == "none", "class lists", path,
                           " line ", number, ": class ", word,
                           " is not in the class table, which has ", classes.text());
        if (word == "all") list.annotated = classes.all();
        if (found > 0) list.annotated = list.annotated.with(found);
        word.clear();
      }
    }
    for (const ClassList& other : lists)
      require<DataError>(other.name != list.name, "class lists", path, " line ", number, ": ",
                         list.name, " stands twice");
    lists.push_back(std::move(list));
  }
  return lists;
}

/// Hides labels of fully annotated cases, so that they become the D_1 of an experiment.
struct Hide {
  enum class Mode {
    nothing,
    classes,
    keep,
    fraction,
    probability,
    named,
    cases,
    centers,
    everything
  };
  Mode mode = Mode::nothing;
  Index count = 0;  // classes, keep: how many of each case's annotated classes are hidden, stay
  float probability = 0;    // probability: of each class of each case; cases: of each case;
                            // fraction: the part of each case's annotated classes that is hidden
  AnnotatedSet named = {};  // named: hidden in every case
  std::vector<ClassList>
      centers;  // centers: each case is given to one of them, which annotates these

  /// What `parse` reads.
  static constexpr const char* forms =
      "nothing, classes:K, keep:K, fraction:P, probability:P, named:CLASS+CLASS, cases:P, "
      "centres:FILE, everything";

  /// Reads one of `forms` ("centers:FILE" too): K classes of each case are hidden or stay; the part
  /// P of them; each with probability P; these in every case; all of a case with probability P.
  ///
  ///   throws   ConfigError for another text or a number out of range
  static Hide parse(const std::string& text, const ClassTable& classes) {
    const std::size_t colon = text.find(':');
    const std::string word = text.substr(0, colon);
    const std::string value = colon == std::string::npos ? "" : text.substr(colon + 1);
    const auto number = [&](double low, double high) {
      char* end = nullptr;
      const double read = std::strtod(value.c_str(), &end);
      require<ConfigError>(!value.empty() && *end == 0 && read >= low && read <= high, "hide", "\"",
                           text, "\" needs a number from ", low, " to ", high, " after the colon");
      return read;
    };
    Hide hide;
    if (word == "classes" || word == "keep") {
      const double read = number(0, double(classes.size() - 1));
      require<ConfigError>(read == std::floor(read), "hide", "\"", text,
                           "\" needs a whole number after the colon");
      hide.mode = word == "keep" ? Mode::keep : Mode::classes, hide.count = Index(read);
    } else if (word == "probability" || word == "fraction" || word == "cases") {
      hide.mode = word == "cases"      ? Mode::cases
                  : word == "fraction" ? Mode::fraction
                                       : Mode::probability;
      hide.probability = float(number(0, 1));
    } else if (word == "named") {
      hide.mode = Mode::named;
      for (std::size_t at = 0, end; at <= value.size(); at = end + 1) {
        end = std::min(value.find('+', at), value.size());
        const Index found = classes.find(value.substr(at, end - at));
        require<ConfigError>(found > 0, "hide", "\"", text, "\" names no class \"",
                             value.substr(at, end - at), "\"; there are ", classes.text());
        hide.named = hide.named.with(found);
      }
    } else if (word == "centres" || word == "centers") {
      hide.mode = Mode::centers, hide.centers = read_class_lists(value, classes);
      require<ConfigError>(!hide.centers.empty(), "hide", value, " names no center");
    } else {
      require<ConfigError>(
          colon == std::string::npos && (word == "everything" || word == "nothing"), "hide", "\"",
          text, "\" is none of ", forms);
      hide.mode = word == "everything" ? Mode::everything : Mode::nothing;
    }
    return hide;
  }

  /// What is left of a case's annotated classes; depends on the seed and the case's id only.
  AnnotatedSet left_of(const AnnotatedSet& before, const std::string& id,
                       std::uint64_t seed) const {
    const Philox random{seed, Purpose::hide, key_of(id), 0};
    std::vector<Index> classes;
    for (Index c = 1; c < 256; ++c)
      if (before.has(c)) classes.push_back(c);
    AnnotatedSet after = before;
    if (mode == Mode::everything) after = {};
    if (mode == Mode::classes || mode == Mode::keep || mode == Mode::fraction) {
      const Index all = Index(classes.size());
      const Index hidden = mode == Mode::classes ? std::min(count, all)
                           : mode == Mode::keep  ? all - std::min(count, all)
                                                 : Index(std::lround(probability * float(all)));
      const auto order = shuffled(all, random);
      for (Index k = 0; k < hidden; ++k)
        after = after.without(classes[std::size_t(order[std::size_t(k)])]);
    }
    if (mode == Mode::probability)
      for (const Index c : classes)
        if (random.uniform(c) < probability) after = after.without(c);
    if (mode == Mode::cases && random.uniform(0) < probability) after = {};
    if (mode == Mode::named)
      for (const Index c : classes)
        if (named.has(c)) after = after.without(c);
    if (mode == Mode::centers && !centers.empty()) {
      const ClassList& center = centers[std::size_t(random.below(0, Index(centers.size())))];
      for (const Index c : classes)
        if (!center.annotated.has(c)) after = after.without(c);
    }
    return after;
  }
};

/// Forgets the labels of the classes outside of `left`: their voxels become background, and the
/// annotated set shrinks. With no class left the case has no labels.
inline void hide_labels(Example& example, const AnnotatedSet& left) {
  AnnotatedSet kept;
  for (Index c = 1; c < 256; ++c)
    if (left.has(c) && example.annotated.has(c)) kept = kept.with(c);
  if (kept == example.annotated) return;
  example.annotated = kept;
  if (kept.none()) {
    example.labels = {};
    return;
  }
  std::array<std::uint8_t, 256> map{};
  for (Index c = 1; c < 256; ++c) map[std::size_t(c)] = std::uint8_t(kept.has(c) ? c : 0);
  map[ignored] = ignored;
  for (std::uint8_t& label : example.labels.voxels) label = map[label];
}

}  // namespace segmed
