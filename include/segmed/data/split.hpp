// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <segmed/core/json.hpp>
#include <segmed/data/example.hpp>

namespace segmed {

/// 0 to n - 1 in an order that depends on the random numbers only.
inline std::vector<Index> shuffled(Index n, const Philox& random) {
  std::vector<Index> order(static_cast<std::size_t>(n));
  for (Index i = 0; i < n; ++i) order[std::size_t(i)] = i;
  for (Index i = n - 1; i > 0; --i)
    std::swap(order[std::size_t(i)], order[std::size_t(random.below(i, i + 1))]);
  return order;
}

/// What is known of all cases of a data set.
template <Cohort C>
std::vector<CaseInfo> infos_of(const C& cohort) {
  std::vector<CaseInfo> infos;
  for (Index i = 0; i < cohort.size(); ++i) infos.push_back(cohort.info(i));
  return infos;
}

/// The ids of the cases that an experiment uses: D_0 (full labels), D_1 (partial labels or none),
/// D_val and the test split. No patient is in two of them.
struct Split {
  std::uint64_t seed = 0;
  std::vector<std::string> full = {}, partial = {}, validation = {}, test = {};
  friend bool operator==(const Split&, const Split&) = default;
};

/// One fold of a cross-validation.
struct Fold {
  std::vector<std::string> train, validation;
  friend bool operator==(const Fold&, const Fold&) = default;
};

/// Cases grouped by patient and put into an order that depends on the seed and on the patients'
/// names, never on the order in which the files were found.
class PatientOrder {
 public:
  PatientOrder(const std::vector<CaseInfo>& cases, std::uint64_t seed, std::uint32_t draw) {
    std::map<std::string, std::vector<const CaseInfo*>> patients;
    for (const CaseInfo& info : cases) patients[info.patient].push_back(&info);
    for (auto& [patient, own] : patients)
      std::sort(own.begin(), own.end(), [](auto* a, auto* b) { return a->id < b->id; });
    std::vector<std::string> names;
    for (const auto& entry : patients) names.push_back(entry.first);
    const Philox random{seed, Purpose::split, 0, draw};
    for (const Index i : shuffled(Index(names.size()), random))
      groups_.push_back({names[std::size_t(i)], patients[names[std::size_t(i)]]});
  }
  /// Takes patients in order until `count` of their cases that pass `wanted` are found (-1: all).
  /// A patient who was taken is gone, also with cases that were not wanted or came too many.
  template <class Wanted>
  std::vector<std::string> take(Index count, const Wanted& wanted) {
    std::vector<std::string> ids;
    std::vector<Group> left;
    for (Group& group : groups_) {
      bool used = false;
      for (const CaseInfo* info : group.cases)
        if ((count < 0 || Index(ids.size()) < count) && wanted(*info)) {
          ids.push_back(info->id);
          used = true;
        }
      if (!used) left.push_back(std::move(group));
    }
    groups_.swap(left);
    return ids;
  }
  /// Removes the patients of whom any case passes `unwanted`.
  template <class Unwanted>
  void drop(const Unwanted& unwanted) {
    groups_.erase(std::remove_if(groups_.begin(), groups_.end(),
                                 [&](const Group& group) {
                                   return std::any_of(
                                       group.cases.begin(), group.cases.end(),
                                       [&](const CaseInfo* info) { return unwanted(*info); });
                                 }),
                  groups_.end());
  }

