// SPDX-License-Identifier: Apache-2.0
// Whole networks: 1 -> 32-64-128-256 -> 3 classes, two convolutions a stage, strided down,
// transposed up, InstanceNorm, LeakyReLU; Dice + cross-entropy and SGD with Nesterov's momentum.
// And what happens to their weights in a step: the optimizer, the average.
#include "workload.hpp"
#include <segmed/autograd/group.hpp>
#include <segmed/losses/composition.hpp>
#include <segmed/losses/criterion.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/region.hpp>
#include <segmed/nn/unet.hpp>
#include <segmed/train/inference.hpp>
#include <segmed/train/optimizer.hpp>

namespace {
using namespace segmed;
template <std::size_t Dim, class T>
using FeaturesOf = Features<Dim, T, Cpu>;
template <std::size_t Dim, class T>
using NetOf = UNet<UNetParts<FeaturesOf<Dim, T>>>;

const std::vector<Index> widths = {32, 64, 128, 256};
constexpr Index classes = 3;

template <std::size_t Dim, class T>
NetOf<Dim, T> network(const std::vector<Index>& of) {
  return NetOf<Dim, T>({.channels_in = 1, .classes = classes, .widths = of});
}
template <std::size_t Dim>
Shape<Dim> cube(Index cases, Index extent) {
  Shape<Dim> shape{.cases = cases};
  shape.extent.fill(extent);
  return shape;
}
/// Of all convolutions, forward: three of a stage's four read the stage's width, the first of the
/// way back reads twice that.
double flops(std::size_t dim, Index cases, Index extent) {
  double total = 0;
  const double taps = std::pow(3.0, double(dim)), block = std::pow(2.0, double(dim));
  for (std::size_t s = 0; s < widths.size(); ++s) {
    const double voxels =
        double(cases) * std::pow(double(extent) / std::pow(2.0, double(s)), double(dim));
    const double here = double(widths[s]), above = s == 0 ? 1 : double(widths[s - 1]);
    total += voxels * taps * here * (above + here);
    if (s + 1 == widths.size()) continue;
    total += voxels * taps * here * (2 * here + here);               // back
    total += voxels / block * double(widths[s + 1]) * here * block;  // transposed
    if (s == 0) total += voxels * here * double(classes);            // head
  }
  return 2 * total;
}

/// Weights of all convolutions, 3-D: what is left out is a thousandth.
double weights() {
  double total = 27.0 * 32;
  for (std::size_t s = 0; s < widths.size(); ++s) {
    const double here = double(widths[s]);
    total += 27 * here * here;
    if (s > 0) total += 27 * double(widths[s - 1]) * here;
    if (s + 1 < widths.size()) total += 27 * 3 * here * here + 8 * double(widths[s + 1]) * here;
  }
  return total;
}

template <std::size_t Dim, class T>
struct Training {
  using F = FeaturesOf<Dim, T>;
  NetOf<Dim, T> net;
  GroupOf<F> group;
  Clock<Cpu> clock;
  F image;
  Labels<Cpu> labels;
  Criterion<Sum<Dice, CrossEntropy>> criterion{{Dice::monai(), CrossEntropy{}}};

  Training(const Shape<Dim>& shape, const std::vector<Index>& of)
      : net(network<Dim, T>(of)), group(Role::trained, net) {
    const Grid grid = shape.grid();
    const auto values = bench::normal_numbers(grid.size());
    image = F(grid, Storage<T, Cpu>(std::vector<T>(values.begin(), values.end())));
    labels = labels_of<Cpu>(grid, bench::random_labels(grid.size(), classes), classes);
    clock.set({.rate = 1e-2f});
  }
  double step() {
    group.clear_grads();
    const auto loss = criterion(net(image), labels);
    backward(loss);
    Sgd{}.step(group, clock);
    return loss.host();
  }
};

template <std::size_t Dim>
bench::Run training(Index cases, Index extent) {
  const auto t = std::make_shared<Training<Dim, float>>(cube<Dim>(cases, extent), widths);
  return [t] { return bench::seconds_of([&] { t->step(); }); };
}
bench::Run inference(Index extent) {
  const auto t = std::make_shared<Training<3, float>>(cube<3>(1, extent), widths);
  return [t] {
    return bench::seconds_of([&] { evaluating([&] { return value(t->net(t->image)); }); });
  };
}
/// A scan that is segmented by overlapping patches.
struct Whole {
  NetOf<3, float> net = network<3, float>(widths);
  Volume<float> scan;
  Index patch;

