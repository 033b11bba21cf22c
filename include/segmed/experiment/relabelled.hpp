// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <segmed/backend/communicator.hpp>
#include <segmed/data/loader.hpp>

namespace segmed {

/// D_1 with the labels that a policy gave it.
class Relabelled {
 public:
  struct Labels {
    std::vector<std::uint8_t> voxels;
    AnnotatedSet annotated;
  };
  bool empty() const { return labels_.empty(); }
  void set(Index i, Labels labels) { labels_[i] = std::move(labels); }
  const std::map<Index, Labels>& all() const { return labels_; }
  /// Gives every rank what each says of its share of `cases`: the first case is rank 0's, the next
  /// one rank 1's, and so on. A case at a time, for labels are as large as scans.
  void exchange(const Ranks& ranks, const std::vector<Index>& cases) {
    if (ranks.alone()) return;
    const auto n = std::size_t(ranks.size());
    for (std::size_t first = 0; first < cases.size(); first += n) {
      const std::size_t mine = first + std::size_t(ranks.rank());
      std::string text;
      if (mine < cases.size())
        if (const auto found = labels_.find(cases[mine]); found != labels_.end())
          text = written(found->second);
      const auto texts = ranks.texts(text);
      for (std::size_t r = 0; r < n && first + r < cases.size(); ++r)
        if (!texts[r].empty()) labels_[cases[first + r]] = read(texts[r]);
    }
  }
  /// A store that serves the new labels over those of `base`.
  std::shared_ptr<CaseStore> over(const std::shared_ptr<CaseStore>& base, Index budget) const {
    return std::make_shared<CaseStore>(
        [base, labels = labels_](Index i) {
          const auto held = base->get(i);
          require<DataError>(held != nullptr, "relabelled", "case ", i, " cannot be loaded");
          const auto found = labels.find(i);
          if (found == labels.end()) return *held;
          Example example = held->example;
          example.labels.extent = example.image.extent;
          example.labels.geometry = example.image.geometry;
          example.labels.voxels = found->second.voxels;
          example.annotated = found->second.annotated;
          return ReadyCase(std::move(example), held->outside);
        },
        budget);
  }

 private:
  static constexpr std::size_t head = sizeof(AnnotatedSet);
  static std::string written(const Labels& labels) {
    std::string text(head + labels.voxels.size(), 0);
    std::memcpy(text.data(), &labels.annotated, head);
    std::copy(labels.voxels.begin(), labels.voxels.end(), text.begin() + head);
    return text;
  }
  static Labels read(const std::string& text) {
    Labels labels;
    std::memcpy(&labels.annotated, text.data(), head);
    labels.voxels.assign(text.begin() + head, text.end());
    return labels;
  }

  std::map<Index, Labels> labels_;
};

}  // namespace segmed
