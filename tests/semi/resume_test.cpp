// SPDX-License-Identifier: Apache-2.0
// A run that is interrupted and goes on ends as one that was not: every tensor of its last
// checkpoint, the averaged network's too, and what its report counts.
#include <limits>

#include "policy_trial.hpp"
#include <segmed/semi/marginal_training.hpp>
#include <segmed/semi/partial_completion.hpp>

using namespace trial;

namespace {

struct Trained {
  RunReport report;
  std::map<std::string, StoredTensor> tensors;  // of the last checkpoint
};

/// Whole runs, and runs that stop after their third step and go on with another network.
class Interrupted {
 public:
  explicit Interrupted(RunOptions options, MemoryCohort cohort = small_cohort())
      : options_(std::move(options)), cohort_(std::move(cohort)) {
    options_.out =
        std::filesystem::temp_directory_path() / ("segmed_interrupted_" + std::to_string(getpid()));
    options_.resume = true;
  }
  ~Interrupted() { std::filesystem::remove_all(options_.out); }

  template <class Make>
  Trained whole(Make make) {
    std::filesystem::remove_all(options_.out);
    return run_once(make, 1, options_);
  }
  template <class Make>
  Trained in_two(Make make) {
    using P = decltype(make(std::declval<const Net&>()));
    std::filesystem::remove_all(options_.out);
    std::atomic<bool> stop = false;
    auto until = options_;
    until.stop = &stop;
    const auto stopping = [&](const Net& net) { return StopAfterThird<P>{make(net), &stop}; };
    CHECK(run_once(stopping, 1, until).report.interrupted);
    between();
    return run_once(make, 9, options_);
  }
  std::function<void()> between = [] {};  // what happens before it goes on
  std::string checkpoint() const { return options_.out + "/last.safetensors"; }

 private:
  template <class Make>
  Trained run_once(Make make, std::uint64_t seed, const RunOptions& options) {
    Net net = small_net(seed);
    auto policy = make(net);
    auto report = run(options, cohort_, net, Loss{}, policy, AdamW{.rate = 3e-3f});
    return {std::move(report), Checkpoint::read(checkpoint()).tensors};
  }
  RunOptions options_;
  MemoryCohort cohort_;
};

/// In two of its steps no gradient is finite.
struct Faltering {
  template <class Now>
  typename Now::Value loss(Now& now) {
    const auto step = now.clock.host().step;
    const float factor = step == 1 || step == 4 ? std::numeric_limits<float>::infinity() : 0.0f;
    return factor * mean(now.logits_full());
  }
};

/// In none of its steps one is; somebody stops it in its tenth.
struct Hopeless {
  std::atomic<bool>* stop;
  template <class Now>
  typename Now::Value loss(Now& now) {
    if (now.clock.host().step == 9) *stop = true;
    return std::numeric_limits<float>::infinity() * mean(now.logits_full());
  }
};

/// Two cases of D_1, in which a class each is annotated.
RunOptions partly_annotated() {
  auto options = few_steps(6);
  options.full = std::vector<LoaderCase>{{0}, {1}};
  options.partial =
      std::vector<LoaderCase>{{2, AnnotatedSet{}.with(1)}, {3, AnnotatedSet{}.with(2)}};
  options.average = 0.99f;
  return options;
}
template <class Make>
void check_same_end(Make make) {
  Interrupted runs(partly_annotated(), small_cohort(4, 4));
  const Trained whole = runs.whole(make), resumed = runs.in_two(make);
  CHECK(resumed.report.steps == 6);
  for (const auto& one : whole.tensors) {
    INFO(one.first);
    REQUIRE(resumed.tensors.count(one.first) == 1);
    CHECK(resumed.tensors.at(one.first) == one.second);
  }
  CHECK(resumed.tensors.size() == whole.tensors.size());
  // It is the average that predicts, and it is not the student.
  CHECK(whole.tensors.at("network.head.weight") != whole.tensors.at("student.head.weight"));
}

}  // namespace

TEST_SUITE("semi/resume") {
  TEST_CASE("partial labels and averaged weights go on with the same bits") {
    check_same_end([](const Net&) { return MarginalTraining{}; });
    check_same_end([](const Net& net) {
      return PartialCompletion<Net>{.teacher = {net}, .after = 0, .confidence = 0.4f};
    });
  }
  TEST_CASE("steps without a finite gradient are counted before and after an interruption") {
    Interrupted runs(few_steps(6));
    const auto make = [](const Net&) { return Faltering{}; };
    CHECK(runs.whole(make).report.skipped == 2);
    CHECK(runs.in_two(make).report.skipped == 2);
    // A checkpoint that does not say how many there were.
    runs.between = [&] {
      Checkpoint point = Checkpoint::read(runs.checkpoint());
      CHECK(point.texts.erase("run.counts") == 1);
      point.write(runs.checkpoint());
    };
    CHECK(runs.in_two(make).report.skipped == 1);
  }
  TEST_CASE("steps in a row without a finite gradient end a run that was interrupted, too") {
    auto options = few_steps(40);
    options.out =
        std::filesystem::temp_directory_path() / ("segmed_hopeless_" + std::to_string(getpid()));
    options.resume = true;
    std::filesystem::remove_all(options.out);
    std::atomic<bool> stop = false;
    options.stop = &stop;
    const auto go_on = [&] {
      Net net = small_net();
      Hopeless policy{&stop};
      return run(options, small_cohort(), net, Loss{}, policy, AdamW{});
    };
    CHECK(go_on().skipped == 10);
    stop = false;
    CHECK_THROWS_WITH_AS(go_on(),
                         doctest::Contains("20 steps in a row had no finite gradient, the last at "
                                           "step 19"),
                         Error);
    std::filesystem::remove_all(options.out);
  }
}
