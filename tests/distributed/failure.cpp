// SPDX-License-Identifier: Apache-2.0
// One rank fails while the others wait for it: by an exception, by never coming, or because its
// NCCL fails while the GPUs of the others wait for it.
#include <chrono>
#include <string>
#include <thread>

#include "nccl_stand_in.hpp"
#include <segmed/distributed/mpi.hpp>

int main(int, char** arguments) {
  using namespace segmed;
  const std::string how = arguments[1];
  return with_mpi(
      [&](Mpi& mpi) {
        const Ranks ranks(mpi);
        ranks.any(true);
        if (mpi.rank() == 1 && how == "throws") fail<DataError>("test", "rank 1 has had enough");
        if (mpi.rank() == 1 && how == "hangs") std::this_thread::sleep_for(std::chrono::hours(1));
        if (how == "breaks") {
          fake::NcclStandIn::Story story;
          fake::StandInSums sums(mpi, story);
          float one = 1;
          story.arrives = false;
          sums.start_device_sum(&one, 1);
          if (mpi.rank() == 1) story.state = fake::NcclStandIn::Code::remote;
          sums.finish_sums();
        }
        ranks.any(true);
        return 0;
      },
      how == "hangs" ? 1 : 100);
}
