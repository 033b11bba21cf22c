// SPDX-License-Identifier: Apache-2.0
// What a GPU is asked: whether every op gives what the processor gives, and how long things take.
//
//   bench_gpu --device      the GPU's name; exit code 77 and a sentence where there is none
//   bench_gpu --parity      lines "ERROR ALLOWED TYPE OP"; exit code 1 if an error is larger
//   bench_gpu --list        the names of the workloads
//   bench_gpu --serve       reads names, answers each "MS TFLOPS": the median of some runs; at the
//                           end says on standard error how each convolution was computed
//   bench_gpu --peak NAME   MiB that tensors and workspaces of two runs need at most once all plans
//                           are made, and that are held for them
//   bench_gpu --small-run   trains a small network for a few steps, each kind once
//
// Single ops are timed by the GPU's clock while the host is ahead of it, so that what launching
// them costs the host does not count; whole networks as they run.
//
// PyTorch's side of the workloads is bench/gpu/gpu_torch.py; bench/gpu/gpu.sh runs all of it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <string>

#include "../../tests/autograd/every_op.hpp"
#include <segmed/data/phantom.hpp>
#include <segmed/experiment/run.hpp>
#include <segmed/nn/unet.hpp>
#include <segmed/segmed.hpp>
#include <segmed/semi/mean_teacher.hpp>
#include <segmed/semi/trainer.hpp>

namespace {

using namespace segmed;
using T = Bfloat16;
using F = Features<3, T, Cuda>;
using Net = UNet<UNetParts<F>>;
using Loss = Sum<Dice, CrossEntropy>;

const std::vector<Index> widths = {32, 64, 128, 256, 320, 320};
constexpr Index classes = 3;

__global__ void wait_for_cycles(long long cycles) {
  const long long from = clock64();
  while (clock64() - from < cycles) {
  }
}

/// Between two moments of the GPU's own queue.
class GpuTimer {
 public:
  GpuTimer() {
    Cuda::check(cudaEventCreate(&begin_), "cudaEventCreate");
    Cuda::check(cudaEventCreate(&end_), "cudaEventCreate");
  }
  ~GpuTimer() {
    static_cast<void>(cudaEventDestroy(begin_));
    static_cast<void>(cudaEventDestroy(end_));
  }
  GpuTimer(const GpuTimer&) = delete;
  GpuTimer& operator=(const GpuTimer&) = delete;
  /// Keeps the GPU busy until the host has queued what is to be timed.
  void fill() {
    const double milliseconds = std::clamp(2 * queueing_, 0.2, 20.0);
    wait_for_cycles<<<1, 1, 0, Cuda::stream()>>>((long long)(2e6 * milliseconds));  // 2 GHz
    Cuda::check(cudaGetLastError(), "a kernel launch");
  }
  void begin() {
    since_ = std::chrono::steady_clock::now();
    Cuda::check(cudaEventRecord(begin_, Cuda::stream()), "cudaEventRecord");
  }
  double milliseconds() {
    const std::chrono::duration<double, std::milli> queueing =
        std::chrono::steady_clock::now() - since_;
    queueing_ = queueing.count();
    Cuda::check(cudaEventRecord(end_, Cuda::stream()), "cudaEventRecord");
    Cuda::check(cudaEventSynchronize(end_), "cudaEventSynchronize");
    float taken = 0;
    Cuda::check(cudaEventElapsedTime(&taken, begin_, end_), "cudaEventElapsedTime");
    return double(taken);
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::chrono::steady_clock::time_point since_{};
  double queueing_ = 0;  // milliseconds of the host, the last time
};

/// One run, in milliseconds of the GPU.
using Run = std::function<double()>;
struct Workload {
  std::string name;
  std::function<Run()> prepare;
  double flops = 0;
};
/// A single op: so often between two events, while the host is ahead.
Run timed_alone(std::function<void()> work) {
  return [work = std::move(work), timer = std::make_shared<GpuTimer>()] {
    const int batch = 5;
    timer->fill();
    timer->begin();
    for (int i = 0; i < batch; ++i) work();
    return timer->milliseconds() / batch;
  };
}
Run timed(std::function<void()> work) {
  return [work = std::move(work), timer = std::make_shared<GpuTimer>()] {
    timer->begin();
    work();
    return timer->milliseconds();
  };
}

Storage<T, Cuda> random_numbers(Index size, std::uint32_t stream = 0) {
  const Philox random{2026, Purpose::statistics, stream};
  std::vector<T> host(static_cast<std::size_t>(size));
  parallel_for(size, 1 << 14, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) host[std::size_t(i)] = T(random.normal(i));
  });
  return Storage<T, Cuda>(host);
}
Labels<Cuda> random_labels(const Grid& grid, Index count) {
  const Philox random{2027, Purpose::statistics};
  std::vector<std::uint8_t> host(std::size_t(grid.rows()));
  parallel_for(grid.rows(), 1 << 14, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) host[std::size_t(i)] = std::uint8_t(random.below(i, count));
  });
  return labels_of<Cuda>(grid, host, count);
}
Grid cube(Index cases, Index extent, Index channels) {
  return {cases, extent, extent, extent, channels};
}

