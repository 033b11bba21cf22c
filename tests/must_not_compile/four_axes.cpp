// expect: Features: images have two or three spatial axes
// SPDX-License-Identifier: Apache-2.0
#include <segmed/autograd/features.hpp>
#include <segmed/backend/cpu.hpp>

int main() { segmed::Features<4, float, segmed::Cpu> x; }
