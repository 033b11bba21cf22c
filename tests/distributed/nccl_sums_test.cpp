// SPDX-License-Identifier: Apache-2.0
// What NCCL is told and what is done when it fails, with a stand-in for it, and with a device on
// the host in place of a GPU.
#include <thread>

#include "../backend/recording_host.hpp"
#include "device_parity.hpp"
#include "nccl_stand_in.hpp"
#include "world.hpp"

using namespace segmed;
using fake::NcclStandIn;
using fake::RecordingHost;
using fake::StandInSums;
using Story = NcclStandIn::Story;
using Code = NcclStandIn::Code;
using Calls = std::vector<std::string>;

namespace {

struct ThreeParams {
  Param<float, RecordingHost> first{100}, second{40}, third{200};
  static void members(auto& self, auto&& visit) {
    visit("first", self.first);
    visit("second", self.second);
    visit("third", self.third);
  }
};

std::string this_rank() {
  return "rank " + std::to_string(world().rank()) + " of " + std::to_string(world().size());
}
/// Adds one number; the words of the error, if that fails.
std::string error_of_a_sum(StandInSums& sums) {
  float one = 1;
  try {
    sums.start_device_sum(&one, 1);
    sums.finish_sums();
  } catch (const DeviceError& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_SUITE("distributed/nccl_sums") {
  TEST_CASE("ranks take the GPUs of their machine in turn") {
    CHECK(gpu_of_rank(0, 4) == 0);
    CHECK(gpu_of_rank(3, 4) == 3);
    CHECK(gpu_of_rank(5, 4) == 1);
    CHECK(gpu_of_rank(3, 1) == 0);  // a scheduler shows each rank its own alone
    CHECK_THROWS_WITH_AS(gpu_of_rank(0, 0), doctest::Contains("no GPU can be used here"),
                         DeviceError);
  }
  TEST_CASE("two ranks with one GPU are named") {
    CHECK_NOTHROW(require_gpu_each({{"GPU-a", 2, 1}, {"GPU-b", 2, 1}, {"GPU-c", 1, 1}}));
    CHECK_THROWS_WITH_AS(require_gpu_each({{"GPU-a", 3, 2}, {"GPU-b", 3, 2}, {"GPU-a", 3, 2}}),
                         "segmed: nccl: ranks 0 and 2 have one GPU between them, GPU-a: of 3 ranks "
                         "on their machine each can use 2 GPUs; start one rank for each GPU, as "
                         "mpirun --map-by ppr:2:node does",
                         DeviceError);
    if (world().size() == 1) return;
    Story story;
    story.gpu = "GPU-same";
    CHECK_THROWS_WITH_AS(StandInSums(world(), story),
                         doctest::Contains("ranks 0 and 1 have one GPU between them, GPU-same"),
                         DeviceError);
    CHECK(story.calls.empty());
  }
  TEST_CASE("all ranks open with the first one's id, and close when all went well") {
    for (const int slow : {0, 3}) {
      Story story;
      story.slow = slow;
      { const StandInSums sums(world(), story); }
      Calls expected = {"open " + this_rank().substr(5), "close", "release"};
      if (world().rank() == 0) expected.insert(expected.begin(), "make_id");
      CHECK(story.calls == expected);
      for (int i = 0; i < 128; ++i) CHECK(story.id.bytes[i] == char(3 * i));
    }
  }
  TEST_CASE("it adds the device's memory, MPI the host's") {
    for (const int slow : {0, 3}) {
      Story story;
      story.slow = slow;
      StandInSums sums(world(), story);
      story.calls.clear();
      trial::check_sums<RecordingHost>(sums);
      Calls expected;
      for (int round = 0; round < 3; ++round)
        expected.insert(expected.end(), {"sum 100000 floats", "sum 3 doubles"});
      CHECK(story.calls == expected);
      CHECK(Ranks(sums).add_on_device() == (world().size() > 1));
      CHECK_FALSE(Ranks(world()).add_on_device());
    }
  }
  TEST_CASE("buckets go to it from the last to the first, whatever is ready when") {
    Story story;
    StandInSums sums(world(), story);
    const Ranks ranks(sums);
    if (ranks.alone()) return;
    ThreeParams three;
    Group<float, RecordingHost> group(Role::trained, three);
    GradientSum<float, RecordingHost> sum(group, ranks, 16);
    REQUIRE(sum.buckets() == 3);
    for (int step = 0; step < 2; ++step) {
      const auto own = float(ranks.rank() + step);
      three.first.grad().assign(std::vector<float>(100, own));
      three.second.grad().assign(std::vector<float>(40, 2 * own));
      three.third.grad().assign(std::vector<float>(200, 3 * own));
      story.calls.clear(), story.summed.clear();
      const OnReady ready = sum.begin();
      // Each rank has another order, and on the last one nothing becomes ready.
      if (ranks.rank() == 0) ready(*three.first.state());
      CHECK(story.calls.empty());
      if (ranks.rank() != ranks.size() - 1) {
        ready(*three.third.state());
        CHECK(story.calls == Calls{"sum 208 floats"});  // while backward goes on
        ready(*three.second.state());
      }
      sum.finish();
      CHECK(story.calls == Calls{"sum 208 floats", "sum 48 floats", "sum 112 floats"});
      CHECK(story.summed == std::vector<const void*>{three.third.grad().read(),
                                                     three.second.grad().read(),
                                                     three.first.grad().read()});
      float expected = 0;
      for (int r = 0; r < ranks.size(); ++r) expected += float(r + step);
      CHECK(three.first.grad().host() == std::vector<float>(100, expected));
      CHECK(three.second.grad().host() == std::vector<float>(40, 2 * expected));
      CHECK(three.third.grad().host() == std::vector<float>(200, 3 * expected));
    }
  }
  TEST_CASE("ranks that train on a device together are one process with the whole batch") {
    Story story;
    StandInSums sums(world(), story);
    trial::check_training<RecordingHost>(Ranks(sums));
    CHECK(story.summed.empty() == (world().size() == 1));
    trial::check_training<RecordingHost>(Ranks(world()));  // through the host's memory
  }
  TEST_CASE(
      "an error has rank, function and words, aborts, and is the answer to all that follows") {
    Story story;
    {
      StandInSums sums(world(), story);
      story.answer = Code::system;
      const std::string why = "segmed: nccl: " + this_rank() + ": ncclAllReduce: code 2";
      CHECK(error_of_a_sum(sums) == why);
      CHECK(story.aborted);
      story.answer = Code::success;
      CHECK(error_of_a_sum(sums) == why);
    }
    CHECK(story.calls.back() == "abort");
  }
  TEST_CASE("an error that shows while a sum is waited for aborts it") {
    Story story;
    StandInSums sums(world(), story);
    float one = 1;
    story.arrives = false;
    sums.start_device_sum(&one, 1);
    story.state = Code::remote;
    CHECK_THROWS_WITH_AS(
        sums.finish_sums(),
        ("segmed: nccl: " + this_rank() + ": ncclAllReduce, by ncclCommGetAsyncError: code 6")
            .c_str(),
        DeviceError);
    CHECK(story.aborted);
  }
  TEST_CASE("the watchdog sees an error where this thread waits for the GPU, and frees that") {
    if (world().size() == 1) return;  // nobody to watch for
    Mpi watched(1);
    Story story;
    StandInSums sums(watched, story);
    story.state = Code::remote;
    for (int i = 0; i < 500 && !story.aborted; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    CHECK(story.aborted);
    CHECK(error_of_a_sum(sums) ==
          "segmed: nccl: " + this_rank() + ": ncclCommGetAsyncError: code 6");
  }
  TEST_CASE("a sum that never comes is given up after the patience") {
    Mpi impatient(0.3);
    Story story;
    StandInSums sums(impatient, story);
    story.arrives = false;
    CHECK(error_of_a_sum(sums) == "segmed: nccl: " + this_rank() +
                                      ": ncclAllReduce: waited more than 0.3 s for the other "
                                      "ranks; one of them has ended or hangs, see what it said");
    CHECK(story.calls.back() == "abort");
  }
  TEST_CASE("whoever leaves by an exception aborts, since the others cannot know") {
    Story story;
    try {
      const StandInSums sums(world(), story);
      throw std::runtime_error("something else");
    } catch (const std::runtime_error&) {
    }
    CHECK(story.calls.back() == "abort");
  }
}
