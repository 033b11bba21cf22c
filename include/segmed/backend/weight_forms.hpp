// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include <segmed/backend/kernel_table.hpp>
#include <segmed/backend/memory.hpp>

namespace segmed {

/// The forms that convolutions give to weights before they use them, kept for calls to come: one
/// for each direction, tile and instruction set in which weights of one version have been used
/// twice. A first use, as by a teacher that follows its student step by step, keeps nothing.
/// Several threads may use the weights at once.
template <class T>
class WeightForms {
  struct Numbers;

 public:
  /// Of all weights of this process, so that a network's memory hardly grows: what finds no room is
  /// made for each call, with the same bits.
  static constexpr Index most_bytes = Index(32) << 20;
  static Index bytes_held() { return held(); }

  /// A form while it is in use, or none.
  class Found {
   public:
    Found() = default;
    WeightFeed<T> weights(const T* given) const {
      return numbers_ ? WeightFeed<T>(given, form_, numbers_->scratch.data())
                      : WeightFeed<T>(given);
    }
    bool kept() const { return numbers_ != nullptr; }

   private:
    friend WeightForms;
    WeightForm form_;
    std::shared_ptr<const Numbers> numbers_;
  };

  /// For a gather (to the coarse grid) or scatter by these kernels. `weight` are the numbers of
  /// this version, which are not written meanwhile.
  Found find(const Kernels<T>& kernels, const Window& w, bool to_coarse, const T* weight,
             std::uint64_t version) {
    Found found;
    found.form_ = kernels.form(w, to_coarse);
    if (found.form_.numbers == 0) return found;
    const std::lock_guard lock(mutex_);
    if (version_ != version) entries_.clear();
    version_ = version;
    any_ = true;
    for (Entry& e : entries_) {
      if (e.kernels != &kernels || e.to_coarse != to_coarse || e.form != found.form_ ||
          e.fine != w.fine.channels || e.coarse != w.coarse.channels)
        continue;
      if (!e.numbers && held() + bytes_of(found.form_) <= most_bytes) {
        auto made = std::make_shared<Numbers>(found.form_);
        kernels.make_form(w, to_coarse, weight, found.form_, made->scratch.data());
        e.numbers = std::move(made);
      }
      found.numbers_ = e.numbers;
      return found;
    }
    entries_.push_back(
        {&kernels, to_coarse, w.fine.channels, w.coarse.channels, found.form_, nullptr});
    return found;
  }
  /// Gives the memory back, since the weights will soon be others.
  void forget() {
    if (!any_) return;
    const std::lock_guard lock(mutex_);
    entries_.clear();
    any_ = false;
  }

 private:
  struct Numbers {
    Scratch<T> scratch;
    Index bytes;
    explicit Numbers(const WeightForm& form) : scratch(form.numbers), bytes(bytes_of(form)) {
      held() += bytes;
    }
    Numbers(const Numbers&) = delete;
    Numbers& operator=(const Numbers&) = delete;
    ~Numbers() { held() -= bytes; }
  };
  struct Entry {
    const Kernels<T>* kernels;
    bool to_coarse;
    Index fine, coarse;  // channels
    WeightForm form;
    std::shared_ptr<const Numbers> numbers;  // from the second use on
  };
  static Index bytes_of(const WeightForm& form) { return form.numbers * Index(sizeof(T)); }
  static std::atomic<Index>& held() {
    static std::atomic<Index> bytes = 0;
    return bytes;
  }

  std::mutex mutex_;
  std::atomic<bool> any_ = false;
  std::uint64_t version_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace segmed
