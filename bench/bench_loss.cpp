// SPDX-License-Identifier: Apache-2.0
// Dice + cross-entropy from logits and integer labels, with the meaning of MONAI's DiceCELoss.
#include "workload.hpp"
#include <segmed/autograd/module.hpp>
#include <segmed/losses/composition.hpp>
#include <segmed/losses/criterion.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/region.hpp>

namespace {
using namespace segmed;
using F = Features<3, float, Cpu>;

const Criterion criterion{Sum{Dice::monai(), CrossEntropy{}}};

struct Sample {
  F logits;
  Labels<Cpu> labels;

  Sample(Index classes, Index extent) {
    const Grid grid{1, extent, extent, extent, classes};
    logits = F::leaf(grid, bench::normal_numbers(grid.size()));
    labels = labels_of<Cpu>(grid, bench::random_labels(grid.voxels(), classes), classes);
  }
};

// The same in double, class by class and voxel by voxel.
std::vector<bench::Check> check(Index classes, Index extent) {
  Sample s(classes, extent);
  const auto loss = criterion(s.logits, s.labels);
  backward(loss);
  const auto gradient = s.logits.gradient().host(), z = s.logits.dense().value.host();
  const auto label = s.labels.classes.host();
  const std::size_t n = label.size(), k = std::size_t(classes);
  std::vector<double> p(k), overlap(k), size(k);
  const auto soften = [&](std::size_t v) {
    double total = 0;
    for (std::size_t c = 0; c < k; ++c) total += p[c] = std::exp(double(z[v * k + c]));
    for (std::size_t c = 0; c < k; ++c) p[c] /= total;
  };
  double truth = 0;
  for (std::size_t v = 0; v < n; ++v) {
    soften(v);
    for (std::size_t c = 0; c < k; ++c) {
      size[c] += p[c] + (label[v] == c ? 1 : 0);
      if (label[v] == c) overlap[c] += p[c];
    }
    truth -= std::log(p[label[v]]) / double(n);
  }
  const double smooth = double(1e-5f);
  for (std::size_t c = 0; c < k; ++c)
    truth += (1 - (2 * overlap[c] + smooth) / (size[c] + smooth)) / double(k);
  double off = 0, all = 0;  // of the gradient
  for (std::size_t v = 0; v < n; ++v) {
    soften(v);
    double mean = 0;
    std::vector<double> of_p(k);
    for (std::size_t c = 0; c < k; ++c) {
      const double bottom = size[c] + smooth;
      of_p[c] =
          -((label[v] == c ? 2 : 0) / bottom - (2 * overlap[c] + smooth) / (bottom * bottom)) /
          double(k);
      mean += of_p[c] * p[c];
    }
    for (std::size_t c = 0; c < k; ++c) {
      const double slope = p[c] * (of_p[c] - mean) + (p[c] - (label[v] == c ? 1 : 0)) / double(n);
      const double difference = double(gradient[v * k + c]) - slope;
      off += difference * difference, all += slope * slope;
    }
  }
  return {{"Dice + cross-entropy", std::abs(loss.host() - truth) / truth, 1e-6},
          {"its gradient", std::sqrt(off / all), 1e-5}};
}
std::vector<bench::Check> checks() { return check(5, 9); }

bench::Run forward(Index classes, Index extent) {
  const auto s = std::make_shared<Sample>(classes, extent);
  return [s] {
    return bench::seconds_of([&] { no_grad([&] { return criterion(s->logits, s->labels); }); });
  };
}
bench::Run forward_backward(Index classes, Index extent) {
  const auto s = std::make_shared<Sample>(classes, extent);
  return [s] {
    s->logits.dense().grad->sum = {};
    return bench::seconds_of([&] { backward(criterion(s->logits, s->labels)); });
  };
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<bench::Workload> workloads;
  for (const auto& [classes, extent] : {std::pair<Index, Index>{3, 96}, {11, 96}, {14, 128}}) {
    const auto shape = "/" + std::to_string(classes) + "/" + std::to_string(extent);
    const double voxels = std::pow(double(extent), 3), logits = 4 * voxels * double(classes);
    const Index c = classes, e = extent;
    workloads.push_back({"BM_DiceCeFwd" + shape,
                         [=] { return forward(c, e); },
                         0,
                         logits + voxels,
                         {},
                         [=] { return check(c, e); }});
    workloads.push_back({"BM_DiceCeFwdBwd" + shape,
                         [=] { return forward_backward(c, e); },
                         0,
                         3 * logits + 2 * voxels,
                         {},
                         [=] { return check(c, e); }});
  }
  return bench::run_program(argc, argv, checks, std::move(workloads));
}
