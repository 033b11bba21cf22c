// SPDX-License-Identifier: Apache-2.0
// The memory of a device that computes on its own, kept by the host. Addresses are given out when
// they are asked for, not when the device comes to it, which is right as long as one thread queues
// the device's work: what is given out again is used after all that used it before.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <segmed/backend/memory.hpp>
#include <segmed/core/error.hpp>

namespace segmed {

/// "512 MiB", "1.5 GiB": for people.
inline std::string bytes_text(std::size_t bytes) {
  const char* const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  double value = double(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.4g %s", value, units[unit]);
  return text;
}
/// Bytes of "8000000000", "512M", "1.5 GiB"; powers of 1024. Throws ConfigError that names `who`.
inline std::size_t bytes_of(const char* who, const std::string& text) {
  char* end = nullptr;
  double value = std::strtod(text.c_str(), &end);
  std::string unit = end;
  unit.erase(0,
             unit.find_first_not_of(' ') == unit.npos ? unit.size() : unit.find_first_not_of(' '));
  int power = -1;
  for (const auto& [name, of_it] : {std::pair{"", 0}, {"K", 1}, {"M", 2}, {"G", 3}, {"T", 4}})
    if (unit == name || (of_it > 0 && unit == std::string(name) + "iB")) power = of_it;
  for (int i = 0; i < power; ++i) value *= 1024;
  require<ConfigError>(end != text.c_str() && power >= 0 && value >= 1 && value < 9e18, who, "\"",
                       text, "\" is no number of bytes; give one such as 20GiB or 512MiB");
  return std::size_t(value);
}

/// Regions of a device, as a Pool asks for them. Driver:
///
///   map(bytes)   memory, or null; unmap(p) gives it back once the device does not use it
///   idle()       waits until the device has done all that any thread asked of it
///   may_unmap()  false while `unmap` would disturb something
///   available()  bytes that `map` could still give
template <class Driver>
struct DeviceRegions {
  static constexpr std::size_t line = 256, page = std::size_t(2) << 20, region = page << 4;
  static inline std::size_t held = 0, limit = std::numeric_limits<std::size_t>::max();

  static std::byte* map(std::size_t bytes) {
    if (bytes > limit || held > limit - bytes) return nullptr;
    auto* const p = static_cast<std::byte*>(Driver::map(bytes));
    if (p) held += bytes;
    return p;
  }
  static void unmap(std::byte* p, std::size_t bytes) {
    Driver::unmap(p);
    held -= bytes;
  }
  static bool may_unmap() { return Driver::may_unmap(); }
  [[noreturn]] static void fail(std::size_t bytes, std::size_t) { throw Shortage{bytes}; }

  struct Shortage {
    std::size_t bytes;
  };
};

/// All memory of a device: a pool, and beside it arenas, whose addresses nobody else is given.
///
/// While a thread has an arena open, its work is being written down, and until that has ended the
/// device must not be waited for. Other threads are served from the pool; the device has done all
/// that was asked of it when the arena was opened, so the first of them need not wait. One that
/// would have to waits for the arena to be closed.
template <class Driver>
class DeviceMemory {
  using Regions = DeviceRegions<Driver>;

 public:
  using Arena = Pool<Regions>;

  /// Of this process; never destroyed, since tensors may live as long as it. The environment may
  /// set its limit (SEGMED_GPU_MEMORY), and ask for no pool at all (SEGMED_GPU_POOL=off), so that
  /// tools which look for wrong addresses see each tensor by itself.
  static DeviceMemory& current() {
    static DeviceMemory& memory = *new DeviceMemory;
    return memory;
  }
  /// Throws MemoryError.
  void* allocate(std::size_t bytes) {
    if (bytes == 0) return nullptr;
    std::unique_lock lock(mutex_);
    enter(lock);
    void* p = taken(bytes);
    if (!p && pooled_ && !mine()) {  // what left arenas held
      closed(lock);
      clear_arenas();
      pool_.trim();
      p = taken(bytes);
    }
    if (!p) fail(bytes);
    used_ += bytes, peak_ = std::max(peak_, used_);
    return p;
  }
  void release(void* p, std::size_t bytes) noexcept {
    if (!p) return;
    std::unique_lock lock(mutex_);
    enter(lock);
    used_ -= bytes;
    if (!pooled_) return Regions::unmap(static_cast<std::byte*>(p), bytes);
    for (auto arena = arenas_.begin(); arena != arenas_.end(); ++arena) {
      if (!(*arena)->owns(p)) continue;
      (*arena)->release(p, bytes);
      return;
    }
    pool_.release(p, bytes);
  }
  /// Waits for the device, and from now on gives this thread memory from a new arena.
  Arena* open_arena() {
    std::unique_lock lock(mutex_);
    closed(lock);
    Driver::idle();
    last_ = 0;
    clear_arenas();
    if (pooled_) pool_.trim();  // the arena will need as much as lies idle there
    arenas_.push_back(std::make_unique<Arena>());
    owner_ = this_thread();
    return arena_ = arenas_.back().get();
  }
  void close_arena() {
    const std::lock_guard lock(mutex_);
    arena_ = nullptr;
    closed_.notify_all();
  }
  /// Nobody uses the arena's addresses any more but those that hold memory of it. Waits for the
  /// device, which may still do so.
  void leave_arena(Arena* arena) {
    std::unique_lock lock(mutex_);
    if (arena_ == arena) arena_ = nullptr, closed_.notify_all();
    closed(lock);
    Driver::idle();
    left_.push_back(arena);
    clear_arenas();
  }
  /// Gives back what nobody uses.
  void trim() {
    std::unique_lock lock(mutex_);
    closed(lock);
    if (mine()) return;
    clear_arenas();
    pool_.trim();
  }
  /// Whether there is a pool, and so addresses that stay.
  bool pooled() const { return pooled_; }
  /// The most that may be held. What is held already stays.
  void set_limit(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    Regions::limit = bytes;
  }
  /// In bytes: used by tensors, used by them at most, held from the device.
  std::size_t used() const { return read(used_); }
  std::size_t peak() const { return read(peak_); }
  std::size_t held() const { return read(Regions::held); }
  void forget_peak() {
    const std::lock_guard lock(mutex_);
    peak_ = used_;
  }

 private:
  DeviceMemory() {
    if (const char* limit = std::getenv("SEGMED_GPU_MEMORY"))
      Regions::limit = bytes_of("SEGMED_GPU_MEMORY", limit);
    if (const char* pool = std::getenv("SEGMED_GPU_POOL")) pooled_ = std::string(pool) != "off";
  }
  /// Null where nothing is left.
  void* taken(std::size_t bytes) {
    try {
      if (!pooled_) return Regions::map(bytes);
      return (mine() ? *arena_ : pool_).allocate(bytes);
    } catch (const typename Regions::Shortage&) {
      return nullptr;
    }
  }
  /// A number that no other thread has had, which an id of the system may be.
  static Index this_thread() {
    static std::atomic<Index> count = 0;
    thread_local const Index mine = ++count;
    return mine;
  }
  /// Whether this thread has an arena open.
  bool mine() const { return arena_ && owner_ == this_thread(); }
  /// Waits until no other thread has one open.
  void closed(std::unique_lock<std::mutex>& lock) {
    closed_.wait(lock, [&] { return !arena_ || mine(); });
  }
  /// Another thread may have queued work on what is given out again: that is waited for.
  void enter(std::unique_lock<std::mutex>& lock) {
    if (mine()) return;  // nobody else has its addresses, and what it frees it no longer uses
    const Index me = this_thread();
    if (last_ != 0 && last_ != me) {
      closed(lock);
      Driver::idle();
    }
    last_ = me;
  }
  void clear_arenas() {
    for (auto arena = arenas_.begin(); arena != arenas_.end();) {
      const auto left = std::find(left_.begin(), left_.end(), arena->get());
      if (left == left_.end() || (*arena)->used() > 0) {
        ++arena;
        continue;
      }
      (*arena)->trim();
      left_.erase(left);
      arena = arenas_.erase(arena);
    }
  }
  [[noreturn]] void fail(std::size_t bytes) const {
    const std::size_t limit = Regions::limit;
    const bool limited = limit != std::numeric_limits<std::size_t>::max();
    segmed::fail<MemoryError>(
        "GPU memory", bytes_text(bytes), " more are needed; tensors use ", bytes_text(used_), ", ",
        bytes_text(Regions::held), " are held, ", bytes_text(Driver::available()),
        " are free on the device",
        limited ? ", the limit is " + bytes_text(limit) + " (SEGMED_GPU_MEMORY)" : std::string(),
        "; take a smaller patch or batch, or narrower widths");
  }
  std::size_t read(const std::size_t& value) const {
    const std::lock_guard lock(mutex_);
    return value;
  }

  mutable std::mutex mutex_;
  std::condition_variable closed_;
  Arena pool_;
  std::vector<std::unique_ptr<Arena>> arenas_;
  std::vector<Arena*> left_;
  Arena* arena_ = nullptr;      // from which memory is given now, if not from the pool, and to whom
  Index owner_ = 0, last_ = 0;  // threads; 0: none
  std::size_t used_ = 0, peak_ = 0;
  bool pooled_ = true;
};

}  // namespace segmed
