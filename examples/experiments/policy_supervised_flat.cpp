// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/policy.hpp>

namespace experiments {

segmed::RunReport train_supervised_flat(const TrainJob& job) {
  return train_with<Flat>(job, [](const auto&) { return segmed::Supervised{}; });
}

}  // namespace experiments
