// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <sys/mman.h>
#include <utility>

#include <segmed/core/config.hpp>

namespace segmed {

/// A pool of memory: regions that are asked for once and kept. What is freed is merged with its
/// free neighbours and given out again, best fit first, so that a program which repeats itself
/// stops asking for regions after its first rounds. A region comes from Source:
///
///   line, page, region   how addresses are aligned, of what a region is a multiple, the smallest
///   map(bytes)           a region, or null; unmap(region, bytes) gives it back
///   map_below(end, bytes)   if it has it: a region that ends there, or null
///   may_unmap()          whether it can be given back now
///   fail(bytes, held)    throws, since so many bytes are not to be had beside what is held
template <class Source>
class Pool {
 public:
  static constexpr std::size_t line = Source::line, page = Source::page, region = Source::region;

  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  /// At least `bytes`, aligned to `line`.
  void* allocate(std::size_t bytes) {
    const std::size_t size = rounded(bytes);
    const std::lock_guard lock(mutex_);
    auto found = free_by_size_.lower_bound({size, nullptr});
    if (found == free_by_size_.end()) {
      map(size);
      found = free_by_size_.lower_bound({size, nullptr});
    }
    const auto [room, place] = *found;
    take(place, room);
    used_ += size, peak_ = std::max(peak_, used_);
    // What is small, and often stays, goes to the far end: it must not lie between large places.
    std::byte* const given = size < large ? place + (room - size) : place;
    if (room > size) put(given == place ? place + size : place, room - size);
    return given;
  }
  void release(void* p, std::size_t bytes) noexcept {
    if (!p) return;
    const std::lock_guard lock(mutex_);
    const std::size_t size = rounded(bytes);
    used_ -= size;
    merge(static_cast<std::byte*>(p), size);
  }
  /// Whether p lies in one of its regions.
  bool owns(const void* p) const {
    const std::lock_guard lock(mutex_);
    auto* const place = static_cast<std::byte*>(const_cast<void*>(p));
    const auto after = regions_.upper_bound(place);
    return after != regions_.begin() && place < std::prev(after)->first + std::prev(after)->second;
  }
  /// Gives regions that nobody uses back.
  void trim() {
    const std::lock_guard lock(mutex_);
    unmap_unused();
  }
  /// In bytes: given out now, given out at most, and held in regions.
  std::size_t used() const { return read(used_); }
  std::size_t peak() const { return read(peak_); }
  /// From now on `peak` is what was given out at most since then.
  void forget_peak() {
    const std::lock_guard lock(mutex_);
    peak_ = used_;
  }
  std::size_t reserved() const { return read(reserved_); }
  /// How often a region was asked for and given.
  std::size_t regions_mapped() const { return read(mapped_); }

 private:
  static constexpr std::size_t large = std::size_t(4) << 20;

  // Lines below 4 KiB; above, eight sizes to each power of two, so that near sizes fit each other's
  // places; from 32 MiB on every 2 MiB, since what is rounded up is lost.
  static std::size_t rounded(std::size_t bytes) {
    std::size_t grain = line;
    if (bytes > 4096)
      for (grain = 512; grain * 16 < bytes && grain < std::size_t(2) << 20;) grain *= 2;
    return std::max<std::size_t>(grain, (bytes + grain - 1) / grain * grain);
  }
  std::size_t read(const std::size_t& value) const {
    const std::lock_guard lock(mutex_);
    return value;
  }

