// SPDX-License-Identifier: Apache-2.0
// How training steps scale with ranks, on numbers instead of scans: a step of the network of
// bench_unet with Dice + cross-entropy and SGD, the batch shared by the ranks.
//
//   mpirun -n N bench_scaling [--batch 2] [--extent 64] [--threads 1] [--steps 12]
//
// One line of JSON: times are medians over the steps after the first two, on rank 0; `least` is the
// shortest step, which a busy machine disturbs less; `processor` is the time that this rank ran on
// its processors; `waiting` is spent in calls that need other ranks, `sum` is what adding the
// gradients takes by itself; `sent_bytes` counts what this rank sends where sums travel around a
// ring: 2 (N - 1) / N of the gradient.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <map>

#include <segmed/backend/parallel.hpp>
#include <segmed/distributed/mpi.hpp>
#include <segmed/losses/composition.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/region.hpp>
#include <segmed/nn/unet.hpp>
#include <segmed/semi/trainer.hpp>

namespace {
using namespace segmed;
using F = Features<3, float, Cpu>;
using Net = UNet<UNetParts<F>>;

/// This rank's cases of a batch of noise.
Samples<F> noise(Index cases, Index extent, const Ranks& ranks) {
  const Grid grid{cases, extent, extent, extent, 1};
  const Philox random{.seed = 7, .first = ranks.rank() * grid.size()};
  std::vector<float> image(std::size_t(grid.size()));
  std::vector<std::uint8_t> labels(image.size());
  parallel_for(grid.size(), 1 << 14, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      image[std::size_t(i)] = random.normal(i);
      labels[std::size_t(i)] = std::uint8_t(image[std::size_t(i)] > 1 ? 2 : i / 7 % 2);
    }
  });
  return {F(grid, Storage<float, Cpu>(image)), labels_of<Cpu>(grid, labels, 3)};
}
double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

/// Milliseconds that the ranks take to add so many numbers, and do nothing else meanwhile.
double sum_alone(Index count, const Ranks& ranks) {
  std::vector<float> numbers(std::size_t(count), 1.0f);
  std::vector<double> milliseconds;
  for (int round = 0; round < 9; ++round) {
    ranks.any(false);  // all begin together
    const auto start = std::chrono::steady_clock::now();
    ranks.start_sum(numbers.data(), count);
    ranks.finish_sums();
    milliseconds.push_back(
        1e3 * std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return median(milliseconds);
}

int measure(Mpi& mpi, std::map<std::string, Index> of) {
  const Ranks ranks(mpi);
  set_threads(int(of["--threads"]));
  require<ConfigError>(of["--batch"] % ranks.size() == 0, "--batch", of["--batch"],
                       " cases cannot be shared by ", ranks.size(), " ranks");
  Net net({.channels_in = 1, .classes = 3, .widths = {32, 64, 128, 256}});
  const Sum loss{Dice{}, CrossEntropy{}};
  Supervised policy;
  const Sgd optimizer;
  Trainer<Net, Sum<Dice, CrossEntropy>, Supervised, Sgd> trainer(net, loss, policy, optimizer, 1, 0,
                                                                 12, ranks);
  const auto samples = noise(of["--batch"] / ranks.size(), of["--extent"], ranks);
  const double sum = sum_alone(parameter_count(net), ranks);
  std::vector<double> milliseconds, waited, processor;
  Index sent = 0;
  for (Index step = 0; step < of["--steps"] + 2; ++step) {
    const auto start = std::chrono::steady_clock::now();
    const double before = mpi.seconds_waited();
    const Index bytes = mpi.bytes_sent();
    const std::clock_t worked = std::clock();
    trainer.step(samples, {}, 0.1, 1);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (step < 2) continue;
    milliseconds.push_back(1e3 * took.count());
    waited.push_back(1e3 * (mpi.seconds_waited() - before));
    processor.push_back(1e3 * double(std::clock() - worked) / CLOCKS_PER_SEC);
    sent = mpi.bytes_sent() - bytes;
  }
  if (ranks.first())
    std::printf(
        "{\"ranks\": %d, \"threads\": %d, \"batch\": %d, \"extent\": %d, "
        "\"milliseconds\": %.1f, \"least\": %.1f, \"processor\": %.1f, \"waiting\": %.1f, \"sum\": "
        "%.1f, "
        "\"parameters\": %lld, "
        "\"gradient_bytes\": %lld, \"sent_bytes\": %lld}\n",
        ranks.size(), threads(), int(of["--batch"]), int(of["--extent"]), median(milliseconds),
        *std::min_element(milliseconds.begin(), milliseconds.end()), median(processor),
        median(waited), sum, static_cast<long long>(parameter_count(net)),
        static_cast<long long>(4 * parameter_count(net)), static_cast<long long>(sent));
  return 0;
}
}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, Index> of = {
      {"--batch", 2}, {"--extent", 64}, {"--threads", 1}, {"--steps", 12}};
  for (int i = 1; i + 1 < argc; i += 2) of[argv[i]] = std::atoll(argv[i + 1]);
  return with_mpi([&](Mpi& mpi) { return measure(mpi, of); });
}
