// SPDX-License-Identifier: Apache-2.0
// Processes that train one model together: what they say to each other, and who they are.
//
// The rule that everything else follows from: a Scalar is that of the whole batch, with the same
// bits on every rank, and a rank holds the gradient of its own items in it. So the gradient of a
// parameter is the sum over the ranks, whatever the loss is made of, and nothing is ever divided by
// the number of ranks. Whoever sums over items adds the sums of all ranks before going on.
#pragma once
#include <algorithm>
#include <concepts>
#include <cstddef>
#include <string>
#include <vector>

#include <segmed/core/config.hpp>

namespace segmed {

/// What ranks need of each other. All ranks make the same calls in the same order.
template <class C>
concept Communicator = requires(C& others, const void* mine, void* all, std::size_t bytes,
                                float* some, double* more, Index count) {
  { others.rank() } -> std::convertible_to<int>;
  { others.size() } -> std::convertible_to<int>;
  others.gather(mine, bytes, all);  // size() times `bytes`, in the order of the ranks
  others.start_sum(some, count);    // in place; goes on while the caller computes
  others.start_sum(more, count);
  others.progress();     // lets started sums go on; cheap
  others.finish_sums();  // waits for all that were started
};

/// One that adds what lies in a GPU's memory as well, where it lies. Such a sum begins after all
/// that the calling thread has queued on the device, and `finish_sums` waits for it too.
template <class C>
concept DeviceCommunicator = Communicator<C> &&
    requires(C& others, float* some, double* more, Index count) {
  others.start_device_sum(some, count);
  others.start_device_sum(more, count);
};

/// Nobody else.
struct Solo {
  static constexpr int rank() { return 0; }
  static constexpr int size() { return 1; }
  void gather(const void* mine, std::size_t bytes, void* all) const {
    std::copy_n(static_cast<const std::byte*>(mine), bytes, static_cast<std::byte*>(all));
  }
  template <class W>
  void start_sum(W*, Index) const {}
  void progress() const {}
  void finish_sums() const {}
};
static_assert(Communicator<Solo>);

/// A handle on a communicator of any type, which must outlive it: `Ranks(mpi)`. Without one it is
/// Solo.
class Ranks {
 public:
  Ranks() = default;
  template <class C>
  requires(Communicator<C> && !std::same_as<C, Ranks>) explicit Ranks(C& others)
      : others_(&others), calls_(&calls<C>), rank_(others.rank()), size_(others.size()) {}

  /// Those that train with this thread now; see RanksScope.
  static Ranks& current() {
    thread_local Ranks ranks;
    return ranks;
  }
  int rank() const { return rank_; }
  int size() const { return size_; }
  bool alone() const { return size_ == 1; }
  /// Whether this is the rank that writes files and talks to people.
  bool first() const { return rank_ == 0; }

  void gather(const void* mine, std::size_t bytes, void* all) const {
    calls_->gather(others_, mine, bytes, all);
  }
  /// The numbers of all ranks, in their order. Every rank brings as many.
  template <class T>
  std::vector<T> gathered(const std::vector<T>& mine) const {
    if (alone()) return mine;
    std::vector<T> all(mine.size() * std::size_t(size_));
    gather(mine.data(), sizeof(T) * mine.size(), all.data());
    return all;
  }
  /// Whether it is so on some rank: what a branch must ask that decides what is computed.
  bool any(bool mine) const {
    if (alone()) return mine;
    std::string all(std::size_t(size_), 0);
    const char one = mine;
    gather(&one, 1, all.data());
    return all.find('\1') != all.npos;
  }
  /// A text of each rank.
  std::vector<std::string> texts(const std::string& mine) const {
    const auto lengths = gathered(std::vector<std::size_t>{mine.size()});
    const std::size_t longest = *std::max_element(lengths.begin(), lengths.end());
    std::vector<char> padded(mine.begin(), mine.end());
    padded.resize(longest);
    padded = gathered(padded);
    std::vector<std::string> all;
    for (std::size_t r = 0; r < lengths.size(); ++r)
      all.emplace_back(padded.data() + r * longest, lengths[r]);
    return all;
  }
  void start_sum(float* in_place, Index count) const {
    if (!alone()) calls_->start_float(others_, in_place, count);
  }
  void start_sum(double* in_place, Index count) const {
    if (!alone()) calls_->start_double(others_, in_place, count);
  }
  /// Whether they add what lies in a GPU's memory where it lies.
  bool add_on_device() const { return !alone() && calls_->start_device_float != nullptr; }
  /// In place, of a device's memory. Only where `add_on_device`.
  void start_device_sum(float* in_place, Index count) const {
    calls_->start_device_float(others_, in_place, count);
  }
  void start_device_sum(double* in_place, Index count) const {
    calls_->start_device_double(others_, in_place, count);
  }
  void progress() const {
    if (!alone()) calls_->progress(others_);
  }
  void finish_sums() const {
    if (!alone()) calls_->finish(others_);
  }

 private:
  struct Calls {
    void (*gather)(void*, const void*, std::size_t, void*);
    void (*start_float)(void*, float*, Index);
    void (*start_double)(void*, double*, Index);
    void (*progress)(void*);
    void (*finish)(void*);
    void (*start_device_float)(void*, float*, Index);  // null: they cannot
    void (*start_device_double)(void*, double*, Index);
  };
  template <class C>
  static C& as(void* others) {
    return *static_cast<C*>(others);
  }
  template <class C, class W>
  static constexpr auto device_sum() {
    if constexpr (DeviceCommunicator<C>)
      return [](void* o, W* x, Index count) { as<C>(o).start_device_sum(x, count); };
    else
      return nullptr;
  }
  template <class C>
  static constexpr Calls calls = {
      [](void* o, const void* mine, std::size_t bytes, void* all) {
        as<C>(o).gather(mine, bytes, all);
      },
      [](void* o, float* x, Index count) { as<C>(o).start_sum(x, count); },
      [](void* o, double* x, Index count) { as<C>(o).start_sum(x, count); },
      [](void* o) { as<C>(o).progress(); },
      [](void* o) { as<C>(o).finish_sums(); },
      device_sum<C, float>(),
      device_sum<C, double>()};

  void* others_ = nullptr;
  const Calls* calls_ = nullptr;
  int rank_ = 0, size_ = 1;
};

/// Makes ranks those that train with this thread, until its end.
class RanksScope {
 public:
  explicit RanksScope(const Ranks& now) : before_(Ranks::current()) { Ranks::current() = now; }
  ~RanksScope() { Ranks::current() = before_; }
  RanksScope(const RanksScope&) = delete;
  RanksScope& operator=(const RanksScope&) = delete;

 private:
  Ranks before_;
};

}  // namespace segmed
