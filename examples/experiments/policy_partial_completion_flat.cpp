// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/partial_completion.hpp>

namespace experiments {

segmed::RunReport train_partial_completion_flat(const TrainJob& job) {
  return train_with<Flat>(job, [](const auto& net) {
    return segmed::PartialCompletion<segmed::AnyNetwork<Flat>>{.teacher = {net}};
  });
}

}  // namespace experiments
