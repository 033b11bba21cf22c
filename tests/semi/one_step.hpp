// SPDX-License-Identifier: Apache-2.0
// One step of a policy on made-up patches: what it adds and where its gradient goes, beside plain
// loops over doubles.
#pragma once
#include <map>
#include <set>

#include "policy_trial.hpp"
#include <segmed/nn/any_network.hpp>
#include <segmed/semi/step.hpp>

namespace trial {

using F2 = Features<2, float, Cpu>;
using Net2 = UNet<UNetParts<F2>>;
using Doubles = std::vector<double>;

inline Net2 small_net_2d(std::uint64_t seed = 1) {
  return Net2(
      {.classes = 3, .widths = {4, 8}, .encoder_convs = 1, .decoder_convs = 1, .seed = seed});
}

// ---- samples

inline AnnotatedSet everything() { return AnnotatedSet::all(3); }

/// Patches of noise with a bright box per class, and other noise as the strong view; `annotated`
/// per case, and none: unlabelled. The extent is depth, height, width; in 2-D the depth is 1.
template <class Map>
Samples<Map> made_up(const std::vector<AnnotatedSet>& annotated, std::uint64_t seed,
                     const std::array<Index, 3>& extent = {16, 16, 16}) {
  const auto [depth, height, width] = extent;
  const Grid grid{Index(annotated.size()), Map::dim == 3 ? depth : 1, height, width, 1};
  const Philox random{seed, Purpose::sample}, other{seed, Purpose::sample, 1};
  std::vector<float> image, strong;
  std::vector<std::uint8_t> labels;
  for (Index i = 0; i < grid.rows(); ++i) {
    const Index x = i % width, y = i / width % height, n = i / grid.voxels();
    const auto& set = annotated[std::size_t(n)];
    const bool first = x > 1 && x < width / 2 && y > 2 && y < height - 2;
    const bool second = x > width / 2 && x < width - 2 && y > 1 && y < height / 2;
    const std::uint8_t label = first ? 1 : second ? 2 : 0;
    image.push_back(0.5f * random.normal(i) + 0.4f * float(label));
    strong.push_back(other.normal(i));
    labels.push_back(set.none() ? ignored : set.has(label) ? label : std::uint8_t(0));
  }
  Samples<Map> samples;
  samples.image = Map(grid, Storage<float, Cpu>(image));
  samples.strong = Map(grid, Storage<float, Cpu>(strong));
  samples.labels = labels_of<Cpu>(grid, labels, annotated);
  samples.cases.assign(annotated.size(), "case");
  return samples;
}
/// Small ones without labels.
template <class Map>
Samples<Map> unlabelled(Index cases, const std::array<Index, 3>& extent = {8, 8, 8}) {
  return made_up<Map>(std::vector<AnnotatedSet>(std::size_t(cases)), 4, extent);
}

// ---- one step

/// A step in the middle of a run and of its warm-ups, which halves what ramps: two cases of D_0; of
/// D_1 one unlabelled case and one with class 1.
template <class Map = F, class L = Loss>
struct OneStep {
  Samples<Map> full = made_up<Map>({everything(), everything()}, 1);
  Samples<Map> partial = made_up<Map>({AnnotatedSet{}, AnnotatedSet{}.with(1)}, 2);
  Clock<Cpu> clock{3};
  L loss = {};

  OneStep() { clock.set({.seed = 3, .step = 5, .progress = 0.5f, .ramp = 0.5f}); }
  /// What the last try left is gone, and random ops draw the same numbers again.
  void again() {
    Tape::current()->clear();
    clock.set(clock.host());
  }
  /// Every call repeats the same step, draws included.
  template <class N>
  SemiStep<N, L> now(N& net) {
    again();
    return {net, loss, full, partial, clock};
  }
  /// The same with another loss.
  template <class N, class Other>
  SemiStep<N, Other> now(N& net, const Other& other) {
    again();
    return {net, other, full, partial, clock};
  }
};

/// Such a step of one student with one policy.
template <class N, class Policy>
struct PolicyStep : OneStep<typename N::Features> {
  using Map = typename N::Features;
  N& net;
  Policy& policy;
  Group<float, Cpu> group;