// ---- convolutions by themselves: no bias, no moments, plain operands

enum class Pass { forward, data, weights };
Run convolution(Pass pass, Index channels, Index extent) {
  struct Operands {
    Window w;
    Storage<T, Cuda> x, y;
    Storage<float, Cuda> weight, weight_grad;
  };
  const auto o = std::make_shared<Operands>();
  o->w = ConvGeometry<3>::cubic(3).window();
  o->w.fine = o->w.coarse = cube(2, extent, channels);
  o->x = random_numbers(o->w.fine.size()), o->y = random_numbers(o->w.coarse.size(), 1);
  std::vector<float> weight(std::size_t(o->w.weights()));
  const Philox random{1, Purpose::initialize};
  for (std::size_t i = 0; i < weight.size(); ++i) weight[i] = 0.05f * random.normal(Index(i));
  o->weight = Storage<float, Cuda>(weight);
  o->weight_grad = Storage<float, Cuda>(o->w.weights());
  return timed_alone([o, pass] {
    const auto reads = [](const Grid& grid, const Storage<T, Cuda>& from) {
      Feed<T> feed;
      feed.values.lane[0].grid = grid, feed.values.lane[0].x = from.read();
      return feed;
    };
    const auto writes = [](const Grid& grid, Storage<T, Cuda>& to) {
      Sink<T> sink;
      sink.grid[0] = grid, sink.out[0] = to.write();
      return sink;
    };
    const Feed<T> fine = reads(o->w.fine, o->x), coarse = reads(o->w.coarse, o->y);
    if (pass == Pass::forward)
      gather<Cuda>(o->w, fine, o->weight.read(), writes(o->w.coarse, o->y));
    else if (pass == Pass::data)
      scatter<Cuda>(o->w, coarse, o->weight.read(), writes(o->w.fine, o->x));
    else
      weigh<Cuda>(o->w, fine, coarse, o->weight_grad.write());
  });
}

/// A transposed convolution from twice as many channels that doubles the extents, with its bias:
/// in one graph where an engine does both, or in a pass of its own.
Run convolution_up(Index channels, Index extent, bool fused) {
  const auto weight = std::make_shared<F::P>(8 * channels * 2 * channels, Init{.deviation = 0.05});
  const auto bias = std::make_shared<F::P>(channels);
  const Grid grid = cube(2, extent / 2, 2 * channels);
  const auto values = random_numbers(grid.size());
  return timed_alone([=] {
    Cudnn::fused(fused);
    no_grad([&] {
      return transposed_conv(F(grid, values), *weight, *bias, ConvGeometry<3>::cubic(2, 2, 0));
    });
    Cudnn::fused(true);
  });
}

// ---- single ops with their gradients

struct Norm {
  F::P gain, bias;
  explicit Norm(Index channels) : gain(channels, {.constant = 1}), bias(channels) {}
  F operator()(const F& x) const { return value(leaky_relu(instance_norm(x, gain, bias), 0.01)); }
  static void members(auto& self, auto&& visit) {
    visit("gain", self.gain);
    visit("bias", self.bias);
  }
};
Run norm_forward(Index channels, Index extent) {
  const auto norm = std::make_shared<Norm>(channels);
  const auto values = random_numbers(cube(2, extent, channels).size());
  return timed_alone(
      [=] { no_grad([&] { return (*norm)(F(cube(2, extent, channels), values)); }); });
}
Run norm_backward(Index channels, Index extent) {
  const auto norm = std::make_shared<Norm>(channels);
  const auto group = std::make_shared<GroupOf<F>>(Role::trained, *norm);
  const auto values = random_numbers(cube(2, extent, channels).size());
  const auto timer = std::make_shared<GpuTimer>();
  return [=] {
    const F x(cube(2, extent, channels), values, true);
    const F y = (*norm)(x);
    y.dense().grad->sum = values;  // what comes in
    timer->fill();
    timer->begin();
    Tape::current()->pull_all({});
    return timer->milliseconds();
  };
}
Run dice_and_entropy(Index channels, Index extent) {
  const Grid grid = cube(2, extent, channels);
  const auto values = random_numbers(grid.size());
  const auto labels = std::make_shared<Labels<Cuda>>(random_labels(grid, channels));
  return timed_alone([=] {
    const F x(grid, values, true);
    backward(Criterion<Loss>{{Dice::monai(), CrossEntropy{}}}(x, *labels));
  });
}

