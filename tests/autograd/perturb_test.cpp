// SPDX-License-Identifier: Apache-2.0
#include "check.hpp"
#include <segmed/autograd/perturb.hpp>

TEST_SUITE_BEGIN("autograd/perturb");
using namespace check;

namespace {

const Grid solid{2, 3, 4, 5, 3}, flat{2, 1, 60, 70, 2};
template <class F>
Op<F> noise() {
  return [](const auto& x, const auto&) { return feature_noise(x[0], 0.3f); };
}
template <class F>
Op<F> attended() {
  return [](const auto& x, const auto&) { return attention_dropout(x[0], 0.7f, 0.9f); };
}

}  // namespace

TEST_CASE("the gradients are those of central differences") {
  CHECK(worst_gradient<Map3>({solid}, {}, noise<Map3>()) < 1e-7);
  CHECK(worst_gradient<Map2>({{2, 1, 5, 4, 3}}, {}, noise<Map2>()) < 1e-7);
  CHECK(worst_gradient<Map3>({solid}, {}, attended<Map3>()) < 1e-7);
  CHECK(worst_gradient<Map2>({{2, 1, 5, 4, 3}}, {}, attended<Map2>()) < 1e-7);
}

TEST_CASE("the number of threads and of views changes no bit") {
  CHECK(same_for_threads<Single2>({flat}, {}, noise<Single2>()));
  CHECK(same_for_threads<Single2>({flat}, {}, attended<Single2>()));
  CHECK(same_materialized<Single3>({solid}, {}, attended<Single3>()));
}

TEST_CASE("noise takes at most its range off every element") {
  Draws::current() = {3, 1, 0};
  const Single2 x = random_map<Single2>(flat, 1);
  const auto before = x.dense().value.host(), after = feature_noise(x, 0.3f).dense().value.host();
  double sum = 0, worst = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const double part = double(after[i]) / double(before[i]) - 1;
    sum += part, worst = std::max(worst, std::abs(part));
  }
  CHECK(worst < 0.3001);
  CHECK(worst > 0.29);
  CHECK(std::abs(sum / double(before.size())) < 0.01);
}

TEST_CASE("attention dropout takes the voxels that stand out in their own case, and only those") {
  Draws::current() = {3, 1, 0};
  const Single2 x = random_map<Single2>(flat, 1);
  const Philox random{3, Purpose::dropout, 0, 1};
  const auto before = x.dense().value.host(),
             after = attention_dropout(x, 0.7f, 0.9f).dense().value.host();
  Index taken = 0;
  for (Index n = 0; n < 2; ++n) {
    double top = -1;
    const auto attention = [&](Index v) {
      const std::size_t i = std::size_t(2 * (n * flat.voxels() + v));
      return (double(before[i]) + double(before[i + 1])) / 2;
    };
    for (Index v = 0; v < flat.voxels(); ++v) top = std::max(top, attention(v));
    const double threshold = top * double(random.uniform(n, 0.7f, 0.9f));
    Index different = 0;
    for (Index v = 0; v < flat.voxels(); ++v)
      for (Index c = 0; c < 2; ++c) {
        const std::size_t i = std::size_t(2 * (n * flat.voxels() + v) + c);
        const bool keep = attention(v) < threshold;
        different += after[i] != (keep ? before[i] : 0.0f);
        taken += !keep;
      }
    CHECK(different == 0);
  }
  CHECK(taken > 0);
  CHECK_THROWS_WITH_AS(attention_dropout(x, 0.9f, 0.7f),
                       "segmed: attention_dropout: factors from 0.9 to 0.7", ConfigError);
}

TEST_SUITE_END();
