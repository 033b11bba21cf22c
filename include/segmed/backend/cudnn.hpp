// SPDX-License-Identifier: Apache-2.0
// Convolutions by cuDNN's graph API, through its plain C interface. Units that are linked to
// segmed::cuda have them in segmed/segmed.hpp; include this to set them, by the class Cudnn.
#pragma once
#include <segmed/backend/cuda.hpp>
#include <segmed/backend/cudnn/device.hpp>
