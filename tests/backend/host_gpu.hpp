// SPDX-License-Identifier: Apache-2.0
// All that a GPU does, in its way, on the host: memory of its own, copies that arrive late, work
// that is written down, teams, and convolutions of dense tensors.
#pragma once
#include "dense_loop.hpp"
#include "recording_host.hpp"
#include "teamed_host.hpp"
#include <segmed/core/bfloat16.hpp>

namespace fake {

struct RecordedLoop : made_up::DenseLoop {
  template <CudnnStored T>
  static void run(const CudnnProblem& p, const CudnnOperands<T>& on) {
    RecordingHost::queue([p, on] { DenseLoop::run(p, on); });
  }
};
struct HostGpu : RecordingHost,
                 TeamRows<HostGpu>,
                 made_up::DenseConvolutions<HostGpu, RecordedLoop> {
  template <class Kernel>
  static void launch_teams(Index n, const Kernel& kernel) {
    queue([=] { check::TeamedHost::launch_teams(n, kernel); });
  }
};
static_assert(HasTeams<HostGpu> && CopiesAhead<HostGpu> && ConvolvesDense<HostGpu, Bfloat16>);

}  // namespace fake
