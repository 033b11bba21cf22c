// SPDX-License-Identifier: Apache-2.0
// Stands for NCCL on the host: MPI adds in its place, what it was asked for is written down, and it
// fails as it is told to.
#pragma once
#include <atomic>
#include <string>
#include <vector>

#include <segmed/distributed/nccl_sums.hpp>

namespace fake {

using segmed::Index;

class NcclStandIn {
 public:
  enum class Code { success = 0, system = 2, remote = 6, in_progress = 7 };
  struct Id {
    char bytes[128];
  };
  static constexpr Code success = Code::success, in_progress = Code::in_progress;

  /// How it behaves, and what became of it.
  struct Story {
    int slow = 0;                          // answers to `state` until a call is taken up
    Code answer = Code::success;           // to sums
    std::atomic<Code> state = success;     // from now on
    bool arrives = true;                   // whether sums begin, and come to their end
    std::string gpu = {};                  // empty: one of its own
    std::vector<std::string> calls = {};   // in their order
    std::vector<const void*> summed = {};  // addresses
    std::atomic<bool> aborted = false;
    Id id = {};
  };

  explicit NcclStandIn(Story& story) : story_(story) {}
  NcclStandIn(const NcclStandIn&) = delete;
  NcclStandIn& operator=(const NcclStandIn&) = delete;
  ~NcclStandIn() {
    abort();
    if (comm_ != MPI_COMM_NULL) MPI_Comm_free(&comm_);
  }

  std::string gpu() const {
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return story_.gpu.empty() ? "GPU-" + std::to_string(rank) : story_.gpu;
  }
  int gpus() const { return 2; }
  Code make_id(Id& id) const {
    note("make_id");
    for (int i = 0; i < 128; ++i) id.bytes[i] = char(3 * i);
    return success;
  }
  Code open(int ranks, const Id& id, int rank) {
    note("open " + std::to_string(rank) + " of " + std::to_string(ranks));
    story_.id = id, open_ = true;
    MPI_Comm_dup(MPI_COMM_WORLD, &comm_);
    return taken_up();
  }
  Code sum(float* in_place, Index count) { return add(in_place, count, MPI_FLOAT, "floats"); }
  Code sum(double* in_place, Index count) { return add(in_place, count, MPI_DOUBLE, "doubles"); }
  Code state(Code& now) const {
    now = story_.state;
    if (now == success && left_ > 0) --left_, now = in_progress;
    return success;
  }
  bool arrived() {
    int done = 0;
    MPI_Testall(int(sums_.size()), sums_.data(), &done, MPI_STATUSES_IGNORE);
    return done && story_.arrives;
  }
  Code close() {
    note("close");
    return taken_up();
  }
  void release() {
    note("release");
    open_ = false;
  }
  void abort() {
    if (!open_) return;
    note("abort");
    open_ = false, story_.aborted = true;
  }
  static std::string explain(Code code) { return "code " + std::to_string(int(code)); }

 private:
  void note(const std::string& call) const { story_.calls.push_back(call); }
  Code taken_up() const {
    left_ = story_.slow;
    return left_ > 0 ? in_progress : success;
  }
  Code add(void* in_place, Index count, MPI_Datatype type, const char* what) {
    note("sum " + std::to_string(count) + " " + what);
    if (story_.answer != success) return story_.answer;
    story_.summed.push_back(in_place);
    if (!story_.arrives) return taken_up();
    sums_.emplace_back();
    MPI_Iallreduce(MPI_IN_PLACE, in_place, int(count), type, MPI_SUM, comm_, &sums_.back());
    return taken_up();
  }

  Story& story_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  std::vector<MPI_Request> sums_;
  bool open_ = false;
  mutable int left_ = 0;
};
using StandInSums = segmed::NcclSums<NcclStandIn>;
static_assert(segmed::DeviceCommunicator<StandInSums>);

}  // namespace fake
