// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/partial_completion.hpp>

namespace experiments {

segmed::RunReport train_partial_completion_solid(const TrainJob& job) {
  return train_with<Solid>(job, [](const auto& net) {
    return segmed::PartialCompletion<segmed::AnyNetwork<Solid>>{.teacher = {net}};
  });
}

}  // namespace experiments
