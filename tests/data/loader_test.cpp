// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/data/loader.hpp>

using namespace segmed;

namespace {
const ClassTable classes = ClassTable::of({"a"});

Example numbered(Index i) {
  Example example{"case" + std::to_string(i), "p", make_volume<float>({12, 12, 12}),
                  make_volume<std::uint8_t>({12, 12, 12}), classes.all()};
  for (std::size_t v = 0; v < example.image.voxels.size(); ++v)
    example.image.voxels[v] = Philox{std::uint64_t(i)}.normal(Index(v));
  example.labels.at(i % 12, 5, 5) = 1;
  return example;
}
std::shared_ptr<CaseStore> store(std::set<Index> broken = {}, Index budget = 1 << 30,
                                 std::atomic<Index>* loads = nullptr) {
  return std::make_shared<CaseStore>(
      [broken, loads](Index i) {
        if (loads) ++*loads;
        require<FileError>(broken.count(i) == 0, "nifti", "case", i, ".nii.gz: is truncated");
        return ReadyCase(numbered(i));
      },
      budget);
}
std::vector<LoaderCase> first(Index n, Index from = 0) {
  std::vector<LoaderCase> cases;
  for (Index i = from; i < from + n; ++i) cases.push_back({i, classes.all()});
  return cases;
}
LoaderOptions options(int workers = 0) {
  LoaderOptions made;
  made.sample.patch = {8, 8, 8};
  made.sample.augment.elastic_chance = made.sample.augment.weak.blur_chance = 0.5f;
  made.sample.augment.weak.low_resolution_chance = 0.5f;
  made.workers = workers;
  return made;
}
bool same(const Batch& a, const Batch& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Patch& p, const Patch& q) {
    return p.id == q.id && p.image == q.image && p.labels == q.labels && p.annotated == q.annotated;
  });
}
}  // namespace

