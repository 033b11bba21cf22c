// SPDX-License-Identifier: Apache-2.0
// Runs on a device that fetches batches ahead and replays steps, beside the same runs on one that
// does neither.
#include "../backend/host_gpu.hpp"
#include "policy_trial.hpp"
#include <segmed/losses/partial.hpp>
#include <segmed/semi/any_policy.hpp>
#include <segmed/semi/fix_match.hpp>
#include <segmed/semi/marginal_training.hpp>
#include <segmed/semi/mean_teacher.hpp>

namespace {
using namespace trial;
using fake::RecordingHost;
using G = Features<3, float, RecordingHost>;
using GNet = UNet<UNetParts<G>>;
static_assert(HasGraphs<RecordingHost>);
static_assert(!HasGraphs<Cpu>);
static_assert(!CopiesAhead<Cpu>);

static_assert(HasGraphs<fake::HostGpu>);

GNet gpu_net(std::uint64_t seed = 1) {
  return GNet(
      {.classes = 3, .widths = {4, 8}, .encoder_convs = 1, .decoder_convs = 1, .seed = seed});
}
/// On small patches, for plain kernels are slow.
RunOptions small_steps(Index steps) {
  auto options = few_steps(steps);
  options.patch = {8, 8, 8};
  return options;
}
template <class Policy>
RunReport trained(GNet& net, const RunOptions& options, Policy policy) {
  return run(options, small_cohort(), net, Loss{}, policy, AdamW{.rate = 3e-3f});
}
double last_loss(const RunReport& report) { return report.curve.back().total; }

/// Supervised, and noise on the image.
struct Noisy {
  static constexpr bool replays = true;
  template <class Now>
  typename Now::Value loss(Now& now) {
    return 0.1f * mean_square(now.student(add_noise(now.full.image, 0.1f)), 0.0);
  }
};
/// Supervised, and something that only the host knows.
struct Looking {
  static constexpr bool replays = true;
  template <class Now>
  typename Now::Value loss(Now& now) {
    const float seen = float(mean(now.logits_full()).host());
    return (0.1f + 0 * seen) * mean(now.logits_full());
  }
};

}  // namespace

TEST_SUITE_BEGIN("semi/replay");

TEST_CASE("replayed steps end with the bits of steps that were not") {
  GNet plain = gpu_net(), replayed = gpu_net();
  auto options = small_steps(8);
  options.average = 0.9f;
  CHECK(trained(plain, options, Supervised{}).replayed == 0);
  options.replay = true;
  const RunReport report = trained(replayed, options, Supervised{});
  CHECK(report.steps == 8);
  CHECK(report.replayed == 6);
  CHECK(report.replay_refusal == "");
  CHECK(weights_of(replayed) == weights_of(plain));
}

TEST_CASE(
    "steps of teams and dense convolutions, on maps of Bfloat16, are replayed with the same bits") {
  using T = Features<3, Bfloat16, fake::HostGpu>;
  using TNet = UNet<UNetParts<T>>;
  const auto trained_weights = [](bool replay) {
    TNet net({.classes = 3, .widths = {4, 8}, .encoder_convs = 1, .decoder_convs = 1});
    auto options = small_steps(4);
    options.replay = replay;
    const RunReport report = run(options, small_cohort(), net, Loss{}, Supervised{}, Sgd{});
    CHECK(report.replayed == (replay ? 2 : 0));
    CHECK(report.replay_refusal == "");
    return weights_of(net);
  };
  const Index teams = check::TeamedHost::teams, graphs = fake::RecordedLoop::runs();
  const auto plain = trained_weights(false);
  CHECK(trained_weights(true) == plain);
  CHECK(check::TeamedHost::teams > teams);
  CHECK(fake::RecordedLoop::runs() > graphs);
}

TEST_CASE("a resumed run counts the steps that were replayed before it") {
  GNet net = gpu_net();
  auto options = small_steps(8);
  options.replay = options.resume = true;
  options.out =
      std::filesystem::temp_directory_path() / ("segmed_replayed_" + std::to_string(getpid()));
  std::filesystem::remove_all(options.out);
  std::atomic<bool> stop = false;
  auto until = options;
  until.stop = &stop;
  const RunReport half = trained(net, until, StopAfterThird<Supervised>{{}, &stop});
  CHECK(half.interrupted);
  CHECK(half.replayed == 1);
  CHECK(trained(net, options, Supervised{}).replayed == 1 + 3);  // steps 3 and 4 record anew
  std::filesystem::remove_all(options.out);
}