// ---- whole networks

struct Training {
  Net net;
  Loss loss{Dice::monai(), CrossEntropy{}};
  Supervised policy;
  Sgd optimizer;
  Samples<F> samples;
  Trainer<Net, Loss, Supervised, Sgd> trainer;

  Training(Index cases, Index extent, const std::vector<Index>& of, bool replay)
      : net({.channels_in = 1, .classes = classes, .widths = of}),
        trainer(net, loss, policy, optimizer, 1, 0, 12, {}, replay) {
    const Grid grid = cube(cases, extent, 1);
    samples.image = F(grid, random_numbers(grid.size()));
    samples.labels = random_labels(grid, classes);
  }
  std::string refusal() const { return trainer.replay_refusal(); }
  StepResult step() { return trainer.step(samples, {}, 0.5, 1); }
};
Run training(Index cases, Index extent, bool replay) {
  const auto t = std::make_shared<Training>(cases, extent, widths, replay);
  for (int i = 0; i < 3; ++i) t->step();
  return timed([t, replay] {
    const StepResult result = t->step();
    require<Error>(result.replayed == replay, "bench_gpu", "the step was ",
                   result.replayed ? "" : "not ", "replayed: ", t->refusal());
  });
}
Run optimizer_step() {
  const auto net =
      std::make_shared<Net>(UNetOptions<3>{.channels_in = 1, .classes = classes, .widths = widths});
  const auto group = std::make_shared<GroupOf<F>>(Role::trained, *net);
  const auto clock = std::make_shared<Clock<Cuda>>(1);
  clock->set({.rate = 1e-6f});
  return timed_alone([=] {
    (void)net;
    Sgd{}.step(*group, *clock);
  });
}
Run inference(Index cases, Index extent) {
  const auto net =
      std::make_shared<Net>(UNetOptions<3>{.channels_in = 1, .classes = classes, .widths = widths});
  const Grid grid = cube(cases, extent, 1);
  const auto values = random_numbers(grid.size());
  return timed([=] { evaluating([&] { return value((*net)(F(grid, values))); }); });
}

/// Of a 3x3x3 convolution, batch 2.
double conv_flops(Index channels, Index extent) {
  return 2.0 * 2 * 27 * double(channels * channels) * double(extent * extent * extent);
}
std::vector<Workload> workloads() {
  std::vector<Workload> all;
  const std::pair<Index, Index> shapes[] = {{32, 128}, {64, 64}, {128, 32}, {256, 16}, {320, 8}};
  const std::pair<Pass, const char*> passes[] = {{Pass::forward, "Conv3dFwd"},
                                                 {Pass::data, "Conv3dBwdData"},
                                                 {Pass::weights, "Conv3dBwdWeights"}};
  for (const auto& [pass, what] : passes)
    for (const auto& [channels, extent] : shapes)
      all.push_back(
          {std::string(what) + '/' + std::to_string(channels) + '/' + std::to_string(extent),
           [pass = pass, channels = channels, extent = extent] {
             return convolution(pass, channels, extent);
           },
           conv_flops(channels, extent)});
  const double up_flops = 2.0 * 2 * 8 * 64 * 32 * 64 * 64 * 64;
  all.push_back(
      {"ConvTransposeBias/32/128", [] { return convolution_up(32, 128, true); }, up_flops});
  all.push_back(
      {"ConvTransposeBiasApart/32/128", [] { return convolution_up(32, 128, false); }, up_flops});
  all.push_back({"InstNormLReluFwd/32/128", [] { return norm_forward(32, 128); }});
  all.push_back({"InstNormLReluBwd/32/128", [] { return norm_backward(32, 128); }});
  all.push_back({"DiceCeFwdBwd/14/128", [] { return dice_and_entropy(14, 128); }});
  all.push_back({"OptimizerStep", optimizer_step});
  // 1909 Gflop forward at 128^3, batch 2.
  all.push_back({"UNetTrainStep/128/2", [] { return training(2, 128, false); }, 3 * 1909e9});
  all.push_back({"UNetTrainStepReplayed/128/2", [] { return training(2, 128, true); }, 3 * 1909e9});
  all.push_back({"UNetInfer/128/1", [] { return inference(1, 128); }, 1909e9 / 2});
  all.push_back({"UNetInfer/128/4", [] { return inference(4, 128); }, 2 * 1909e9});
  return all;
}

