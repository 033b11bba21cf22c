// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/spatial.hpp>
#include <segmed/backend/communicator.hpp>
#include <segmed/semi/mean_teacher.hpp>

namespace segmed {

template <class T>
struct MixKernel {
  const T *a, *b;
  const float* share;  // of b, per case
  Index cases, voxels, channels, shift;
  T* y;
  SEGMED_HD void operator()(Index row, Index c) const {
    using W = Wide<T>;
    const Index n = row / voxels, other = (n + shift) % cases * voxels + row % voxels;
    const W s = W(share[n]);
    y[row * channels + c] =
        T((W(1) - s) * W(a[row * channels + c]) + s * W(b[other * channels + c]));
  }
};
/// Case n of `a` and case n + shift (from the first again after the last) of `b`, mixed by a share
/// of `b` per case. A constant.
template <FeatureMap F>
F mixed(const F& first, const F& second, const Storage<float, typename F::device>& share,
        Index shift) {
  using T = typename F::value_type;
  const F a = detach(first), b = detach(second);
  const Grid grid = a.grid();
  require(grid == b.grid() && share.size() == grid.cases, "mixed", "shapes differ: ", grid, ", ",
          b.grid(), " and ", share.size(), " shares");
  F y(grid, false);
  F::device::launch_rows(grid.rows(), grid.channels,
                         MixKernel<T>{a.data(), b.data(), share.read(), grid.cases, grid.voxels(),
                                      grid.channels, shift, y.mutable_data()});
  return y;
}

/// The next case of each, within the batch of all ranks, from the first again after the last. A
/// constant.
template <FeatureMap F>
F next_cases(const F& x) {
  using T = typename F::value_type;
  const F mine = detach(x);
  const Grid grid = mine.grid();
  const std::vector<T> own = mine.dense().value.host();
  const auto one = std::ptrdiff_t(grid.voxels() * grid.channels);
  const Ranks& ranks = Ranks::current();
  const auto firsts = ranks.gathered(std::vector<T>(own.begin(), own.begin() + one));
  std::vector<T> next(own.begin() + one, own.end());
  const auto from = firsts.begin() + (ranks.rank() + 1) % ranks.size() * one;
  next.insert(next.end(), from, from + one);
  return F(grid, Storage<T, typename F::device>(next));
}

/// Of a mix of two images of D_1, the student says the mix of what a slow average of itself says of
/// each. Uses D_1's partial labels by the usual term of the labels alone.
///
///   source   Verma et al., 2019, arXiv:1903.03825, section 2; each image is mixed with the next of
///            the batch (SSL4MIS: one half of the batch with the other) by a share of its own, an
///            only one with its mirror image along the last axis, which the teacher sees as well.
///            Ranks hand on an image and its answer each, so that they mix what one process does
template <Network Net>
struct InterpolationConsistency {
  Frozen<Net> teacher;
  float keep = 0.99f;   // of the teacher, per step
  float weight = 0.1f;  // of the consistency term after its warm-up
  float shape = 0.2f;   // of the Beta distribution of shares; small: one image outweighs the other

  template <class Now>
  typename Now::Value loss(Now& now) {
    using F = typename Now::F;
    require<ConfigError>(shape > 0 && shape <= 10, "InterpolationConsistency",
                         "a Beta distribution of shape ", shape, "; give more than 0, up to 10");
    if (now.partial.empty()) return {};
    const F& image = now.partial.image;
    const Philox random = Draws::next(Purpose::view, image.grid().cases);
    std::vector<float> drawn;
    for (Index n = 0; n < image.grid().cases; ++n) drawn.push_back(random.beta(n, shape));
    const Storage<float, typename F::device> share(drawn);
    const auto answer = [&](const F& x) { return no_grad([&] { return softmax(teacher(x)); }); };
    const bool shared = !Ranks::current().alone(), only = !shared && image.grid().cases == 1;
    const F said = answer(image);
    const F other = shared ? next_cases(image) : only ? flip(image, F::dim - 1) : image;
    const F other_said = shared ? next_cases(said) : only ? answer(other) : said;
    const Index shift = shared ? 0 : 1;
    const F target = mixed(said, other_said, share, shift);
    const F mine = softmax(now.student(mixed(image, other, share, shift)));
    return now.clock.ramp(weight) * mean_square(mine, target);
  }
  void after_step(auto& now) { follow(teacher, keep, now); }
  const Net& predictor(const Net&) const { return teacher.module; }
  static void options(auto& self, auto&& visit) {
    visit("keep", self.keep, between(0, 1));
    visit("weight", self.weight, at_least(0));
    visit("shape", self.shape, OptionRange{.least = 0, .most = 10, .above = true});
  }
  static void members(auto& self, auto&& visit) { visit("teacher", self.teacher); }
};

}  // namespace segmed
