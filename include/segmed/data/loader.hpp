// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <segmed/data/prepare.hpp>
#include <segmed/data/split.hpp>

namespace segmed {

/// A case that could not be loaded while training ran.
struct CaseFault {
  Index index = 0;  // in the cohort
  std::string reason = {};
};

/// Prepared cases, loaded when first asked for and kept within a budget of bytes: the one that was
/// not used for longest goes first. One store serves several loaders and threads.
class CaseStore {
 public:
  using Load = std::function<ReadyCase(Index)>;
  using Held = std::shared_ptr<const ReadyCase>;

  CaseStore(Load load, Index budget_bytes) : load_(std::move(load)), budget_(budget_bytes) {}

  /// The i-th case, or nullptr when it could not be loaded; see faults().
  ///
  ///   throws   what loading throws and segmed did not foresee (no memory)
  Held get(Index i) {
    std::unique_lock lock(mutex_);
    Slot& slot = slots_[i];
    changed_.wait(lock, [&] { return !slot.loading; });
    slot.used = ++clock_;
    if (slot.held || slot.broken) return slot.held;
    slot.loading = true;
    lock.unlock();
    Held held;
    std::string reason = {};
    std::exception_ptr failure;
    try {
      held = std::make_shared<const ReadyCase>(load_(i));
    } catch (const Error& error) {
      reason = error.what();
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    slot.loading = false;
    slot.held = held;
    slot.broken = !held && !failure;
    if (slot.broken) faults_.push_back({i, reason});
    if (held) {
      slot.bytes = held->bytes();
      bytes_ += slot.bytes;
      make_room(i);
    }
    changed_.notify_all();
    if (failure) std::rethrow_exception(failure);
    return held;
  }
  /// The cases that failed so far, by number.
  std::vector<CaseFault> faults() const {
    const std::lock_guard lock(mutex_);
    std::vector<CaseFault> sorted = faults_;
    std::sort(sorted.begin(), sorted.end(),
              [](const CaseFault& a, const CaseFault& b) { return a.index < b.index; });
    return sorted;
  }
  /// Bytes that the store holds now.
  Index bytes() const {
    const std::lock_guard lock(mutex_);
    return bytes_;
  }

 private:
  struct Slot {
    Held held;
    Index bytes = 0;
    std::uint64_t used = 0;
    bool loading = false, broken = false;
  };
  void make_room(Index keep) {
    while (bytes_ > budget_) {
      Slot* oldest = nullptr;
      for (auto& [index, slot] : slots_)
        if (index != keep && slot.held && (!oldest || slot.used < oldest->used)) oldest = &slot;
      if (!oldest) return;
      bytes_ -= oldest->bytes;
      oldest->held.reset();
    }
  }

  Load load_;
  Index budget_, bytes_ = 0;
  std::uint64_t clock_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Index, Slot> slots_;
  std::vector<CaseFault> faults_;
};

/// A store of prepared cases, of what `load` gives by number.
inline std::shared_ptr<CaseStore> make_store(std::function<Example(Index)> load,
                                             const Preparation& how,
                                             Index budget_bytes = Index{2} << 30) {
  return std::make_shared<CaseStore>(
      [load = std::move(load), how](Index i) { return make_ready(load(i), how); }, budget_bytes);
}
/// The same over a cohort, which must outlive it.
template <Cohort C>
std::shared_ptr<CaseStore> make_store(const C& cohort, const Preparation& how,
                                      Index budget_bytes = Index{2} << 30) {
  return make_store([&cohort](Index i) -> Example { return cohort.load(i); }, how, budget_bytes);
}

/// The patches of one step.
using Batch = std::vector<Patch>;

/// A case that a loader draws from, with the classes whose labels may be used.
struct LoaderCase {
  Index index = 0;  // in the cohort
  AnnotatedSet left = AnnotatedSet::all(255);
  float weight = 1;  // how often it is drawn, beside the others
};

/// Weighs cases so that small sources are drawn more often than their number of cases says, and
/// large ones less: by 1 / sqrt(n), n being how many cases have the same annotated classes.
///
///   shapes   annotated: the classes that each case annotates, of which it uses those that are left
///   source   Ulrich et al., MultiTalent, 2023, arXiv:2303.14444
inline void balance_sources(std::vector<LoaderCase>& cases,
                            const std::vector<AnnotatedSet>& annotated) {
  require<DataError>(cases.size() == annotated.size(), "balance_sources", annotated.size(),
                     " annotated sets for ", cases.size(), " cases");
  const auto used = [&](std::size_t i) { return AnnotatedSet::both(annotated[i], cases[i].left); };
  for (std::size_t i = 0; i < cases.size(); ++i) {
    Index n = 0;
    for (std::size_t k = 0; k < cases.size(); ++k) n += used(k) == used(i) ? 1 : 0;
    cases[i].weight = 1 / std::sqrt(float(n));
  }
}

/// How batches are made.
struct LoaderOptions {
  SampleOptions sample = {};
  Index batch = 2;
  Index share = 0, shares = 1;  // which of equal parts of each batch this loader yields
  std::uint64_t seed = 1;
  std::uint32_t stream = 0;  // 0 for D_0, 1 for D_1: streams know nothing of each other
  int workers = 1;           // threads that prepare batches ahead; 0: none
  Index ahead = 3;           // batches
};

/// Batches of patches. batch(step) depends on the seed, the step, the stream and the cases, and on
/// nothing else: not on the number of workers, on the order of calls, or on another loader. The
/// shares of a batch, one after the other, are the batch.
///
/// Every epoch goes through all cases in an order of its own; cases of different weights are drawn
/// one by one instead, each with the chance that its weight is of all. Where a case fails to load,
/// the next one in that order, or of the list, which loads takes its place; faults() lists the
/// failures.
class Loader {
 public:
  Loader(std::shared_ptr<CaseStore> store, ClassTable classes, std::vector<LoaderCase> cases,
         LoaderOptions options)
      : store_(std::move(store)),
        classes_(std::move(classes)),
        cases_(std::move(cases)),
        options_(options) {
    require<ConfigError>(!cases_.empty(), "loader", "no case to draw patches from");
    require<ConfigError>(options.batch >= 1 && options.workers >= 0 && options.ahead >= 1, "loader",
                         "a batch of ", options.batch, ", ", options.workers, " workers and ",
                         options.ahead, " batches ahead");
    require<ConfigError>(options.shares >= 1 && options.batch % options.shares == 0 &&
                             options.share >= 0 && options.share < options.shares,
                         "loader", "a batch of ", options.batch, " patches cannot be shared by ",
                         options.shares, " ranks; give a multiple of ", options.shares);
    options.sample.augment.check();
    for (const LoaderCase& one : cases_) {
      require<ConfigError>(one.weight > 0 && std::isfinite(one.weight), "loader", "case ",
                           one.index, " has the weight ", one.weight, "; give more than 0");
      weighed_ = weighed_ || one.weight != cases_.front().weight;
      up_to_.push_back(double(one.weight) + (up_to_.empty() ? 0 : up_to_.back()));
    }
    for (int k = 0; k < options.workers; ++k) threads_.emplace_back([this] { work(); });
  }
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;
  ~Loader() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  /// The patches of a step; the steps after it are prepared meanwhile. For one caller at a time.
  ///
  ///   throws   DataError when no case at all can be loaded
  Batch batch(Index step) {
    require<ConfigError>(step >= 0, "loader", "step ", step, " is before the first");
    if (threads_.empty()) return make(step);
    std::unique_lock lock(mutex_);
    next_ = step + 1;
    for (auto slot = slots_.begin(); slot != slots_.end();) {
      const bool wanted = slot->first >= step && slot->first < next_ + options_.ahead;
      slot = slot->second.busy || wanted ? std::next(slot) : slots_.erase(slot);
    }
    wake_.notify_all();
    if (slots_.find(step) == slots_.end()) {  // nobody began with it
      lock.unlock();
      return make(step);
    }
    done_.wait(lock, [&] { return !slots_[step].busy; });
    Slot made = std::move(slots_[step]);
    slots_.erase(step);
    if (made.failure) std::rethrow_exception(made.failure);
    return std::move(made.batch);
  }
  /// Cases that failed to load, with their reasons.
  std::vector<CaseFault> faults() const { return store_->faults(); }
  Index cases() const { return Index(cases_.size()); }

