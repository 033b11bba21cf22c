// SPDX-License-Identifier: Apache-2.0
// What training on a GPU needs beside kernels. Without a GPU each test says that it is skipped.
#include <doctest/doctest.h>

#include "policy_trial.hpp"
#include <segmed/backend/cuda.hpp>
#include <segmed/core/bfloat16.hpp>

namespace {
using namespace trial;
template <class F>
using NetOf = UNet<UNetParts<F>>;
static_assert(CopiesAhead<Cuda> && HasGraphs<Cuda>);

bool with_gpu() {
  if (Cuda::count() == 0) MESSAGE("skipped: no GPU can be used here");
  return Cuda::count() > 0;
}
template <class F>
NetOf<F> net_of() {
  return NetOf<F>({.classes = 3, .widths = {8, 16}});
}
template <class F>
RunReport trained(NetOf<F>& net, const RunOptions& options) {
  return run(options, small_cohort(), net, Loss{}, Supervised{}, AdamW{.rate = 3e-3f});
}
double mean_loss(const RunReport& report, std::size_t first, std::size_t last) {
  double sum = 0;
  for (std::size_t i = first; i < last; ++i) sum += report.curve.at(i).labelled;
  return sum / double(last - first);
}

}  // namespace

TEST_SUITE_BEGIN("semi/cuda");

TEST_CASE("a network learns on maps of float and of Bfloat16 as on the processor") {
  if (!with_gpu()) return;
  auto host = net_of<Features<3, float, Cpu>>();
  auto whole = net_of<Features<3, float, Cuda>>();
  auto half = net_of<Features<3, Bfloat16, Cuda>>();
  const RunReport a = trained(host, few_steps(40)), b = trained(whole, few_steps(40)),
                  c = trained(half, few_steps(40));
  CHECK(b.curve.at(0).labelled == doctest::Approx(a.curve.at(0).labelled).epsilon(1e-3));
  CHECK(c.curve.at(0).labelled == doctest::Approx(a.curve.at(0).labelled).epsilon(1e-2));
  CHECK(mean_loss(b, 30, 40) == doctest::Approx(mean_loss(a, 30, 40)).epsilon(0.05));
  CHECK(mean_loss(c, 30, 40) == doctest::Approx(mean_loss(a, 30, 40)).epsilon(0.05));
}

TEST_CASE("replayed steps end with the bits of steps that were not, and the same bits each time") {
  if (!with_gpu()) return;
  using F = Features<3, Bfloat16, Cuda>;
  auto options = few_steps(8);
  auto plain = net_of<F>(), again = net_of<F>(), replayed = net_of<F>();
  trained(plain, options);
  trained(again, options);
  CHECK(weights_of(again) == weights_of(plain));
  options.replay = true;
  CHECK(trained(replayed, options).replayed == 6);
  CHECK(weights_of(replayed) == weights_of(plain));
}

TEST_SUITE_END();