/// The median of the runs that fit into a fifth of a second, at least three.
double median(const Run& run) {
  std::vector<double> taken;
  for (double total = 0; taken.size() < 3 || (total < 200 && taken.size() < 50);
       total += taken.back())
    taken.push_back(run());
  std::nth_element(taken.begin(), taken.begin() + std::ptrdiff_t(taken.size() / 2), taken.end());
  return taken[taken.size() / 2];
}
const Workload* find(const std::vector<Workload>& all, const std::string& name) {
  for (const Workload& w : all)
    if (w.name == name) return &w;
  return nullptr;
}
void say_plans() {
  for (const std::string& plan : CudnnContext::current(Cuda::stream()).report())
    std::fprintf(stderr, "plan: %s\n", plan.c_str());
}
int serve() {
  const auto all = workloads();
  std::string ready;
  Run run;
  for (std::string name; std::getline(std::cin, name);) {
    const Workload* const w = find(all, name);
    try {
      require<ConfigError>(w != nullptr, "bench_gpu", "no workload is named ", name);
      if (ready != name) {
        run = {}, ready.clear();
        Tape::current()->clear();
        Cuda::memory().trim();
        run = w->prepare();
        run(), run(), run();
        ready = name;
      }
      const double milliseconds = median(run);
      std::printf("%.6g %.4g\n", milliseconds, w->flops / milliseconds * 1e-9);
    } catch (const std::exception& error) {
      run = {}, ready.clear();
      std::printf("- %s\n", error.what());
    }
    std::fflush(stdout);
  }
  say_plans();
  return 0;
}
int peak(const std::string& name) {
  const auto all = workloads();
  const Workload* const w = find(all, name);
  require<ConfigError>(w != nullptr, "bench_gpu", "no workload is named ", name);
  const Run run = w->prepare();
  run(), run();  // plans are made and checked, which takes memory once
  Cuda::memory().trim();
  Cuda::memory().forget_peak();
  run(), run();
  std::printf("%.1f %.1f\n", double(Cuda::memory().peak()) / (1 << 20),
              double(Cuda::memory().held()) / (1 << 20));
  return 0;
}

template <class Number>
bool parity_of(const char* type, double allowed) {
  bool right = true;
  every_op::each([&](const char* name, const std::vector<Grid>& grids,
                     const std::vector<Index>& sizes, const auto& op) {
    double error = INFINITY;
    try {
      error = every_op::apart(every_op::outcome<Features<3, Number, Cuda>>(grids, sizes, op),
                              every_op::outcome<Features<3, float, Cpu>>(grids, sizes, op));
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "%s, %s: %s\n", name, type, failure.what());
    }
    right = right && error <= allowed;
    std::printf("%.3g %.3g %s %s\n", error, allowed, type, name);
    std::fflush(stdout);
  });
  return right;
}

int small_run() {
  const auto cohort = phantom::abdomen({.cases = 4,
                                        .organs = 2,
                                        .labelled = 2,
                                        .validation = 0,
                                        .extent = {24, 24, 24},
                                        .spacing_mm = 16,
                                        .partial_views = false});
  const auto train = [&](auto make, bool replay) {
    Net net({.channels_in = 1, .classes = 3, .widths = {8, 16}});
    RunOptions options;
    options.steps = 5, options.patch = {16, 16, 16}, options.quiet = true;
    options.replay = replay;
    const RunReport report = run(options, cohort, net, Loss{}, make(net), AdamW{});
    std::printf("%d steps, %d replayed%s%s, loss %.3f\n", int(report.steps), int(report.replayed),
                report.replay_refusal.empty() ? "" : ": ", report.replay_refusal.c_str(),
                report.curve.back().total);
    segment<F>(net, cohort.load(0).image, {.patch = {16, 16, 16}});
  };
  const auto supervised = [](const Net&) { return Supervised{}; };
  train(supervised, false);
  train(supervised, true);
  train([](const Net& net) { return MeanTeacher<Net>{{net}}; }, false);
  return 0;
}

int program(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "--list") {
    for (const Workload& w : workloads()) std::printf("%s\n", w.name.c_str());
    return 0;
  }
  if (Cuda::count() == 0) {
    std::fprintf(stderr, "bench_gpu: no GPU can be used here, so nothing was run\n");
    return 77;
  }
  if (mode == "--device") return std::printf("%s\n", Cuda::name(0).c_str()), 0;
  if (mode == "--parity") {
    const bool whole = parity_of<float>("float", 1e-4);
    const bool half = parity_of<Bfloat16>("bfloat16", 2e-2);
    say_plans();
    return whole && half ? 0 : 1;
  }
  if (mode == "--serve") return serve();
  if (mode == "--peak" && argc > 2) return peak(argv[2]);
  if (mode == "--small-run") return small_run();
  std::fprintf(stderr,
               "usage: bench_gpu --device | --parity | --list | --serve | --peak NAME | "
               "--small-run\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return program(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