  void put(std::byte* place, std::size_t size) {
    free_.emplace(place, size);
    free_by_size_.emplace(size, place);
  }
  void take(std::byte* place, std::size_t size) {
    free_.erase(place);
    free_by_size_.erase({size, place});
  }
  void merge(std::byte* place, std::size_t size) {
    auto next = free_.lower_bound(place);
    if (next != free_.end() && next->first == place + size && !regions_.count(next->first)) {
      size += next->second;
      take(next->first, next->second);
      next = free_.lower_bound(place);
    }
    if (next != free_.begin() && !regions_.count(place)) {
      const auto [before, room] = *std::prev(next);
      if (before + room == place) {
        take(before, room);
        place = before, size += room;
      }
    }
    put(place, size);
  }
  void map(std::size_t bytes) {
    // An eighth of what is held already: few regions, whatever a program's size.
    const std::size_t want = std::max({bytes, region, reserved_ / 8});
    for (std::size_t size : {want, want, bytes}) {
      size = (size + page - 1) / page * page;
      std::byte* begin = nullptr;
      if constexpr (requires { Source::map_below(begin, size); })
        if (!regions_.empty()) begin = Source::map_below(regions_.begin()->first, size);
      const bool grown = begin != nullptr;
      if (!grown) begin = Source::map(size);
      if (!begin) {
        if (Source::may_unmap()) unmap_unused();
        continue;
      }
      // One that grows is one region: what is free on both sides of the seam is merged.
      const auto above = regions_.begin();
      const std::size_t whole = size + (grown ? above->second : 0);
      if (grown) regions_.erase(above);
      regions_.emplace(begin, whole);
      merge(begin, size);
      reserved_ += size, ++mapped_;
      return;
    }
    Source::fail(bytes, reserved_);
  }
  void unmap_unused() {
    for (auto r = regions_.begin(); r != regions_.end();) {
      const auto whole = free_.find(r->first);
      if (whole == free_.end() || whole->second != r->second) {
        ++r;
        continue;
      }
      take(r->first, r->second);
      Source::unmap(r->first, r->second);
      reserved_ -= r->second;
      r = regions_.erase(r);
    }
  }

  mutable std::mutex mutex_;
  std::map<std::byte*, std::size_t> free_, regions_;
  std::set<std::pair<std::size_t, std::byte*>> free_by_size_;
  std::size_t used_ = 0, peak_ = 0, reserved_ = 0, mapped_ = 0;
};

/// Regions of huge pages.
struct HugePages {
  static constexpr std::size_t line = 64, page = std::size_t(2) << 20, region = page << 4;

  static std::byte* map(std::size_t size) {
    void* raw =
        mmap(nullptr, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) return nullptr;
    auto* begin = static_cast<std::byte*>(raw);
    const std::size_t skip = (page - reinterpret_cast<std::uintptr_t>(raw) % page) % page;
    if (skip) munmap(begin, skip);
    if (page - skip) munmap(begin + skip + size, page - skip);
    madvise(begin + skip, size, MADV_HUGEPAGE);  // if it fails, small pages do
    return begin + skip;
  }
  static std::byte* map_below(std::byte* end, std::size_t size) {
    std::byte* const wanted = end - size;
    void* const raw =
        mmap(wanted, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == wanted) {
      madvise(raw, size, MADV_HUGEPAGE);
      return wanted;
    }
    if (raw != MAP_FAILED) munmap(raw, size);
    return nullptr;
  }
  static void unmap(std::byte* begin, std::size_t size) { munmap(begin, size); }
  static bool may_unmap() { return true; }
  [[noreturn]] static void fail(std::size_t, std::size_t) { throw std::bad_alloc{}; }
};
/// The memory of this process's tensors.
class Memory : public Pool<HugePages> {
 public:
  /// Of this process; never destroyed, since threads give memory back as they end.
  static Memory& current() {
    static Memory& memory = *new Memory;
    return memory;
  }
};

/// A passing array of numbers, not initialised.
template <class T>
class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(Index count) { grow(count); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { Memory::current().release(data_, bytes_); }

  /// Room for `count` numbers; what was there is lost when it has to grow.
  T* grow(Index count) {
    const std::size_t bytes = std::size_t(count) * sizeof(T);
    if (bytes <= bytes_) return data_;
    Memory::current().release(std::exchange(data_, nullptr), std::exchange(bytes_, 0));
    data_ = static_cast<T*>(Memory::current().allocate(bytes));
    bytes_ = bytes;
    return data_;
  }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// This thread's own buffers, kept between calls; each `place` is one buffer.
template <class T, int place>
T* thread_scratch(Index count) {
  thread_local Scratch<T> scratch;
  return scratch.grow(count);
}

}  // namespace segmed
