// SPDX-License-Identifier: Apache-2.0
// The kernels, compiled once for each instruction set that this unit may use, and for the storage
// types that it does use: those of its own
// flags when they name AVX2 or more, else a portable set, AVX2 and AVX-512 in regions of their own,
// among which the processor decides at start. A unit under SEGMED_KERNELS_LINKED, or of nvcc, which
// knows no such regions, only refers to the kernels of the library segmed::kernels.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include <segmed/backend/convolution_mode.hpp>
#include <segmed/backend/kernel_table.hpp>
#include <segmed/backend/memory.hpp>
#include <segmed/backend/parallel.hpp>
#include <segmed/backend/view.hpp>

// A kernel file that is read alone lands in this namespace.
namespace segmed::SEGMED_SET {
inline constexpr const char* set_name = "portable";
inline constexpr int vector_bytes = 16;
inline constexpr bool has_fma = false;
template <class T>
inline constexpr const Kernels<T>* narrower = nullptr;
}  // namespace segmed::SEGMED_SET

// Namespaces differ where flags do, so that units of different flags may be linked together.
#if defined(SEGMED_KERNELS_LINKED) || defined(__CUDACC__)

namespace segmed::linked {
/// Enlists the sets of the library segmed::kernels; defined there.
bool enlist();
}  // namespace segmed::linked
namespace segmed {
template <class T>
static bool enlist_sets() {
  return linked::enlist();
}
}  // namespace segmed

#elif defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__FMA__)

namespace segmed::avx512_flags {
inline constexpr const char* set_name = "avx512";
inline constexpr int vector_bytes = 64;
inline constexpr bool has_fma = true;
template <class T>
inline constexpr const Kernels<T>* narrower = nullptr;
}  // namespace segmed::avx512_flags
#define SEGMED_SET avx512_flags
#include <segmed/backend/kernels/table.hpp>
#undef SEGMED_SET
namespace segmed {
template <class T>
static bool enlist_sets() {
  __builtin_cpu_init();
  return InstructionSets<T>::enlist(2, avx512_flags::entries<T>, __builtin_cpu_supports("avx512f"));
}
}  // namespace segmed

#elif defined(__AVX2__) && defined(__FMA__)

namespace segmed::avx2_flags {
inline constexpr const char* set_name = "avx2";
inline constexpr int vector_bytes = 32;
inline constexpr bool has_fma = true;
template <class T>
inline constexpr const Kernels<T>* narrower = nullptr;
}  // namespace segmed::avx2_flags
#define SEGMED_SET avx2_flags
#include <segmed/backend/kernels/table.hpp>
#undef SEGMED_SET
namespace segmed {
template <class T>
static bool enlist_sets() {
  __builtin_cpu_init();
  return InstructionSets<T>::enlist(1, avx2_flags::entries<T>, __builtin_cpu_supports("avx2"));
}
}  // namespace segmed

#else

namespace segmed::portable {
inline constexpr const char* set_name = "portable";
inline constexpr int vector_bytes = 16;
#if defined(__FP_FAST_FMAF)
inline constexpr bool has_fma = true;
#else
inline constexpr bool has_fma = false;
#endif
template <class T>
inline constexpr const Kernels<T>* narrower = nullptr;
}  // namespace segmed::portable
#define SEGMED_SET portable
#include <segmed/backend/kernels/table.hpp>
#undef SEGMED_SET

#if defined(__x86_64__)

namespace segmed::avx2 {
inline constexpr const char* set_name = "avx2";
inline constexpr int vector_bytes = 32;
inline constexpr bool has_fma = true;
template <class T>
inline constexpr const Kernels<T>* narrower = nullptr;
}  // namespace segmed::avx2

#define SEGMED_SET avx2
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#include <segmed/backend/kernels/table.hpp>
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef SEGMED_SET

namespace segmed::avx512 {
inline constexpr const char* set_name = "avx512";
inline constexpr int vector_bytes = 64;
inline constexpr bool has_fma = true;
template <class T>
inline constexpr const Kernels<T>* narrower = &avx2::entries<T>;
}  // namespace segmed::avx512
#define SEGMED_SET avx512
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx2,fma")
#endif
#include <segmed/backend/kernels/table.hpp>
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef SEGMED_SET

namespace segmed {
template <class T>
static bool enlist_sets() {
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return InstructionSets<T>::enlist(0, portable::entries<T>, true) &&
         InstructionSets<T>::enlist(1, avx2::entries<T>, has_avx2) &&
         InstructionSets<T>::enlist(2, avx512::entries<T>, has_avx512);
}
}  // namespace segmed

#else

namespace segmed {
template <class T>
static bool enlist_sets() {
  return InstructionSets<T>::enlist(0, portable::entries<T>, true);
}
}  // namespace segmed

#endif
#endif

namespace segmed {

// Each unit's own, where it uses kernels of T: a unit pays the compiler for no others, and all
// units' sets are enlisted before main.
template <class T>
static const bool sets_enlisted = enlist_sets<T>();

// Out of line: not to become part of every function that flattens what it calls.
template <class T>
[[gnu::noinline, gnu::cold]] const Kernels<T>& choose_kernels() {
  // What a unit sets up before main may be earlier than its sets.
  if (!sets_enlisted<T>) enlist_sets<T>();
  const char* name = std::getenv("SEGMED_ISA");
  return InstructionSets<T>::choose(name ? name : "");
}

/// The kernels of T in use: of the set that the environment variable SEGMED_ISA names (avx512,
/// avx2, portable), else of the best that this processor runs. Throws ConfigError.
template <class T>
const Kernels<T>& kernels() {
  static const Kernels<T>& chosen = choose_kernels<T>();
  return chosen;
}

}  // namespace segmed

// Functors that users complete, such as losses, are compiled in the user's unit. Everything that
// they call is inlined into a function for each set, so that plain loops become that set's vectors.
#if defined(__x86_64__) && !defined(__AVX2__) && !defined(__CUDACC__)

namespace segmed {
template <class Kernel>
[[gnu::flatten, gnu::target("avx2,fma")]] void run_by_avx2(const Kernel& kernel, Index begin,
                                                           Index end) {
  kernel(begin, end);
}
template <class Kernel>
[[gnu::flatten, gnu::target("avx512f,avx512dq,avx512vl,avx2,fma")]] void run_by_avx512(
    const Kernel& kernel, Index begin, Index end) {
  kernel(begin, end);
}
template <class Kernel>
[[gnu::flatten]] void run_by_flags(const Kernel& kernel, Index begin, Index end) {
  kernel(begin, end);
}
/// Calls kernel(begin, end), compiled for the instruction set of the kernels.
template <class Kernel>
void run_by_set(const Kernel& kernel, Index begin, Index end) {
  const Index bytes = kernels<float>().vector_bytes;
  if (bytes == 64)
    run_by_avx512(kernel, begin, end);
  else if (bytes == 32)
    run_by_avx2(kernel, begin, end);
  else
    run_by_flags(kernel, begin, end);
}
}  // namespace segmed

#else

namespace segmed {
template <class Kernel>
[[gnu::flatten]] void run_by_set(const Kernel& kernel, Index begin, Index end) {
  kernel(begin, end);
}
}  // namespace segmed

#endif
