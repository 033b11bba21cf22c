// SPDX-License-Identifier: Apache-2.0
// Which device a unit is compiled for, and which of them the program works on. What touches tensors
// (networks, training, predicting, policies) is compiled once for the processor and, where nvcc is
// used, once more for GPUs; everything else once.
#pragma once
#include <string>
#include <vector>

#if defined(__CUDACC__)
#define ON_DEVICE on_cuda
#else
#define ON_DEVICE on_cpu
#endif

namespace segmed {
struct RunReport;
}
namespace experiments {

struct PolicyEntry;
struct Start;
struct TrainJob;
struct Model;
struct Recipe;

/// What is compiled for a device.
struct DeviceUnits {
  const std::vector<const PolicyEntry*>& (*policies)();
  segmed::RunReport (*train)(const TrainJob& job);
  void (*check)(const Start& start);  // throws what is wrong with its policies' options
  Model (*load)(const std::string& path);
  void (*label_blank_patch)(const Recipe& recipe);  // so that all that prediction needs was met
  int (*count)();                                   // of such devices
  void (*use)(int number);                          // throws DeviceError
  std::string (*title)(int number);  // what the maker calls it; empty: nothing special
  std::string (*numbers)();          // the type of feature maps
  // What the bits of a training depend on beside its recipe.
  std::string (*arithmetic)();
  // How each convolution that was met is computed, a line each; empty where there is no choice.
  // `plain`: only of those that are left to plain kernels.
  std::vector<std::string> (*plans)(bool plain);
  // Convolutions that are met from now on take the fastest of so many engines by the clock; 0: the
  // first that is right. Throws ConfigError where there is no choice.
  void (*tune)(int engines);
  // What tuning found, as JSON, and how it is taken up again; empty: nothing.
  std::string (*tuning)();
  void (*use_tuning)(const std::string& table);
  // Whether convolutions that are met from now on may multiply floats as TF32, and whether they may
  // add in an order that differs from run to run. A sentence for each that changes nothing here.
  std::vector<std::string> (*allow)(bool tf32, bool nondeterministic);
};
namespace on_cpu {
extern const DeviceUnits units;
}
namespace on_cuda {
extern const DeviceUnits units;
}

/// Takes "cpu", "cuda:N", "cuda", or "auto", which is "cuda" if there is a GPU. Without a number
/// the processes of a machine take its GPUs in turn. Before any work; until then it is the
/// processor.
///
///   throws   ConfigError for another name, DeviceError for a GPU that cannot be used
void choose_device(const std::string& name, int local_rank);
/// Of the device that was chosen.
const DeviceUnits& units();
/// Such as "cpu" or "cuda:0, NVIDIA H100 80GB HBM3, bfloat16".
const std::string& device_in_use();

}  // namespace experiments
