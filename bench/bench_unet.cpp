// SPDX-License-Identifier: Apache-2.0
// Whole networks: 1 -> 32-64-128-256 -> 3 classes, two convolutions a stage, strided down,
// transposed up, InstanceNorm, LeakyReLU; Dice + cross-entropy and SGD with Nesterov's momentum.
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
bench::Run sliding_window(const Extent3& extent, Index patch) {
  const auto net = std::make_shared<NetOf<3, float>>(network<3, float>(widths));
  const auto scan = std::make_shared<Volume<float>>(make_volume<float>(extent));
  scan->voxels = bench::normal_numbers(scan->size());
  return [net, scan, patch] {
    return bench::seconds_of([&] {
      segment<FeaturesOf<3, float>>(*net, *scan, {.patch = {patch, patch, patch}, .overlap = 0.5});
    });
  };
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
    workloads.push_back({"BM_UNetInfer" + shape, [=] { return inference(extent); }, forward, 0});
    workloads.push_back(
        {"BM_UNetTrainStep" + shape, [=] { return training<3>(1, extent); }, 3 * forward, 0});
  }
  workloads.push_back(
      {"BM_UNet2DTrain/512/b4", [] { return training<2>(4, 512); }, 3 * flops(2, 4, 512), 0});
  workloads.push_back({"BM_SlidingWindow/160x160x96/roi96/overlap0.5",
                       [] {
                         return sliding_window({160, 160, 96}, 96);
                       },
                       9 * flops(3, 1, 96), 0});
  return bench::run_program(argc, argv, checks, std::move(workloads));
}
