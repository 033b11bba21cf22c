// SPDX-License-Identifier: Apache-2.0
#include "device.hpp"

#include <algorithm>

#include "model.hpp"
#include "policies.hpp"
#include <segmed/core/error.hpp>

namespace experiments {

using namespace segmed;

namespace {

struct Chosen {
  const DeviceUnits* units = &on_cpu::units;
  std::string name = "cpu";
};
Chosen& chosen() {
  static Chosen device;
  return device;
}

#if defined(EXPERIMENTS_CUDA)
const DeviceUnits* const cuda_units = &on_cuda::units;
#else
const DeviceUnits* const cuda_units = nullptr;
#endif

/// The number in "cuda:N"; -1: another name.
int number_in(const std::string& name) {
  const std::string digits = name.substr(0, 5) == "cuda:" ? name.substr(5) : "";
  const bool number =
      !digits.empty() && digits.size() < 4 && digits.find_first_not_of("0123456789") == digits.npos;
  return number ? std::stoi(digits) : -1;
}

}  // namespace

void choose_device(const std::string& name, int local_rank) {
  chosen() = {};
  const bool maybe = name == "auto", any = maybe || name == "cuda";
  if (name == "cpu" || (maybe && (!cuda_units || cuda_units->count() == 0))) return;
  require<ConfigError>(any || number_in(name) >= 0, "--device", "there is none named ", name,
                       "; give auto, cpu, cuda or cuda:N");
  require<DeviceError>(cuda_units != nullptr, "--device",
                       "this binary was built without CUDA; build it with -DSEGMED_CUDA=ON, or "
                       "give --device cpu");
  const int number = any ? local_rank % std::max(1, cuda_units->count()) : number_in(name);
  cuda_units->use(number);
  chosen() = {cuda_units, "cuda:" + std::to_string(number) + ", " + cuda_units->title(number) +
                              ", " + cuda_units->numbers()};
}
const DeviceUnits& units() { return *chosen().units; }
const std::string& device_in_use() { return chosen().name; }

const std::vector<const PolicyEntry*>& policies() { return units().policies(); }
Model Model::load(const std::string& path) { return units().load(path); }

}  // namespace experiments
