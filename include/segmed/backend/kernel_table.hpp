// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <atomic>
#include <cstdlib>
#include <string>
#include <string_view>

#include <segmed/backend/view.hpp>
#include <segmed/core/error.hpp>

namespace segmed {

/// The kernels of one instruction set for one storage type.
template <class T>
struct Kernels {
  void (*gather)(const Window&, const Feed<T>&, const T* weight, const Sink<T>&);
  void (*scatter)(const Window&, const Feed<T>&, const T* weight, const Sink<T>&);
  void (*weigh)(const Window&, const Feed<T>& fine, const Feed<T>& coarse, T* weight_grad);
  void (*apply)(const Reader<T>& a, const Reader<T>* b, T* y, double* moments);
  void (*spread)(const Lane<T>& view, const T* seen, T* raw_grad, double* scale_grad,
                 double* shift_grad, double* slope_grad);
  void (*deposit)(const Incoming<T>&, const Sink<T>&);
  void (*total)(const Incoming<T>&, T* sums);
  void (*moments)(const Lane<T>&, double* moments);
  // Between rows of channels and columns of voxels, `step` numbers apart.
  void (*to_columns)(const T* rows, Index voxels, Index channels, T* columns, Index step);
  void (*to_rows)(const T* columns, Index step, Index voxels, Index channels, T* rows);
  // A copy that is not read again soon.
  void (*put_past)(const T* from, Index count, T* to);
};

/// All kernels of one instruction set.
struct KernelTable {
  const char* name;
  int vector_bytes;
  Kernels<float> of_float;
  Kernels<double> of_double;

  template <class T>
  const Kernels<T>& of() const {
    if constexpr (sizeof(T) == 4)
      return of_float;
    else
      return of_double;
  }
};

/// What this program holds: each set's table, where some unit compiled it and the processor runs
/// it.
struct InstructionSets {
  static constexpr int count = 3;
  static constexpr const char* names[count] = {"portable", "avx2", "avx512"};

  /// Called by every unit for each set that it brings, before main.
  static bool enlist(int set, const KernelTable& table, bool supported) {
    compiled()[set] = true;
    if (supported) tables()[set] = &table;
    return true;
  }
  /// Null when the program or the processor has none of this name.
  static const KernelTable* find(std::string_view name) {
    for (int i = 0; i < count; ++i)
      if (name == names[i]) return tables()[i];
    return nullptr;
  }
  /// The set of this name, or the best for an empty name. Throws ConfigError.
  static const KernelTable& choose(std::string_view name) {
    if (const KernelTable* table = find(name)) return *table;
    for (int i = count; name.empty() && i-- > 0;)
      if (tables()[i]) return *tables()[i];
    std::string choices, beyond;
    for (int i = 0; i < count; ++i) {
      std::string& list = tables()[i] ? choices : beyond;
      if (compiled()[i]) list += (list.empty() ? "" : ", ") + std::string(names[i]);
    }
    if (choices.empty())
      fail<ConfigError>("kernels", "this program holds kernels for ", beyond,
                        " only, which this processor does not run");
    fail<ConfigError>("SEGMED_ISA", "no kernels named ", name, beyond.empty() ? "" : " run here (",
                      beyond.empty() ? "" : "beyond this processor: ", beyond,
                      beyond.empty() ? "" : ")", "; choose one of ", choices);
  }

 private:
  using Tables = std::atomic<const KernelTable*>[count];
  static Tables& tables() {
    static Tables all{};
    return all;
  }
  static std::atomic<bool> (&compiled())[count] {
    static std::atomic<bool> all[count]{};
    return all;
  }
};

/// The kernels in use: of the set that the environment variable SEGMED_ISA names (avx512, avx2,
/// portable), else of the best that this processor runs. Throws ConfigError.
inline const KernelTable& kernels() {
  static const KernelTable& chosen = [&]() -> const KernelTable& {
    const char* name = std::getenv("SEGMED_ISA");
    return InstructionSets::choose(name ? name : "");
  }();
  return chosen;
}

}  // namespace segmed
