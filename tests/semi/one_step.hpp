// SPDX-License-Identifier: Apache-2.0
// One step on random images, so that a policy's term can be compared with its formula.
#pragma once
#include <map>

#include "policy_trial.hpp"
#include <segmed/nn/any_network.hpp>
#include <segmed/semi/step.hpp>

namespace trial {

using Flat = Features<2, float, Cpu>;
using Doubles = std::vector<double>;

/// Random patches of two cases, with labels in which only `annotated` is known.
template <class Map>
Samples<Map> random_samples(std::uint64_t seed, AnnotatedSet annotated, bool strong = false,
                            Index extent = 16) {
  const Grid grid{2, Map::dim == 3 ? extent : 1, extent, extent, 1};
  std::vector<float> image, other;
  std::vector<std::uint8_t> labels;
  for (Index i = 0; i < grid.size(); ++i) {
    image.push_back(Philox{seed, Purpose::sample}.normal(i));
    other.push_back(Philox{seed, Purpose::sample, 1}.normal(i));
    const auto drawn = std::uint8_t(Philox{seed, Purpose::sample, 2}.below(i, 3));
    labels.push_back(annotated.none() ? ignored : annotated.has(drawn) ? drawn : std::uint8_t(0));
  }
  Samples<Map> samples;
  samples.image = Map(grid, Storage<float, Cpu>(image));
  if (strong) samples.strong = Map(grid, Storage<float, Cpu>(other));
  samples.labels = labels_of<Cpu>(grid, labels, {annotated, annotated});
  samples.cases = {"one", "two"};
  return samples;
}

/// A step in the middle of a run, where every warm-up is over: a weight is what it says.
template <class Map>
struct OneStep {
  Samples<Map> full, partial;
  Clock<Cpu> clock{5};
  explicit OneStep(bool strong = false, AnnotatedSet of_partial = {}, Index extent = 16)
      : full(random_samples<Map>(1, AnnotatedSet::all(3), false, extent)),
        partial(random_samples<Map>(2, of_partial, strong, extent)) {
    again();
  }
  /// Random ops draw the same numbers again.
  void again() { clock.set({5, 7, 0.5f, 1.0f, 1e-3f}); }
  template <class Any, class L>
  SemiStep<Any, L> now(Any& net, const L& loss) {
    again();
    return {net, loss, full, partial, clock};
  }
};

template <class Map>
Doubles host(const Map& x) {
  const auto values = no_grad([&] { return value(x).dense().value.host(); });
  return Doubles(values.begin(), values.end());
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
inline double mean_square_of(const Doubles& a, const Doubles& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum / double(a.size());
}

/// The gradients that a policy's term alone gives, by path: "0." the network's, "1." the policy's.
template <class Any, class Policy>
std::map<std::string, std::vector<float>> gradients_of(Any& net, Policy& policy,
                                                       OneStep<typename Any::Features>& step) {
  const Loss loss{};
  Tape::current()->clear();
  std::vector<int> none;
  auto group = [&] {
    if constexpr (Module<Policy>)
      return std::make_unique<Group<float, Cpu>>(Role::trained, net, policy);
    else
      return std::make_unique<Group<float, Cpu>>(Role::trained, net, none);
  }();
  group->clear_grads();
  auto now = step.now(net, loss);
  backward(policy.loss(now));
  std::map<std::string, std::vector<float>> all;
  for (const auto& p : group->params()) all[p->name] = p->grad.host();
  return all;
}
inline double size_of(const std::vector<float>& gradient) {
  double sum = 0;
  for (const float g : gradient) sum += std::abs(double(g));
  return sum;
}

}  // namespace trial