 private:
  struct Group {
    std::string patient;
    std::vector<const CaseInfo*> cases;
  };
  std::vector<Group> groups_;
};

/// Draws D_val: cases with every class annotated, of patients outside of the declared test split.
/// Cases that the data set declares for validation come first.
///
///   throws   DataError when there are too few
inline std::vector<std::string> draw_validation(const std::vector<CaseInfo>& cases, Index classes,
                                                Index count, std::uint64_t seed) {
  const auto labelled = [&](const CaseInfo& info) {
    return info.has_labels && info.annotated == AnnotatedSet::all(classes);
  };
  PatientOrder order(cases, seed, 0);
  order.drop([](const CaseInfo& info) { return info.part == Part::test; });
  auto ids = order.take(
      count, [&](const CaseInfo& info) { return info.part == Part::validation && labelled(info); });
  const auto more = order.take(count - Index(ids.size()), labelled);
  ids.insert(ids.end(), more.begin(), more.end());
  require<DataError>(
      count < 0 || Index(ids.size()) == count, "split", "D_val shall have ", count,
      " cases, but only ", ids.size(),
      " have every class annotated and are outside of the test split; ask for fewer");
  std::sort(ids.begin(), ids.end());
  return ids;
}

/// Draws D_0 and D_1 for a seed from the patients that are neither in D_val nor in the test split.
/// D_0 takes cases with every class annotated; D_1 takes any. The first n cases of D_1 are the same
/// however large D_1 is, so that a sweep over its size adds cases and exchanges none.
///
///   throws   DataError when there are too few
inline Split draw_split(const std::vector<CaseInfo>& cases, Index classes,
                        const std::vector<std::string>& validation, Index d0, Index d1,
                        std::uint64_t seed) {
  Split split;
  split.seed = seed;
  split.validation = validation;
  const auto is_held_out = [&](const CaseInfo& info) {
    return info.part == Part::test || info.part == Part::validation ||
           std::find(validation.begin(), validation.end(), info.id) != validation.end();
  };
  PatientOrder order(cases, seed, 1);
  order.drop(is_held_out);
  split.full = order.take(d0, [&](const CaseInfo& info) {
    return info.has_labels && info.annotated == AnnotatedSet::all(classes);
  });
  require<DataError>(d0 < 0 || Index(split.full.size()) == d0, "split", "D_0 shall have ", d0,
                     " cases, but only ", split.full.size(),
                     " with every class annotated are left; ask for fewer in D_0 or D_val");
  split.partial = order.take(d1, [](const CaseInfo&) { return true; });
  require<DataError>(d1 < 0 || Index(split.partial.size()) == d1, "split", "D_1 shall have ", d1,
                     " cases, but only ", split.partial.size(),
                     " are left; ask for fewer in D_0, D_1 or D_val");
  for (const CaseInfo& info : cases)
    if (info.part == Part::test) split.test.push_back(info.id);
  return split;
}

/// A split to tune on: of D_0, whole patients with `count` cases or a few more evaluate, and what
/// is left of D_0 trains with all of D_1. D_val becomes a part of the test split, so that nobody
/// looks at it. Which cases evaluate depends on D_0, `count` and the seed.
///
///   throws   DataError when no case is left in D_0, or too few are in it
inline Split inner_split(const Split& outer, const std::vector<CaseInfo>& cases, Index count,
                         std::uint64_t seed) {
  std::map<std::string, const CaseInfo*> known;
  for (const CaseInfo& info : cases) known[info.id] = &info;
  std::map<std::string, std::vector<std::string>> patients;
  std::vector<CaseInfo> own;
  for (const std::string& id : outer.full) {
    require<DataError>(known.count(id) > 0, "split", "case ", id, " of D_0 is not in the data set");
    own.push_back(*known[id]);
    patients[known[id]->patient].push_back(id);
  }
  PatientOrder order(own, seed, 3);
  std::set<std::string> evaluate;
  for (const std::string& id : order.take(count, [](const CaseInfo&) { return true; })) {
    const auto& all = patients[known[id]->patient];
    evaluate.insert(all.begin(), all.end());
  }
  require<DataError>(
      count > 0 && Index(evaluate.size()) >= count && evaluate.size() < outer.full.size(), "split",
      "of the ", outer.full.size(), " cases of D_0 ", count,
      " shall evaluate and others train; give D_0 more cases, or ask for fewer");
  Split inner = outer;
  inner.validation.assign(evaluate.begin(), evaluate.end());
  inner.full.clear();
  for (const std::string& id : outer.full)
    if (!evaluate.count(id)) inner.full.push_back(id);
  inner.test.insert(inner.test.end(), outer.validation.begin(), outer.validation.end());
  return inner;
}

/// Cuts the labelled cases outside of the test split into k folds of whole patients.
///
///   throws   ConfigError unless 2 <= k <= number of patients
inline std::vector<Fold> k_fold(const std::vector<CaseInfo>& cases, Index k, std::uint64_t seed) {
  std::vector<CaseInfo> usable;
  for (const CaseInfo& info : cases)
    if (info.has_labels && info.part != Part::test) usable.push_back(info);
  PatientOrder order(usable, seed, 2);
  order.drop([&](const CaseInfo& info) {
    return std::any_of(cases.begin(), cases.end(), [&](const CaseInfo& other) {
      return other.part == Part::test && other.patient == info.patient;
    });
  });
  std::map<std::string, std::string> patient_of;
  for (const CaseInfo& info : usable) patient_of[info.id] = info.patient;
  const auto ids = order.take(-1, [](const CaseInfo&) { return true; });
  std::vector<std::vector<std::string>> parts(1);
  for (const std::string& id : ids) {
    if (!parts.back().empty() && patient_of[parts.back().back()] != patient_of[id])
      parts.emplace_back();
    parts.back().push_back(id);
  }
  const Index patients = ids.empty() ? 0 : Index(parts.size());
  require<ConfigError>(k >= 2 && k <= patients, "k_fold", k, " folds of ", patients,
                       " labelled patients; give 2 to ", patients);
  std::vector<Fold> folds(static_cast<std::size_t>(k));
  for (Index p = 0; p < patients; ++p)
    for (Index f = 0; f < k; ++f) {
      auto& into = p % k == f ? folds[std::size_t(f)].validation : folds[std::size_t(f)].train;
      const auto& from = parts[std::size_t(p)];
      into.insert(into.end(), from.begin(), from.end());
    }
  for (Fold& fold : folds) {
    std::sort(fold.train.begin(), fold.train.end());
    std::sort(fold.validation.begin(), fold.validation.end());
  }
  return folds;
}

/// Throws DataError when a split names a case that is not there, uses a case or a patient in two
/// parts, or trains or validates on the test split that the data set declares.
inline void check_split(const Split& split, const std::vector<CaseInfo>& cases) {
  std::map<std::string, const CaseInfo*> known;
  for (const CaseInfo& info : cases) known[info.id] = &info;
  const std::pair<const char*, const std::vector<std::string>*> parts[] = {
      {"D_0", &split.full},
      {"D_1", &split.partial},
      {"D_val", &split.validation},
      {"the test split", &split.test}};
  std::map<std::string, const char*> part_of_patient, part_of_case;
  for (const auto& [name, ids] : parts)
    for (const std::string& id : *ids) {
      const auto found = known.find(id);
      require<DataError>(found != known.end(), "split", "case ", id, " of ", name,
                         " is not in the data set");
      const CaseInfo& info = *found->second;
      require<DataError>(info.part != Part::test || ids == &split.test, "split", "case ", id,
                         " of ", name, " is in the test split that the data set declares");
      const auto [earlier, first_time] = part_of_case.emplace(id, name);
      require<DataError>(first_time, "split", "case ", id, " stands twice, in ", earlier->second,
                         " and in ", name, "; take it out of one of them");
      const auto [place, fresh] = part_of_patient.emplace(info.patient, name);
      require<DataError>(fresh || place->second == name, "split", "patient ", info.patient,
                         " is in ", place->second, " and in ", name, " (case ", id,
                         "); keep all cases of a patient in one of them");
    }
}

/// Throws DataError for a case that does not annotate every class, where `who` needs all of them.
/// `otherwise`: what else can be done about it.
inline void check_whole(const char* who, const std::string& id, const AnnotatedSet& annotated,
                        const ClassTable& classes,
                        const char* otherwise = "take only the classes that it annotates") {
  const AnnotatedSet known = AnnotatedSet::both(annotated, classes.all());
  require<DataError>(known == classes.all(), who, "case ", id, " annotates ", known.count(),
                     " of the ", classes.size() - 1,
                     " classes, and every one is needed here; put it into D_1, or ", otherwise);
}

/// The numbers of cases in a data set, by id.
///
///   throws   DataError for an id that is not there
inline std::vector<Index> cases_of(const std::vector<CaseInfo>& cases,
                                   const std::vector<std::string>& ids) {
  std::map<std::string, Index> number;
  for (std::size_t i = 0; i < cases.size(); ++i) number[cases[i].id] = Index(i);
  std::vector<Index> numbers;
  for (const std::string& id : ids) {
    const auto found = number.find(id);
    require<DataError>(found != number.end(), "cases", "case ", id, " is not in the data set");
    numbers.push_back(found->second);
  }
  return numbers;
}

/// The strings of a JSON array.
inline std::vector<std::string> strings_of(const Json& json) {
  std::vector<std::string> strings;
  for (const Json& item : json.as_array()) strings.push_back(item.as_string());
  return strings;
}

/// {"seed", "full", "partial", "validation", "test"}: arrays of case ids.
inline Json to_json(const Split& split) {
  Json json;
  json["seed"] = std::to_string(split.seed);
  json["full"] = Json::list(split.full);
  json["partial"] = Json::list(split.partial);
  json["validation"] = Json::list(split.validation);
  json["test"] = Json::list(split.test);
  return json;
}
inline Split split_of(const Json& json) {
  Split split;
  split.seed = std::stoull(json.at("seed").as_string());
  split.full = strings_of(json.at("full"));
  split.partial = strings_of(json.at("partial"));
  split.validation = strings_of(json.at("validation"));
  split.test = strings_of(json.at("test"));
  return split;
}

/// [{"train", "val"}, ...], as nnU-Net's splits_final.json has it.
inline Json to_json(const std::vector<Fold>& folds) {
  Json json = Json::Array{};
  for (const Fold& fold : folds) {
    Json entry;
    entry["train"] = Json::list(fold.train);
    entry["val"] = Json::list(fold.validation);
    json.push_back(entry);
  }
  return json;
}
inline std::vector<Fold> folds_of(const Json& json) {
  std::vector<Fold> folds;
  for (const Json& entry : json.as_array())
    folds.push_back({strings_of(entry.at("train")), strings_of(entry.at("val"))});
  return folds;
}

/// A JSON file as a value.
///
///   throws   FileError when the file cannot be read or is no strict JSON
inline Json read_json(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  require<FileError>(file.good(), "json", path, ": cannot be read");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return parse_json(text, path);
}
inline void write_json(const std::string& path, const Json& json) {
  std::ofstream file(path, std::ios::binary);
  file << json.dump(2) << '\n';
  file.flush();
  require<FileError>(file.good(), "json", path, ": cannot be written; is the disk full?");
}

}  // namespace segmed
