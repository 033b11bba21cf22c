// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <atomic>
#include <string>
#include <string_view>

#include <segmed/backend/view.hpp>
#include <segmed/core/error.hpp>

namespace segmed {

/// A form that an algorithm gives to weights first, where it is worth keeping for calls to come: as
/// many numbers, none where it is not, for tiles of these extents.
struct WeightForm {
  Index numbers = 0, tile[3] = {0, 0, 0};
  friend bool operator==(const WeightForm&, const WeightForm&) = default;
};
/// The weights of a call: as they are given and, if they were brought into a form before, in it.
template <class T>
struct WeightFeed {
  const T *given, *formed = nullptr;
  WeightForm form;

  WeightFeed(const T* weight) : given(weight) {}
  WeightFeed(const T* weight, const WeightForm& f, const T* numbers)
      : given(weight), formed(numbers), form(f) {}
};

/// The kernels of one instruction set for one storage type.
template <class T>
struct Kernels {
  const char* set;
  Index vector_bytes;
  const Kernels* narrower;  // a set of vectors half as long, where the program holds it
  void (*gather)(const Window&, const Feed<T>&, const WeightFeed<T>&, const Sink<T>&);
  void (*scatter)(const Window&, const Feed<T>&, const WeightFeed<T>&, const Sink<T>&);
  void (*weigh)(const Window&, const Feed<T>& fine, const Feed<T>& coarse, T* weight_grad);
  // The form that gather (to the coarse grid) or scatter likes to be given, and how to make it.
  WeightForm (*form)(const Window&, bool to_coarse);
  void (*make_form)(const Window&, bool to_coarse, const T* weight, const WeightForm&, T* numbers);
  void (*apply)(const Reader<T>& a, const Reader<T>* b, T* y, double* moments);
  void (*spread)(const Lane<T>& view, const T* seen, T* raw_grad, double* scale_grad,
                 double* shift_grad, double* slope_grad);
  void (*deposit)(const Incoming<T>&, const Sink<T>&);
  void (*total)(const Incoming<T>&, T* sums);
  void (*moments)(const Lane<T>&, double* moments);
  // Between rows of channels and columns of voxels, `step` numbers apart.
  void (*to_columns)(const T* rows, Index voxels, Index channels, T* columns, Index step);
  void (*to_rows)(const T* columns, Index step, Index voxels, Index channels, T* rows);
  // A copy that is not read again soon; a fence before another thread may look.
  void (*put_past)(const T* from, Index count, T* to);

  /// Those that convolve: few channels would leave half of every vector empty.
  const Kernels& of(const Window& w) const {
    const Index channels = std::max(w.fine.channels, w.coarse.channels);
    const bool few = w.taps() > 1 && 2 * channels * Index(sizeof(T)) <= vector_bytes;
    return few && narrower ? *narrower : *this;
  }
};

/// What this program holds for a storage type: each set's kernels, where some unit compiled them
/// and the processor runs them.
template <class T>
struct InstructionSets {
  static constexpr int count = 3;
  static constexpr const char* names[count] = {"portable", "avx2", "avx512"};

  /// Called by every unit that uses kernels of T for each set that it brings, before main.
  static bool enlist(int set, const Kernels<T>& kernels, bool supported) {
    compiled()[set] = true;
    if (supported) sets()[set] = &kernels;
    return true;
  }
  /// Null when the program or the processor has none of this name.
  static const Kernels<T>* find(std::string_view name) {
    for (int i = 0; i < count; ++i)
      if (name == names[i]) return sets()[i];
    return nullptr;
  }
  /// The set of this name, or the best for an empty name. Throws ConfigError.
  static const Kernels<T>& choose(std::string_view name) {
    if (const Kernels<T>* kernels = find(name)) return *kernels;
    for (int i = count; name.empty() && i-- > 0;)
      if (sets()[i]) return *sets()[i];
    std::string choices, beyond;
    for (int i = 0; i < count; ++i) {
      std::string& list = sets()[i] ? choices : beyond;
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
  using Sets = std::atomic<const Kernels<T>*>[count];
  static Sets& sets() {
    static Sets all{};
    return all;
  }
  static std::atomic<bool> (&compiled())[count] {
    static std::atomic<bool> all[count]{};
    return all;
  }
};

}  // namespace segmed
