// SPDX-License-Identifier: Apache-2.0
// Whole runs on maps of Bfloat16, beside the same runs on maps of float.
#include "policy_trial.hpp"
#include <segmed/core/bfloat16.hpp>
#include <segmed/losses/deep_supervision.hpp>
#include <segmed/losses/partial.hpp>
#include <segmed/semi/copy_paste.hpp>
#include <segmed/semi/cross_consistency.hpp>
#include <segmed/semi/deformation_consistency.hpp>
#include <segmed/semi/mean_teacher.hpp>
#include <segmed/semi/mutual_consistency.hpp>
#include <segmed/semi/pyramid_consistency.hpp>
#include <segmed/semi/uni_match.hpp>
#include <segmed/train/checkpoint.hpp>

namespace {
using namespace trial;
using Half = Features<3, Bfloat16, Cpu>;
template <class M>
using NetOf = UNet<UNetParts<M>>;

template <class M>
NetOf<M> net_of(std::uint64_t seed = 1) {
  return NetOf<M>(
      {.classes = 3, .widths = {4, 8}, .encoder_convs = 1, .decoder_convs = 1, .seed = seed});
}
template <class M, class Policy = Supervised>
RunReport trained(NetOf<M>& net, Index steps, Policy policy = {}) {
  return run(few_steps(steps), small_cohort(), net, Loss{}, policy, AdamW{.rate = 1e-2f});
}
/// The mean loss of D_0 over some steps of a run.
double mean_loss(const RunReport& report, std::size_t first, std::size_t last) {
  double sum = 0;
  for (std::size_t i = first; i < last; ++i) sum += report.curve.at(i).labelled;
  return sum / double(last - first);
}

}  // namespace

TEST_SUITE_BEGIN("semi/bfloat16");

TEST_CASE("a small U-Net learns on maps of Bfloat16 as on maps of float") {
  auto half = net_of<Half>();
  auto whole = net_of<F>();
  CHECK(weights_of(half) == weights_of(whole));  // parameters are float in both
  const RunReport in_half = trained(half, 60), in_float = trained(whole, 60);
  CHECK(in_half.skipped == 0);
  CHECK(in_half.curve.at(0).labelled ==
        doctest::Approx(in_float.curve.at(0).labelled).epsilon(1e-2));
  CHECK(mean_loss(in_half, 50, 60) < 0.7 * mean_loss(in_half, 0, 5));
  CHECK(mean_loss(in_half, 50, 60) == doctest::Approx(mean_loss(in_float, 50, 60)).epsilon(0.05));
}

TEST_CASE("what was trained on maps of Bfloat16 predicts on maps of float, and a run resumes") {
  auto half = net_of<Half>(2);
  trained(half, 20);
  Checkpoint point;
  point.save("network", half);
  auto whole = net_of<F>(3);
  point.load("network", whole);
  CHECK(weights_of(half) == weights_of(whole));
  const auto cohort = small_cohort();
  const auto image = cohort.load(0).image;
  const SlidingWindow how{.patch = {16, 16, 16}};
  const auto a = segment<Half>(half, image, how).labels.voxels;
  const auto b = segment<F>(whole, image, how).labels.voxels;
  double same = 0;
  for (std::size_t i = 0; i < a.size(); ++i) same += a[i] == b[i];
  CHECK(same > 0.98 * double(a.size()));
}

TEST_CASE("policies and losses take maps of Bfloat16") {
  using Net = NetOf<Half>;
  const auto learns = [](auto make) {
    Net net = net_of<Half>();
    const auto report = trained(net, 2, make(net));
    CHECK(report.steps == 2);
    CHECK(report.skipped == 0);
    CHECK(std::isfinite(report.curve.back().total));
  };
  learns([](const Net& net) { return MeanTeacher<Net>{{net}}; });
  learns([](const Net& net) { return CopyPaste<Net>{{net}}; });
  learns([](const Net& net) { return CrossConsistency<Net>(net); });
  learns([](const Net&) { return UniMatch{}; });

  Net net = net_of<Half>();
  auto options = few_steps(2);
  using Deep = DeepSupervision<Marginal<Loss>>;
  CHECK(run(options, small_cohort(), net, Deep{}, Supervised{}, Sgd{}).steps == 2);
}

TEST_SUITE_END();
