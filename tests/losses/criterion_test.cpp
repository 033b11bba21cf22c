// SPDX-License-Identifier: Apache-2.0
#include "reference.hpp"
#include <segmed/losses/composition.hpp>
#include <segmed/losses/criterion.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/region.hpp>

using namespace check;

namespace {

/// A user's own loss, in double only: the mean of 1 - p of the label.
struct MissedMass {
  static constexpr int sums = 2;
  void add(double* s, const ClassVoxel<double>& x) const { s[0] += x.is * (1 - x.p), s[1] += x.is; }
  double slope(const double* ds, const ClassVoxel<double>& x) const { return -ds[0] * x.is * x.p; }
  double finish(const ClassSums& all) const {
    double missed = 0, voxels = 0;
    for (Index n = 0; n < all.cases; ++n)
      for (Index c = 0; c < all.classes; ++c)
        missed += all.sums(n, c)[0], voxels += all.sums(n, c)[1];
    for (Index n = 0; n < all.cases; ++n)
      for (Index c = 0; c < all.classes; ++c) all.slopes(n, c)[0] = 1 / voxels;
    return missed / voxels;
  }
};
/// A loss that is not made of voxels.
struct MeanLogit {
  template <class F>
  Scalar<F> operator()(const F& logits, const Labels<Cpu>&) const {
    return mean(logits);
  }
};
const auto dice_and_entropy = Sum{Dice{}, CrossEntropy{}};

}  // namespace

