// SPDX-License-Identifier: Apache-2.0
#include "reference.hpp"
#include <segmed/losses/composition.hpp>
#include <segmed/losses/deep_supervision.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/region.hpp>

using namespace check;

TEST_SUITE("losses/deep_supervision") {
  TEST_CASE("the weights halve and add up to one") {
    const auto all = DeepSupervision{CrossEntropy{}}.weights_of(3);
    CHECK(all == std::vector<float>{float(4 / 7.0), float(2 / 7.0), float(1 / 7.0)});
    const auto fewer = DeepSupervision{CrossEntropy{}, true}.weights_of(3);
    CHECK(fewer == std::vector<float>{float(2 / 3.0), float(1 / 3.0)});
    CHECK(DeepSupervision{CrossEntropy{}, true}.weights_of(1) == std::vector<float>{1});
  }
  TEST_CASE("each output is compared with labels on its grid") {
    const auto loss = Sum{Dice{}, CrossEntropy{}};
    const Batch fine = Batch::random({2, 4, 6, 5, 3}), coarse = Batch::random({2, 2, 3, 3, 3});
    const Solid a = Solid::leaf(fine.grid, fine.logits()),
                b = Solid::leaf(coarse.grid, coarse.logits());
    const Criterion criterion{DeepSupervision{loss}};
    const auto thin = subsampled(fine.labels(), coarse.grid);
    const double expected = 2 / 3.0 * voxel_loss(loss, a, fine.labels()).host() +
                            1 / 3.0 * voxel_loss(loss, b, thin).host();
    const auto total = criterion(std::vector<Solid>{a, b}, fine.labels());
    CHECK(total.host() == doctest::Approx(expected).epsilon(1e-7));
    backward(total);
    CHECK(!a.gradient().empty());
    CHECK(!b.gradient().empty());
    CHECK(criterion(a, fine.labels()).host() == voxel_loss(loss, a, fine.labels()).host());
    Tape::current()->clear();
  }
  TEST_CASE("no output and a finer one are refused") {
    const Batch b = Batch::random({1, 2, 2, 2, 3});
    const Criterion criterion{DeepSupervision{CrossEntropy{}}};
    CHECK_THROWS_WITH_AS(criterion(std::vector<Solid>{}, b.labels()),
                         "segmed: deep supervision: the network returned no output", ShapeError);
    const Solid finer({1, 4, 4, 4, 3}, false);
    CHECK_THROWS_WITH_AS(criterion(std::vector<Solid>{finer}, b.labels()),
                         "segmed: subsampled: labels (1, 2, 2, 2, 1) cannot be thinned out to "
                         "(1, 4, 4, 4, 1)",
                         ShapeError);
  }
}
