// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/backend/parallel.hpp>
#include <segmed/distributed/mpi.hpp>

/// All ranks of this test, from the first use to the end of the process.
inline segmed::Mpi& world() {
  static segmed::Mpi mpi(100);
  segmed::set_threads(1);  // there may be more ranks than processors
  return mpi;
}
