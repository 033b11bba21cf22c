// SPDX-License-Identifier: Apache-2.0
// One step by hand: what a policy adds and where its gradient goes, beside plain loops over
// doubles.
#pragma once
#include <set>

#include <doctest/doctest.h>

#include <segmed/autograd/group.hpp>
#include <segmed/backend/backend.hpp>
#include <segmed/losses/composition.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/region.hpp>
#include <segmed/nn/any_network.hpp>
#include <segmed/nn/unet.hpp>
#include <segmed/semi/policy.hpp>

namespace one_step {

using namespace segmed;
using Loss = Sum<Dice, CrossEntropy>;
using F3 = Features<3, float, Cpu>;
using F2 = Features<2, float, Cpu>;
template <class F>
using Net = UNet<UNetParts<F>>;

template <class F>
Net<F> small_net(std::uint64_t seed = 1) {
  return Net<F>(
      {.classes = 3, .widths = {4, 8}, .encoder_convs = 1, .decoder_convs = 1, .seed = seed});
}
/// Random images, and labels of 3 classes that are known in full or not at all.
template <class F>
Samples<F> samples(Index cases, bool labelled, std::uint64_t seed,
                   std::array<Index, 3> extent = {8, 8, 8}) {
  const Grid grid{cases, F::dim == 3 ? extent[0] : 1, extent[1], extent[2], 1};
  const Philox random{seed, Purpose::sample};
  std::vector<float> image, strong;
  std::vector<std::uint8_t> labels;
  for (Index i = 0; i < grid.size(); ++i) {
    image.push_back(random.normal(i));
    strong.push_back(1.3f * image.back() + 0.2f);
    labels.push_back(labelled ? std::uint8_t(random.below(i, 3)) : ignored);
  }
  Samples<F> out;
  out.image = F(grid, Storage<float, Cpu>(image));
  out.strong = F(grid, Storage<float, Cpu>(strong));
  const AnnotatedSet set = labelled ? AnnotatedSet::all(3) : AnnotatedSet{};
  out.labels = labels_of<Cpu>(grid, labels, std::vector<AnnotatedSet>(std::size_t(cases), set));
  return out;
}

/// A student and a policy before their step, with warm-ups done.
template <class F, class Network, class Policy>
struct Step {
  Network& net;
  Policy& policy;
  Loss loss;
  Samples<F> full, partial;
  Clock<Cpu> clock;
  Group<float, Cpu> group;

  Step(Network& student, Policy& added, Samples<F> d1, float progress = 1)
      : net(student), policy(added), partial(std::move(d1)), group(Role::trained, net, policy) {
    full = samples<F>(2, true, 5);
    clock.set({.seed = 11, .step = 3, .progress = progress, .ramp = 1});
  }
  /// What the policy adds.
  double term() {
    clock.set(clock.host());  // the same draws each time
    SemiStep<Network, Loss> now(net, loss, full, partial, clock);
    const double value = policy.loss(now).host();
    Tape::current()->clear();
    return value;
  }
  /// Its gradient in everything that is trained.
  std::vector<float> gradient() {
    clock.set(clock.host());
    Tape::current()->clear();
    group.clear_grads();
    SemiStep<Network, Loss> now(net, loss, full, partial, clock);
    backward(policy.loss(now));
    return group.grads.host();
  }
  /// A whole step, with the term of the labels and the hook after it.
  double whole() {
    clock.set(clock.host());
    Tape::current()->clear();
    group.clear_grads();
    SemiStep<Network, Loss> now(net, loss, full, partial, clock);
    const auto total = supervised_by(policy, now) + policy.loss(now);
    backward(total);
    if constexpr (requires { policy.after_step(now); }) policy.after_step(now);
    return total.host();
  }
};
template <class Network, class Policy, class F>
Step(Network&, Policy&, Samples<F>) -> Step<F, Network, Policy>;
template <class Network, class Policy, class F>
Step(Network&, Policy&, Samples<F>, float) -> Step<F, Network, Policy>;

template <class F>
std::vector<double> numbers(const F& x) {
  const auto single = no_grad([&] { return value(x); }).dense().value.host();
  return {single.begin(), single.end()};
}
/// The softmax of a network's answer, by doubles.
template <class Network, class F>
std::vector<double> probabilities(const Network& net, const F& image) {
  const F logits = no_grad([&] { return value(net(image)); });
  auto p = numbers(logits);
  const auto classes = std::size_t(logits.grid().channels);
  for (std::size_t at = 0; at < p.size(); at += classes) {
    double total = 0;
    for (std::size_t c = 0; c < classes; ++c) total += p[at + c] = std::exp(p[at + c]);
    for (std::size_t c = 0; c < classes; ++c) p[at + c] /= total;
  }
  return p;
}
inline double mean_square_of(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) total += (a[i] - b[i]) * (a[i] - b[i]);
  return total / double(a.size());
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

/// One step in two dimensions, of a network behind one type, and one without D_1.
template <class Make>
void check_flat_and_erased(Make make) {
  using Erased = AnyNetwork<F2>;
  Erased net(small_net<F2>());
  auto policy = make(net);
  Step step(net, policy, samples<F2>(2, false, 8));
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
    auto net = small_net<F3>();
    auto policy = make(net);
    Step step(net, policy, samples<F3>(2, false, 4, {16, 16, 16}));
    results.insert(step.gradient());
  }
  set_threads(before);
  CHECK(results.size() == 1);
}

}  // namespace one_step
