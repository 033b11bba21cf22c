// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/backend/cpu.hpp>
#if defined(__CUDACC__)
#include <segmed/backend/cuda.hpp>
#endif