TEST_SUITE("data/loader") {
  TEST_CASE("batches are the same for any number of workers and any order of steps") {
    Loader alone(store(), classes, first(7), options());
    std::vector<Batch> expected;
    for (Index step = 0; step < 12; ++step) expected.push_back(alone.batch(step));
    for (const int workers : {1, 3}) {
      Loader many(store(), classes, first(7), options(workers));
      for (Index step = 0; step < 12; ++step)
        CHECK(same(many.batch(step), expected[std::size_t(step)]));
      for (const Index step : {5, 2, 11, 3, 3})
        CHECK(same(many.batch(step), expected[std::size_t(step)]));
    }
  }
  TEST_CASE("the shares of a batch, one after the other, are the batch") {
    auto how = options();
    how.batch = 6;
    Loader whole(store(), classes, first(5), how);
    for (const Index shares : {2, 3})
      for (const Index step : {0, 4}) {
        Batch all;
        for (Index share = 0; share < shares; ++share) {
          how.share = share, how.shares = shares;
          const Batch own = Loader(store(), classes, first(5), how).batch(step);
          CHECK(Index(own.size()) == 6 / shares);
          all.insert(all.end(), own.begin(), own.end());
        }
        CHECK(same(all, whole.batch(step)));
      }
    how.shares = 4;
    CHECK_THROWS_WITH_AS(Loader(store(), classes, first(5), how),
                         "segmed: loader: a batch of 6 patches cannot be shared by 4 ranks; give a "
                         "multiple of 4",
                         ConfigError);
    how.share = 0, how.shares = 1, how.sample.augment.weak.blur_chance = -1;
    CHECK_THROWS_WITH_AS(Loader(store(), classes, first(5), how),
                         "segmed: augment: blur_chance is -1; give a chance from 0 to 1",
                         ConfigError);
  }
  TEST_CASE("D_0 batches do not depend on D_1") {
    const auto shared = store();
    Loader full(shared, classes, first(4), options(1));
    std::vector<Batch> without;
    for (Index step = 0; step < 6; ++step) without.push_back(full.batch(step));
    auto second = options(1);
    second.stream = 1;
    Loader again(shared, classes, first(4), options(1)),
        partial(shared, classes, first(5, 4), second);
    for (Index step = 0; step < 6; ++step) {
      CHECK(partial.batch(step).size() == 2);
      CHECK(same(again.batch(step), without[std::size_t(step)]));
    }
  }
  TEST_CASE("every epoch shows every case once, in another order") {
    auto one = options();
    one.batch = 1;
    Loader loader(store(), classes, first(9), one);
    std::vector<std::vector<std::string>> orders;
    for (Index epoch = 0; epoch < 3; ++epoch) {
      std::vector<std::string> order;
      for (Index k = 0; k < 9; ++k) order.push_back(loader.batch(epoch * 9 + k).front().id);
      CHECK(std::set<std::string>(order.begin(), order.end()).size() == 9);
      orders.push_back(order);
    }
    CHECK(orders[0] != orders[1]);
    CHECK(orders[1] != orders[2]);
    // A batch larger than the cohort repeats cases, but not patches.
    auto large = options();
    large.batch = 5;
    Loader few(store(), classes, first(2), large);
    std::set<std::vector<float>> patches;
    for (const Patch& patch : few.batch(0)) patches.insert(patch.image);
    CHECK(patches.size() == 5);
  }
  TEST_CASE("another seed gives another order and other patches") {
    Loader one(store(), classes, first(9), options());
    auto other = options();
    other.seed = 2;
    Loader two(store(), classes, first(9), other);
    CHECK_FALSE(same(one.batch(0), two.batch(0)));
  }
  TEST_CASE("a case that fails is replaced by the next of the epoch and listed once") {
    auto one = options();
    one.batch = 1;
    Loader whole(store(), classes, first(5), one), hurt(store({1, 3}), classes, first(5), one);
    for (Index epoch = 0; epoch < 4; ++epoch) {
      std::vector<std::string> order;
      for (Index k = 0; k < 5; ++k) order.push_back(whole.batch(epoch * 5 + k).front().id);
      for (std::size_t k = 0; k < 5; ++k) {
        std::size_t expected = k;
        while (order[expected] == "case1" || order[expected] == "case3")
          expected = (expected + 1) % 5;
        const Batch batch = hurt.batch(epoch * 5 + Index(k));
        CHECK(batch.front().id == order[expected]);
        if (expected == k) CHECK(same(batch, whole.batch(epoch * 5 + Index(k))));
      }
    }
    const auto faults = hurt.faults();
    REQUIRE(faults.size() == 2);
    CHECK(faults[0].index == 1);
    CHECK(faults[1].reason == "segmed: nifti: case3.nii.gz: is truncated");
    Loader three(store({1, 3}), classes, first(5), options(3)),
        none(store({1, 3}), classes, first(5), options());
    for (Index step = 0; step < 8; ++step) CHECK(same(three.batch(step), none.batch(step)));
  }
  TEST_CASE("cases of small sources are drawn more often, by one over the root of their number") {
    // Sources of 16, 4 and 1 cases; what is taken away makes the second.
    const AnnotatedSet two = AnnotatedSet{}.with(1).with(2), one = AnnotatedSet{}.with(1);
    auto cases = first(21);
    std::vector<AnnotatedSet> annotated(21, two);
    for (std::size_t i = 0; i < 16; ++i) cases[i].left = two;
    for (std::size_t i = 16; i < 20; ++i) cases[i].left = one;
    annotated[20] = {};
    balance_sources(cases, annotated);
    CHECK(cases[0].weight == 0.25f);
    CHECK(cases[16].weight == 0.5f);
    CHECK(cases[20].weight == 1);
    auto how = options();
    how.sample.patch = {1, 1, 1}, how.sample.augment = {}, how.batch = 10;
    Loader loader(store(), classes, cases, how);
    std::map<std::string, int> draws;
    for (Index step = 0; step < 700; ++step)
      for (const Patch& patch : loader.batch(step)) ++draws[patch.id];
    for (Index i = 0; i < 21; ++i) {
      const double expected = 1000 * double(cases[std::size_t(i)].weight);
      INFO("case ", i, ": ", draws["case" + std::to_string(i)], " of ", expected);
      CHECK(std::abs(draws["case" + std::to_string(i)] - expected) < 5 * std::sqrt(expected));
    }
    CHECK_THROWS_WITH_AS(balance_sources(cases, {}),
                         "segmed: balance_sources: 0 annotated sets for 21 cases", DataError);
    cases[3].weight = 0;
    CHECK_THROWS_WITH_AS(Loader(store(), classes, cases, options()),
                         "segmed: loader: case 3 has the weight 0; give more than 0", ConfigError);
  }
  TEST_CASE("weighed cases: any workers, shares and order; other patches each time; faults") {
    auto cases = first(5);
    cases[4].weight = 9;
    auto how = options();
    how.batch = 6;
    Loader alone(store(), classes, cases, how);
    std::vector<Batch> expected;
    std::set<std::vector<float>> patches;
    for (Index step = 0; step < 6; ++step) {
      expected.push_back(alone.batch(step));
      for (const Patch& patch : expected.back()) patches.insert(patch.image);
    }
    CHECK(patches.size() == 36);
    auto workers = how;
    workers.workers = 3;
    Loader many(store(), classes, cases, workers);
    for (const Index step : {0, 1, 5, 2})
      CHECK(same(many.batch(step), expected[std::size_t(step)]));
    Batch all;
    for (how.share = 0, how.shares = 2; how.share < 2; ++how.share)
      for (const Patch& patch : Loader(store(), classes, cases, how).batch(4)) all.push_back(patch);
    CHECK(same(all, expected[4]));
    how.share = 0, how.shares = 1;
    Loader hurt(store({4}), classes, cases, how);
    for (std::size_t k = 0; k < 6; ++k)
      CHECK(hurt.batch(0)[k].id == (expected[0][k].id == "case4" ? "case0" : expected[0][k].id));
    // Equal weights are none.
    for (LoaderCase& one : cases) one.weight = 3;
    Loader equal(store(), classes, cases, how), plain(store(), classes, first(5), how);
    CHECK(same(equal.batch(2), plain.batch(2)));
  }
  TEST_CASE("no case at all is an error that gives the first reason") {
    for (const int workers : {0, 2}) {
      Loader loader(store({0, 1}), classes, first(2), options(workers));
      for (Index step = 0; step < 3; ++step)
        CHECK_THROWS_WITH_AS(
            loader.batch(step),
            doctest::Contains(
                "none of the 2 cases can be loaded; the first failure: segmed: nifti: case"),
            DataError);
    }
    CHECK_THROWS_WITH_AS(Loader(store(), classes, {}, options()),
                         "segmed: loader: no case to draw patches from", ConfigError);
  }
  TEST_CASE("the store keeps to its budget and forgets what was not used for longest") {
    const Index one = ReadyCase(numbered(0)).bytes();
    std::atomic<Index> loads{0};
    const auto held = store({}, 3 * one + 100, &loads);
    for (Index i = 0; i < 3; ++i) held->get(i);
    CHECK(held->get(0));
    CHECK(loads == 3);
    held->get(3);  // 1 goes
    CHECK(held->bytes() <= 3 * one + 100);
    held->get(0);
    held->get(2);
    CHECK(loads == 4);
    held->get(1);
    CHECK(loads == 5);
    // What is in use stays valid, and batches do not change.
    const auto tiny = store({}, 1);
    const auto kept = tiny->get(0);
    tiny->get(1);
    CHECK(kept->example.id == "case0");
    Loader poor(tiny, classes, first(6), options(2)), rich(store(), classes, first(6), options());
    for (Index step = 0; step < 6; ++step) CHECK(same(poor.batch(step), rich.batch(step)));
  }
  TEST_CASE("labels that were taken away are not in the patches") {
    auto cases = first(3);
    for (LoaderCase& one : cases) one.left = AnnotatedSet{};
    Loader loader(store(), classes, cases, options());
    for (const Patch& patch : loader.batch(0)) {
      CHECK(patch.annotated.none());
      CHECK(std::all_of(patch.labels.begin(), patch.labels.end(),
                        [](auto label) { return label == ignored; }));
    }
  }
  TEST_CASE("preparing brings a case to R, A, S, to the plan's spacing and to its normalization") {
    Example example = numbered(1);
    example.image.geometry = Geometry::of_spacing(-1, 1, 2);
    example.labels.geometry = example.image.geometry;
    const Preparation how{{2, 2, 2}, Normalization{}};
    const Example ready = prepared(example, how);
    CHECK(ready.image.extent == Extent3{6, 6, 12});
    CHECK(ready.labels.extent == ready.image.extent);
    CHECK(ready.image.geometry.orientation() == "RAS");
    double sum = 0;
    for (const float value : ready.image.voxels) sum += double(value);
    CHECK(std::abs(sum) < 1e-3);
    const ReadyCase made = make_ready(example, how);
    CHECK(made.outside.front() ==
          *std::min_element(made.example.image.voxels.begin(), made.example.image.voxels.end()));
    const Example kept = prepared(example, {{0, 0, 0}, {Normalization::Kind::none, false, {}}});
    CHECK(kept.image.extent == Extent3{12, 12, 12});
    CHECK(kept.image.at(0, 3, 4) == example.image.at(11, 3, 4));
  }
  TEST_CASE("a store over a cohort prepares its cases") {
    MemoryCohort cohort;
    cohort.classes = classes;
    for (Index i = 0; i < 3; ++i) cohort.add(numbered(i));
    Loader loader(make_store(cohort, {}), classes, first(3), options(1));
    CHECK(loader.batch(0).size() == 2);
    CHECK(loader.cases() == 3);
  }
}