TEST_CASE("the device's own memory is the run's, and nothing of it is left") {
  const auto& memory = RecordingHost::Memory::current();
  const std::size_t before = memory.used();
  {
    GNet net = gpu_net();
    auto options = small_steps(5);
    options.replay = true;
    trained(net, options, Supervised{});
  }
  CHECK(memory.used() == before);
}

TEST_CASE("batches travel ahead and are those of a device that waits for each") {
  Net host = small_net();
  GNet net = gpu_net();
  const int before = RecordingHost::copies_ahead;
  MeanTeacher<GNet> teacher{{net}};
  const auto report = trained(net, small_steps(5), teacher);
  CHECK(RecordingHost::copies_ahead > before);
  MeanTeacher<Net> host_teacher{{host}};
  const auto on_host =
      run(small_steps(5), small_cohort(), host, Loss{}, host_teacher, AdamW{.rate = 3e-3f});
  CHECK(last_loss(report) == doctest::Approx(last_loss(on_host)).epsilon(1e-3));
}

TEST_CASE("partly annotated samples are replayed while their annotated sets stay") {
  GNet plain = gpu_net(), replayed = gpu_net();
  auto options = small_steps(8);
  trained(plain, options, MarginalTraining{});
  options.replay = true;
  const RunReport report = trained(replayed, options, MarginalTraining{});
  CHECK(report.replayed > 0);
  CHECK(weights_of(replayed) == weights_of(plain));
}

TEST_CASE("a policy that is chosen at run time is replayed as the policy itself") {
  using Any = AnyPolicy<GNet, Loss>;
  const auto both = [](auto first, auto second) {
    std::vector<Any> all;
    all.emplace_back("first", first), all.emplace_back("second", second);
    return Any::together(std::move(all));
  };
  GNet plain = gpu_net(), one = gpu_net(), two = gpu_net(), not_all = gpu_net();
  auto options = small_steps(8);
  const RunReport itself = trained(plain, options, MarginalTraining{});
  options.replay = true;
  const RunReport of_one = trained(one, options, Any("marginal", MarginalTraining{}));
  const RunReport of_two = trained(two, options, both(MarginalTraining{}, Supervised{}));
  const RunReport of_some = trained(not_all, options, both(MarginalTraining{}, FixMatch{}));
  CHECK(itself.replayed == 0);
  CHECK(of_one.replayed > 0);
  CHECK(of_two.replayed == of_one.replayed);
  CHECK(weights_of(one) == weights_of(plain));
  CHECK(weights_of(two) == weights_of(plain));
  CHECK(of_some.replayed == 0);
  CHECK(of_some.replay_refusal ==
        "the policy does not say that its terms are computed by kernels alone");
}

TEST_CASE("a step that cannot be replayed runs as ever, and the report says why") {
  const auto check = [](auto policy, const char* why) {
    GNet plain = gpu_net(), asked = gpu_net();
    auto options = small_steps(5);
    CHECK(trained(plain, options, policy).replay_refusal == "");
    options.replay = true;
    const RunReport report = trained(asked, options, policy);
    CHECK(report.replayed == 0);
    CHECK(report.replay_refusal == why);
    CHECK(weights_of(asked) == weights_of(plain));
  };
  check(Noisy{}, "the step draws random numbers");
  check(Looking{}, "segmed: fake: to wait cannot be captured");
  GNet net = gpu_net();
  check(MeanTeacher<GNet>{{net}},
        "the policy does not say that its terms are computed by kernels alone");
}

TEST_CASE("a device without graphs says so") {
  Net net = small_net();
  auto options = small_steps(3);
  options.replay = true;
  const RunReport report = run(options, small_cohort(), net, Loss{}, Supervised{}, AdamW{});
  CHECK(report.replayed == 0);
  CHECK(report.replay_refusal == "the device cannot");
}

TEST_SUITE_END();