TEST_SUITE("losses/criterion") {
  TEST_CASE("a loss of one's own needs three functions and may know double only") {
    const Batch b = Batch::random({2, 2, 3, 4, 3});
    double missed = 0, voxels = 0;
    for (Index n = 0; n < 2; ++n)
      for (Index v = 0; v < b.grid.voxels(); ++v)
        if (b.label(n, v) != ignored) missed += 1 - b.p(n, v, b.label(n, v)), voxels += 1;
    CHECK(b.value(MissedMass{}) == doctest::Approx(missed / voxels).epsilon(1e-12));
    CHECK(b.value<Single>(MissedMass{}) == doctest::Approx(missed / voxels).epsilon(1e-6));
    CHECK(b.gradient_error(MissedMass{}) < 1e-7);
    CHECK(b.gradient_error(Sum{MissedMass{}, Weighted{0.1f, Dice{}}}) < 1e-7);
    CHECK(b.value<Single>(Sum{MissedMass{}, Dice{}}) ==
          doctest::Approx(b.value(MissedMass{}) + b.value(Dice{})).epsilon(1e-6));
  }
  TEST_CASE("any other struct is called as it is") {
    const Batch b = Batch::random({1, 2, 2, 2, 3});
    double sum = 0;
    for (const double z : b.z) sum += z;
    CHECK(b.value(MeanLogit{}) == doctest::Approx(sum / double(b.z.size())));
  }
  TEST_CASE("ignored voxels take part in nothing") {
    Batch b = Batch::random({2, 3, 4, 5, 3});
    const double value = b.value(dice_and_entropy);
    const auto gradient = b.gradient(dice_and_entropy);
    for (std::size_t i = 0; i < b.z.size(); ++i)
      if (b.y[i / 3] == ignored) {
        CHECK(gradient[i] == 0);
        b.z[i] += 5;
      }
    CHECK(b.value(dice_and_entropy) == value);
    for (auto& label : b.y) label = ignored;
    CHECK(std::isfinite(b.value(dice_and_entropy)));
    for (const double slope : b.gradient(CrossEntropy{})) CHECK(slope == 0);
  }
  TEST_CASE("many classes and many voxels give the formula as well") {
    const Batch b = Batch::random({1, 2, 40, 33, 37});
    double expected = 0, voxels = 0;
    for (Index v = 0; v < b.grid.voxels(); ++v)
      if (b.label(0, v) != ignored) expected -= std::log(b.p(0, v, b.label(0, v))), voxels += 1;
    CHECK(b.value(CrossEntropy{}) == doctest::Approx(expected / voxels).epsilon(1e-12));
    CHECK(b.value<Single>(CrossEntropy{}) == doctest::Approx(expected / voxels).epsilon(1e-6));
    const Batch wide = Batch::random({1, 1, 3, 5, 255});
    CHECK(wide.gradient_error(CrossEntropy{}) < 1e-6);
  }
  TEST_CASE("blocks of several runs give the formula as well") {
    const Batch b = Batch::random({6, 5, 61, 59, 60});
    CHECK(VoxelBlocks(6, b.grid.voxels(), 60 * 2 + 1).block > voxel_run);
    double expected = 0, voxels = 0;
    for (Index n = 0; n < 6; ++n)
      for (Index v = 0; v < b.grid.voxels(); ++v)
        if (b.label(n, v) != ignored) expected -= std::log(b.p(n, v, b.label(n, v))), voxels += 1;
    CHECK(b.value(CrossEntropy{}) == doctest::Approx(expected / voxels).epsilon(1e-12));
    CHECK(b.value<Single>(CrossEntropy{}) == doctest::Approx(expected / voxels).epsilon(1e-7));
  }
  TEST_CASE("sums take little memory, whatever the number of voxels") {
    using DiceAndEntropy = decltype(dice_and_entropy);
    const auto bytes = [](Index cases, Index voxels, Index classes) {
      const Index width = classes * DiceAndEntropy::sums + 1;  // partial, whole, and their slopes
      return 8 * cases * width * (VoxelBlocks(cases, voxels, width).count + 2);
    };
    for (const Index extent : {64, 96, 128, 256, 512})
      for (const Index classes : {2, 3, 11, 14}) {
        CHECK(bytes(1, extent * extent * extent, classes) <= 64 << 10);
        CHECK(bytes(4, extent * extent * extent, classes) <= 64 << 10);
      }
    CHECK(bytes(1, Index(1) << 27, 255) <= 64 << 10);
    CHECK(VoxelBlocks(1, 128 * 128 * 128, 14 * DiceAndEntropy::sums + 1).count >= 64);
    for (const Index cases : {1, 3, 200})
      for (const Index width : {5, 57, 1021})
        for (const Index voxels : {0, 1, 2048, 2049, 100000, 3000001}) {
          const VoxelBlocks blocks(cases, voxels, width);
          CAPTURE(cases);
          CAPTURE(width);
          CAPTURE(voxels);
          CHECK(blocks.block % voxel_run == 0);
          CHECK(blocks.block * blocks.count >= voxels);
          CHECK(blocks.block * (blocks.count - 1) < voxels);
        }
  }
  TEST_CASE("the gradient is added to what is there") {
    const Batch b = Batch::random({1, 2, 3, 4, 3});
    const Solid x = Solid::leaf(b.grid, b.logits());
    const Criterion criterion{dice_and_entropy};
    backward(criterion(x, b.labels()) + 2.0f * criterion(x, b.labels()));
    const auto once = b.gradient(dice_and_entropy), thrice = x.gradient().host();
    for (std::size_t i = 0; i < once.size(); ++i)
      CHECK(thrice[i] == doctest::Approx(3 * once[i]).epsilon(1e-12));
  }
  TEST_CASE("a gradient that would fill the caches is whole, also where rows are not aligned") {
    const Batch b = Batch::random({2, 61, 67, 63, 9});
    const Single x = Single::leaf(b.grid, b.logits<Single>());
    const Criterion criterion{dice_and_entropy};
    backward(criterion(x, b.labels()) + criterion(x, b.labels()));  // written, then added to
    const auto once = b.gradient<Single>(dice_and_entropy), twice = x.gradient().host();
    REQUIRE(once.size() * sizeof(float) > std::size_t(16) << 20);
    bool same = true;
    for (std::size_t i = 0; i < once.size(); ++i) same &= twice[i] == 2 * once[i];
    CHECK(same);
    CHECK(std::count(once.begin(), once.end(), 0.0f) < std::ptrdiff_t(once.size() / 2));
  }
  TEST_CASE("any number of threads gives the same bits") {
    const Batch b = Batch::random({2, 10, 23, 31, 3});
    std::vector<float> first;
    double value = 0;
    for (const int count : {1, 2, 4}) {
      set_threads(count);
      if (count == 1) first = b.gradient<Single>(dice_and_entropy);
      if (count == 1) value = b.value<Single>(dice_and_entropy);
      CHECK(b.value<Single>(dice_and_entropy) == value);
      CHECK(b.gradient<Single>(dice_and_entropy) == first);
    }
    set_threads(2);
  }
  TEST_CASE("extreme logits give finite losses and slopes") {
    Batch b = Batch::random({2, 3, 4, 5, 3});
    for (double& z : b.z) z = z > 0 ? 1e4 : -1e4;
    const auto finite = [&](const auto& loss) {
      CHECK(std::isfinite(b.value(loss)));
      CHECK(b.value<Single>(loss) == doctest::Approx(b.value(loss)).epsilon(1e-5));
      for (const float slope : b.gradient<Single>(loss)) CHECK(std::isfinite(slope));
      for (const double slope : b.gradient(loss)) CHECK(std::isfinite(slope));
    };
    finite(dice_and_entropy);
    finite(Focal{.gamma = 0.5f});
    finite(BinaryCrossEntropy{});
    finite(Independent{Dice{}});
  }
  TEST_CASE("what does not fit is named") {
    const auto run = [](const Batch& b) { b.value(dice_and_entropy); };
    const Batch b = Batch::random({2, 2, 3, 4, 3});
    Batch partial = b, strange = b, single = b;
    partial.annotated[1] = AnnotatedSet{}.with(1);
    CHECK_THROWS_WITH_AS(run(partial),
                         "segmed: loss: class 2 was not annotated in case 1 of the batch; wrap the "
                         "loss in Marginal",
                         DataError);
    strange.y[30] = 7;
    CHECK_THROWS_WITH_AS(
        run(strange),
        "segmed: loss: label 7 in case 1 of the batch, but the logits have 3 "
        "classes; give the network that class, or mark its voxels as ignored (255)",
        DataError);
    CHECK_THROWS_WITH_AS(
        voxel_loss(Dice{}, Solid::leaf({1, 2, 3, 4, 3}, std::vector<double>(72)), b.labels()),
        "segmed: loss: logits (1, 2, 3, 4, 3) do not match labels (2, 2, 3, 4, 1)", ShapeError);
    single.grid.channels = 1, single.z.resize(48), single.y.assign(48, 0);
    CHECK_THROWS_WITH_AS(run(single),
                         "segmed: loss: logits have 1 channels; give one per class, background "
                         "included, at most 255",
                         ShapeError);
    Labels<Cpu> short_of = b.labels();
    short_of.annotated.pop_back();
    CHECK_THROWS_WITH_AS(voxel_loss(Dice{}, Solid::leaf(b.grid, b.logits()), short_of),
                         "segmed: loss: 2 cases need as many annotated sets, not 1", ShapeError);
  }
}
