// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"
#include <segmed/semi/mean_teacher.hpp>

namespace experiments {

segmed::RunReport train_mean_teacher_flat(const TrainJob& job) {
  return train_with<Flat>(job, [](const auto& net) {
    return segmed::MeanTeacher<segmed::AnyNetwork<Flat>>{.teacher = {net}};
  });
}

}  // namespace experiments