 private:
  struct Slot {
    bool busy = false;
    Batch batch;
    std::exception_ptr failure;
  };

  Batch make(Index step) {
    Batch patches;
    const Index n = cases();
    const Index count = options_.batch / options_.shares, first = options_.share * count;
    for (Index slot = first; slot < first + count; ++slot) {
      const Index position = step * options_.batch + slot;
      const Index draw = weighed_ ? position : position / n;  // no case twice in one
      const std::vector<Index> order = weighed_ ? from_drawn(position) : of_epoch(draw);
      Index attempt = 0;
      for (;; ++attempt) {
        require<DataError>(attempt < n, "loader", "none of the ", n, " cases can be loaded; the ",
                           "first failure: ", first_reason());
        const Index at = (weighed_ ? attempt : position + attempt) % n;
        const LoaderCase& drawn = cases_[std::size_t(order[std::size_t(at)])];
        const CaseStore::Held ready = store_->get(drawn.index);
        if (!ready) continue;
        const SampleKey key{options_.seed, std::uint32_t(draw), attempt};
        patches.push_back(draw_patch(*ready, classes_, drawn.left, options_.sample, key));
        break;
      }
    }
    return patches;
  }
  std::vector<Index> of_epoch(Index epoch) const {
    return shuffled(cases(),
                    {options_.seed, Purpose::sample, options_.stream, std::uint32_t(epoch)});
  }
  /// The list from the case on that is drawn at this position.
  std::vector<Index> from_drawn(Index position) const {
    const Philox random{options_.seed, Purpose::sample, options_.stream};
    const double at = double(random.uniform(position)) * up_to_.back();
    const auto found = std::upper_bound(up_to_.begin(), up_to_.end(), at) - up_to_.begin();
    std::vector<Index> order;
    for (Index i = 0; i < cases(); ++i) order.push_back((Index(found) + i) % cases());
    return order;
  }
  std::string first_reason() const {
    const auto known = store_->faults();
    return known.empty() ? "none" : known.front().reason;
  }
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      Index step = -1;
      wake_.wait(lock, [&] {
        step = next_;
        while (step < next_ + options_.ahead && slots_.find(step) != slots_.end()) ++step;
        return stopping_ || (next_ >= 0 && step < next_ + options_.ahead);
      });
      if (stopping_) return;
      slots_[step].busy = true;
      lock.unlock();
      Slot made;
      try {
        made.batch = make(step);
      } catch (...) {
        made.failure = std::current_exception();
      }
      lock.lock();
      slots_[step] = std::move(made);
      done_.notify_all();
    }
  }

  std::shared_ptr<CaseStore> store_;
  ClassTable classes_;
  std::vector<LoaderCase> cases_;
  LoaderOptions options_;
  bool weighed_ = false;
  std::vector<double> up_to_;  // the weights of a case and of all before it
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::map<Index, Slot> slots_;
  Index next_ = -1;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace segmed