  Whole(const Extent3& extent, Index size) : scan(make_volume<float>(extent)), patch(size) {
    scan.voxels = bench::normal_numbers(scan.size());
  }
  std::vector<std::uint8_t> labels() {
    return segment<FeaturesOf<3, float>>(net, scan,
                                         {.patch = {patch, patch, patch}, .overlap = 0.5})
        .labels.voxels;
  }
};
bench::Run sliding_window(const Extent3& extent, Index patch) {
  const auto whole = std::make_shared<Whole>(extent, patch);
  return [whole] { return bench::seconds_of([&] { whole->labels(); }); };
}

/// The network's weights in a flat buffer, with gradients.
struct Weights : Training<3, float> {
  Weights() : Training(cube<3>(1, 8), widths) {
    group.grads.assign(bench::normal_numbers(group.grads.size()));
  }
};
template <class Optimizer>
bench::Run optimizer_step() {
  const auto t = std::make_shared<Weights>();
  return [t] { return bench::seconds_of([&] { Optimizer{}.step(t->group, t->clock); }); };
}
struct Averaged : Weights {
  Frozen<NetOf<3, float>> average;
  GroupOf<F> averages;
  Averaged() : average(network<3, float>(widths)), averages(Role::frozen, average) {
    averages.values.assign(bench::normal_numbers(averages.values.size(), 1));
  }
  void follow() { ema(average, net, 0.999); }
};
bench::Run weight_average() {
  const auto t = std::make_shared<Averaged>();
  return [t] { return bench::seconds_of([&] { t->follow(); }); };
}

/// The first steps beside the formulas in double.
std::vector<bench::Check> check_sgd() {
  Weights t;
  auto truth = std::vector<double>();
  const auto before = t.group.values.host(), g = t.group.grads.host();
  const double keep = double(Sgd{}.momentum), decay = double(Sgd{}.decay), rate = double(1e-2f);
  for (std::size_t i = 0; i < g.size(); ++i) {
    double value = double(before[i]), momentum = 0;
    for (int step = 0; step < 2; ++step) {
      const double slope = double(g[i]) + decay * value;
      momentum = keep * momentum + slope;
      value -= rate * (slope + keep * momentum);
    }
    truth.push_back(value);
  }
  for (int step = 0; step < 2; ++step) Sgd{}.step(t.group, t.clock);
  return {{"a step of Sgd", bench::relative_error(t.group.values.host(), truth), 1e-6}};
}
std::vector<bench::Check> check_adamw() {
  Weights t;
  const AdamW adam;
  const auto before = t.group.values.host(), g = t.group.grads.host();
  const double rate = double(1e-2f), decay = double(adam.decay);
  std::vector<double> truth;
  for (std::size_t i = 0; i < g.size(); ++i)  // after one step both moments are the gradient's own
    truth.push_back((1 - rate * decay) * double(before[i]) -
                    rate * double(g[i]) / (std::abs(double(g[i])) + double(adam.epsilon)));
  adam.step(t.group, t.clock);
  return {{"a step of AdamW", bench::relative_error(t.group.values.host(), truth), 1e-5}};
}
std::vector<bench::Check> check_average() {
  Averaged t;
  const auto slow = t.averages.values.host(), fast = t.group.values.host();
  std::vector<double> truth;
  for (std::size_t i = 0; i < slow.size(); ++i)
    truth.push_back(0.999 * double(slow[i]) + 0.001 * double(fast[i]));
  t.follow();
  return {{"an average of weights", bench::relative_error(t.averages.values.host(), truth), 1e-5}};
}

/// Runs `body` with plain sums, every operation written down by itself: another way to the same.
template <class Body>
auto plainly(const Body& body) {
  const ConvolutionMode before = convolution_mode();
  set_convolution_mode(ConvolutionMode::direct);
  auto made = materialized(body);
  set_convolution_mode(before);
  return made;
}
/// Networks on the shapes that are timed; small ones are compared with double, see `check`.
std::vector<bench::Check> check_inference(const std::string& name, Index extent) {
  Training<3, float> t(cube<3>(1, extent), widths);
  const auto predicted = [&] {
    return evaluating([&] { return value(t.net(t.image)); }).dense().value.host();
  };
  const auto made = predicted();
  return {{name, bench::relative_error(made, plainly(predicted)), 1e-4}};
}
std::vector<bench::Check> check_sliding_window(const std::string& name, const Extent3& extent,
                                               Index patch) {
  Whole whole(extent, patch);
  const auto labels = [&] { return whole.labels(); };
  const auto made = labels(), truth = plainly(labels);
  double wrong = 0;  // where two classes are as likely as each other
  for (std::size_t v = 0; v < made.size(); ++v) wrong += made[v] == truth[v] ? 0 : 1;
  return {{name + " (share of voxels)", wrong / double(made.size()), 1e-3}};
}
template <std::size_t Dim>
std::vector<bench::Check> check_training(const std::string& name, Index cases, Index extent) {
  std::vector<float> gradient[2];
  double loss[2];
  for (int plain = 0; plain < 2; ++plain) {
    Training<Dim, float> t(cube<Dim>(cases, extent), widths);
    const auto step = [&] { return t.step(); };
    loss[plain] = plain ? plainly(step) : step();
    gradient[plain] = t.group.grads.host();
  }
  return {{name + "'s loss", std::abs(loss[0] - loss[1]) / loss[1], 1e-5},
          {name + "'s gradient", bench::relative_error(gradient[0], gradient[1]), 0.05}};
}

/// Prediction and gradient beside the same in double, every operation written down by itself. A
/// value that rounding carries across LeakyReLU's kink changes the gradient visibly, so that is
/// compared coarsely here; bench_conv compares the convolutions' gradients closely.
template <std::size_t Dim>
void check(std::vector<bench::Check>& found) {
  const Shape<Dim> shape = cube<Dim>(2, 16);
  const std::vector<Index> narrow = {16, 32, 48};
  Training<Dim, float> fast(shape, narrow);
  Training<Dim, double> plain(shape, narrow);
  const auto dimension = std::to_string(Dim) + "-D U-Net";
  const auto predicted = [](auto& t) {
    return evaluating([&] { return value(t.net(t.image)); }).dense().value.host();
  };
  found.push_back({dimension, bench::relative_error(predicted(fast), predicted(plain)), 1e-4});
  const double made = fast.step(), truth = materialized([&] { return plain.step(); });
  found.push_back({dimension + "'s loss", std::abs(made - truth) / truth, 1e-5});
  found.push_back({dimension + "'s gradient",
                   bench::relative_error(fast.group.grads.host(), plain.group.grads.host()), 0.05});
}
/// A sliding window of one patch is the network itself.
std::vector<bench::Check> checks() {
  std::vector<bench::Check> found;
  check<2>(found), check<3>(found);
  Training<3, float> t(cube<3>(1, 16), {16, 32});
  auto scan = make_volume<float>({16, 16, 16});
  scan.voxels = bench::normal_numbers(scan.size());
  const auto labels =
      segment<FeaturesOf<3, float>>(t.net, scan, {.patch = {16, 16, 16}}).labels.voxels;
  const auto logits = evaluating([&] { return value(t.net(t.image)); }).dense().value.host();
  double wrong = 0;
  for (std::size_t v = 0; v < labels.size(); ++v) {
    const float* z = &logits[v * std::size_t(classes)];
    wrong += std::max_element(z, z + classes) - z == labels[v] ? 0 : 1;
  }
  found.push_back({"sliding window (share of voxels)", wrong / double(labels.size()), 0});
  return found;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<bench::Workload> workloads;
  for (const Index extent : {64, 96}) {
    const auto shape = "/" + std::to_string(extent);
    const double forward = flops(3, 1, extent);
    const auto infer = "BM_UNetInfer" + shape, train = "BM_UNetTrainStep" + shape;
    workloads.push_back({infer,
                         [=] { return inference(extent); },
                         forward,
                         0,
                         {},
                         [=] { return check_inference(infer, extent); }});
    workloads.push_back({train,
                         [=] { return training<3>(1, extent); },
                         3 * forward,
                         0,
                         {},
                         [=] { return check_training<3>(train, 1, extent); }});
  }
  const std::string flat = "BM_UNet2DTrain/512/b4";
  workloads.push_back({flat,
                       [] { return training<2>(4, 512); },
                       3 * flops(2, 4, 512),
                       0,
                       {},
                       [=] { return check_training<2>(flat, 4, 512); }});
  const std::string sliding = "BM_SlidingWindow/160x160x96/roi96/overlap0.5";
  const Extent3 scan = {160, 160, 96};
  workloads.push_back({sliding,
                       [=] { return sliding_window(scan, 96); },
                       9 * flops(3, 1, 96),
                       0,
                       {},
                       [=] { return check_sliding_window(sliding, scan, 96); }});
  // A step reads values and gradients, reads and writes what it remembers, and writes values.
  const double bytes = 4 * weights();
  workloads.push_back({"BM_SgdStep/unet", optimizer_step<Sgd>, 0, 5 * bytes, {}, check_sgd});
  workloads.push_back({"BM_AdamWStep/unet", optimizer_step<AdamW>, 0, 7 * bytes, {}, check_adamw});
  workloads.push_back({"BM_WeightAverage/unet", weight_average, 0, 3 * bytes, {}, check_average});
  return bench::run_program(argc, argv, checks, std::move(workloads));
}
