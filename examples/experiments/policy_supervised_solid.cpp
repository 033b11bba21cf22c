// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/policy.hpp>

namespace experiments {

segmed::RunReport train_supervised_solid(const TrainJob& job) {
  return train_with<Solid>(job, [](const auto&) { return segmed::Supervised{}; });
}

}  // namespace experiments
