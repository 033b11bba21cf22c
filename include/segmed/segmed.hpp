// SPDX-License-Identifier: Apache-2.0
/// Everything that needs no library beside Eigen: include this one header. Readers and writers of
/// files, reports and cuDNN have headers and CMake targets of their own, single policies a header
/// each in semi/.
#pragma once
#include <segmed/autograd/gradient_check.hpp>
#include <segmed/autograd/recompute.hpp>
#include <segmed/backend/backend.hpp>
#include <segmed/data/phantom.hpp>
#include <segmed/experiment/run.hpp>
#include <segmed/losses/composition.hpp>
#include <segmed/losses/deep_supervision.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/partial.hpp>
#include <segmed/losses/region.hpp>
#include <segmed/nn/any_network.hpp>
#include <segmed/nn/unet.hpp>