  PolicyStep(N& student, Policy& added)
      : net(student), policy(added), group(Role::trained, net, policy) {}
  PolicyStep(N& student, Policy& added, Samples<Map> d1) : PolicyStep(student, added) {
    this->partial = std::move(d1);
  }
  /// What the policy adds.
  double term() {
    auto now = this->now(net);
    const double value = policy.loss(now).host();
    Tape::current()->clear();
    return value;
  }
  /// Its gradient in everything that is trained.
  std::vector<float> gradient() {
    auto now = this->now(net);
    group.clear_grads();
    backward(policy.loss(now));
    return group.grads.host();
  }
  /// The same by path: "0." the network's, "1." the policy's.
  std::map<std::string, std::vector<float>> gradients() {
    gradient();
    std::map<std::string, std::vector<float>> all;
    for (const auto& p : group.params()) all[p->name] = p->grad.host();
    return all;
  }
  /// A whole step but for the weights: with the term of the labels and the hook after it.
  double whole() {
    auto now = this->now(net);
    group.clear_grads();
    const auto total = supervised_by(policy, now) + policy.loss(now);
    backward(total);
    if constexpr (requires { policy.after_step(now); }) policy.after_step(now);
    return total.host();
  }
};

/// One step in two dimensions, of a network behind one type, and one without D_1.
template <class Make>
void check_flat_and_erased(Make make) {
  AnyNetwork<F2> net(small_net_2d());
  auto policy = make(net);
  PolicyStep step(net, policy, unlabelled<F2>(2));
  CHECK(std::isfinite(step.whole()));
  CHECK(std::isfinite(step.term()));
  step.partial = {};
  CHECK(step.term() == 0);
}
/// The number of threads changes no bit of a policy's gradient.
template <class Make>
void check_threads(Make make) {
  const int before = threads();
  std::set<std::vector<float>> results;
  for (const int count : {1, 2, 4}) {
    set_threads(count);
    Net net = small_net();
    auto policy = make(net);
    PolicyStep step(net, policy, unlabelled<F>(2, {16, 16, 16}));
    results.insert(step.gradient());
  }
  set_threads(before);
  CHECK(results.size() == 1);
}

// ---- references, by doubles on the host

template <class Map>
Doubles host(const Map& x) {
  const auto values = no_grad([&] { return value(x).dense().value.host(); });
  return Doubles(values.begin(), values.end());
}
template <class Map>
Map map_of(const Grid& grid, const Doubles& values) {
  return Map(grid, Storage<float, Cpu>(std::vector<float>(values.begin(), values.end())));
}
/// Probabilities over the last axis, of logits times a factor.
inline Doubles softmax_of(const Doubles& z, std::size_t classes, double factor = 1) {
  Doubles p(z.size());
  for (std::size_t row = 0; row < z.size(); row += classes) {
    double sum = 0;
    const double top = *std::max_element(z.begin() + long(row), z.begin() + long(row + classes));
    for (std::size_t c = row; c < row + classes; ++c) sum += p[c] = std::exp(factor * (z[c] - top));
    for (std::size_t c = row; c < row + classes; ++c) p[c] /= sum;
  }
  return p;
}
/// What a network of three classes says.
template <class N, class Map>
Doubles probabilities(const N& net, const Map& image) {
  return softmax_of(host(no_grad([&] { return net(image); })), 3);
}
inline double mean_square_of(const Doubles& a, const Doubles& b) {
  REQUIRE(a.size() == b.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum / double(a.size());
}
/// The class of each voxel by the rules of completion.
inline std::vector<std::uint8_t> completed(const Labels<Cpu>& drawn, const Doubles& logits,
                                           double confidence = 0) {
  const std::size_t classes = logits.size() / std::size_t(drawn.grid.rows());
  auto labels = drawn.classes.host();
  for (std::size_t v = 0; v < labels.size(); ++v) {
    const auto& set = drawn.annotated[v / std::size_t(drawn.grid.voxels())];
    if (!set.none() && labels[v] != 0) continue;
    const double* z = &logits[v * classes];
    double best = 0, total = 0;
    for (std::size_t c = 0; c < classes; ++c) {
      if (c > 0 && set.has(Index(c))) continue;
      const double odds = std::exp(z[c]);
      total += odds;
      if (odds > best) best = odds, labels[v] = std::uint8_t(c);
    }
    if (best / total < confidence) labels[v] = ignored;
  }
  return labels;
}
inline double cross_entropy(const Doubles& p, const std::vector<std::uint8_t>& labels,
                            std::size_t classes) {
  double total = 0, voxels = 0;
  for (std::size_t v = 0; v < labels.size(); ++v)
    if (labels[v] != ignored) total -= std::log(p[v * classes + labels[v]]), ++voxels;
  return voxels > 0 ? total / voxels : 0;
}
/// The mean over cases and foreground classes.
inline double dice(const Doubles& p, const std::vector<std::uint8_t>& labels, std::size_t classes,
                   std::size_t cases) {
  double value = 0;
  const std::size_t voxels = labels.size() / cases;
  for (std::size_t n = 0; n < cases; ++n)
    for (std::size_t c = 1; c < classes; ++c) {
      double both = 0, sizes = 0;
      for (std::size_t v = n * voxels; v < (n + 1) * voxels; ++v) {
        if (labels[v] == ignored) continue;
        both += labels[v] == c ? p[v * classes + c] : 0;
        sizes += p[v * classes + c] + (labels[v] == c ? 1 : 0);
      }
      value += 1 - (2 * both + 1e-5) / (sizes + 1e-5);
    }
  return value / double(cases * (classes - 1));
}

// ---- gradients

inline double size_of(const std::vector<float>& gradient) {
  double sum = 0;
  for (const float g : gradient) sum += std::abs(double(g));
  return sum;
}
/// The largest distance between two gradients, relative to the largest number in the second.
inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0, scale = 1e-30;
  for (std::size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, double(std::abs(a[i] - b[i])));
    scale = std::max(scale, double(std::abs(b[i])));
  }
  return worst / scale;
}

}  // namespace trial
