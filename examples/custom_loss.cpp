// SPDX-License-Identifier: Apache-2.0
// A loss of one's own: sums per class, a finish over them, and the slope of what a voxel adds.
#include <cstdio>

#include <segmed/segmed.hpp>
using namespace segmed;
using F = Features<3, double, Cpu>;

// [user]
struct SoftJaccard {  // one minus overlap over union, the mean over foreground classes of all cases
  static constexpr int sums = 2;  // overlap; both sizes
  template <class W>
  SEGMED_HD void add(W* s, const ClassVoxel<W>& x) const {
    s[0] += x.is * x.p;
    s[1] += x.is + x.p;
  }
  template <class W>
  SEGMED_HD W slope(const W* ds, const ClassVoxel<W>& x) const {  // in log p
    return x.p * (x.is * ds[0] + ds[1]);
  }
  SEGMED_HD double finish(const ClassSums& all) const {
    const double share = 1.0 / double(all.cases * (all.classes - 1));
    double value = 1;
    for (Index n = 0; n < all.cases; ++n)
      for (Index c = 1; c < all.classes; ++c) {
        const double overlap = all.sums(n, c)[0], size = all.sums(n, c)[1] - overlap + 1e-5;
        value -= share * overlap / size;
        all.slopes(n, c)[0] = -share * (size + overlap) / (size * size);
        all.slopes(n, c)[1] = share * overlap / (size * size);
      }
    return value;
  }
};
// [user]

int main() {
  const Grid grid{2, 2, 3, 2, 3};
  std::vector<double> at;
  std::vector<std::uint8_t> truth;
  for (int i = 0; i < 72; ++i) at.push_back(0.1 * ((7 * i) % 23) - 1);
  for (int i = 0; i < 24; ++i) truth.push_back(std::uint8_t(i % 3));
  const auto labels = labels_of<Cpu>(grid, truth, 3);
  const Criterion criterion{Sum{SoftJaccard{}, Weighted{0.5f, CrossEntropy{}}}};
  const double error =
      gradient_error<F>(grid, at, [&](const F& logits) { return criterion(logits, labels); });
  std::printf("gradient error %.1e\n", error);
  return error < 1e-5 ? 0 : 1;
}
