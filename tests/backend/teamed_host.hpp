// SPDX-License-Identifier: Apache-2.0
// A device of the host that runs team kernels, so that every one of them meets the ordinary tests.
#pragma once
#include <cstring>
#include <memory>
#include <stdexcept>
#include <ucontext.h>
#include <vector>

#include <segmed/backend/cpu.hpp>
#include <segmed/backend/teams/rows.hpp>

namespace check {
using namespace segmed;

/// Threads of one team, one after the other on the thread that calls: each is a fiber with a stack
/// of its own, and a barrier goes on with the next one.
class Fibers {
 public:
  static Fibers& current() {
    thread_local Fibers fibers;
    return fibers;
  }
  /// Runs body(thread) for `count` threads. Odd phases between barriers run backwards (even ones
  /// where `reversed`), so that a missing barrier shows. Throws std::logic_error where some threads
  /// have ended while others wait.
  template <class Body>
  void run(int count, bool reversed, const Body& body) {
    if (count > int(fibers_.size())) fibers_.resize(std::size_t(count));
    call_ = [](const void* of, int thread) { (*static_cast<const Body*>(of))(thread); };
    body_ = &body, left_ = count;
    for (int i = 0; i < count; ++i) start(fibers_[std::size_t(i)]);
    for (bool backwards = reversed; left_ > 0; backwards = !backwards) {
      for (int i = 0; i < count; ++i) {
        now_ = backwards ? count - 1 - i : i;
        swapcontext(&caller_, &fibers_[std::size_t(now_)].context);
      }
      if (left_ != 0 && left_ != count)
        throw std::logic_error("some threads of a team passed a barrier that others never reached");
    }
  }
  /// Called by a thread of the team.
  void barrier() { swapcontext(&fibers_[std::size_t(now_)].context, &caller_); }

 private:
  static constexpr std::size_t stack_bytes = 64 << 10;
  struct Fiber {
    ucontext_t context;
    std::unique_ptr<std::byte[]> stack;
  };
  void start(Fiber& fiber) {
    if (!fiber.stack) fiber.stack.reset(new std::byte[stack_bytes]);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = stack_bytes;
    fiber.context.uc_link = &caller_;
    makecontext(&fiber.context, enter, 0);
  }
  static void enter() {
    Fibers& fibers = current();
    fibers.call_(fibers.body_, fibers.now_);
    --fibers.left_;
  }

  std::vector<Fiber> fibers_;
  ucontext_t caller_{};
  void (*call_)(const void*, int) = nullptr;
  const void* body_ = nullptr;
  int now_ = 0, left_ = 0;
};

struct HostTeam {
  Index index;
  int thread;
  void barrier() const { Fibers::current().barrier(); }
};

/// The memory and the plain launches of Cpu, none of its kernels, but those of teams.
struct TeamedHost : TeamRows<TeamedHost> {
  /// Whether teams and threads run in the other order; no result may depend on it.
  static inline bool reversed = false;
  /// How many teams have run so far.
  static inline Index teams = 0;

  static void* allocate(std::size_t bytes) { return Cpu::allocate(bytes); }
  static void release(void* p, std::size_t bytes) noexcept { Cpu::release(p, bytes); }
  static void copy(void* to, const void* from, std::size_t bytes) { Cpu::copy(to, from, bytes); }
  static void synchronize() {}
  template <class Kernel>
  static void launch(Index n, const Kernel& kernel) {
    Cpu::launch(n, kernel);
  }
  template <class Kernel>
  static void launch_blocks(Index n, const Kernel& kernel) {
    Cpu::launch_blocks(n, kernel);
  }
  template <class Kernel>
  static void launch_rows(Index rows, Index columns, const Kernel& kernel) {
    Cpu::launch_rows(rows, columns, kernel);
  }
  template <class Kernel>
  static void launch_teams(Index n, const Kernel& kernel) {
    static_assert(fits_a_team<Kernel>);
    using Shared = typename Kernel::Shared;
    const auto shared = std::make_unique<Shared>();
    for (Index i = 0; i < n; ++i) {
      const Index team = reversed ? n - 1 - i : i;
      std::memset(static_cast<void*>(shared.get()), 0xCD, sizeof(Shared));
      Fibers::current().run(Kernel::threads, reversed, [&](int thread) {
        kernel(HostTeam{team, thread}, *shared);
      });
      ++teams;
    }
  }
};
static_assert(Device<TeamedHost> && HasTeams<TeamedHost>);

}  // namespace check
