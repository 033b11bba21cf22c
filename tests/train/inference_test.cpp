// SPDX-License-Identifier: Apache-2.0
#include <sys/resource.h>

#include <doctest/doctest.h>

#include <segmed/backend/cpu.hpp>
#include <segmed/nn/layer.hpp>
#include <segmed/train/inference.hpp>

using namespace segmed;

namespace {

using F3 = Features<3, float, Cpu>;
using F2 = Features<2, float, Cpu>;

Volume<float> noise(const Extent3& extent, Index channels = 1) {
  Volume<float> image = make_volume<float>(extent, Geometry::of_spacing(1, 1, 2), channels);
  for (Index i = 0; i < image.size(); ++i)
    image.voxels[std::size_t(i)] = Philox{4, Purpose::noise}.normal(i);
  return image;
}

/// Logits that depend on one voxel only: class k where the image lies near k.
template <class F>
struct Pointwise {
  Index classes = 3;
  F operator()(const F& x) const {
    const auto in = x.dense().value.host();
    std::vector<float> out;
    for (const float v : in)
      for (Index c = 0; c < classes; ++c) out.push_back(-5 * (v - float(c)) * (v - float(c)));
    return F(x.grid().with_channels(classes), Storage<float, Cpu>(out));
  }
};

/// The same mean of windows, with all sums held in double at once.
struct Reference {
  std::vector<double> sums, weights;
  Index classes = 0;

  template <class Net>
  Reference(const Net& net, const Volume<float>& image, const SlidingWindow& how) {
    const Index width = image.extent[0], height = image.extent[1];
    std::array<std::vector<Index>, 3> starts;
    std::array<std::vector<float>, 3> taper;
    for (std::size_t a = 0; a < 3; ++a) {
      starts[a] = window_starts(image.extent[a], how.patch[a], how.overlap);
      taper[a] = window_taper(how.patch[a]);
    }
    weights.assign(std::size_t(image.grid_size()), 0);
    const Index px = how.patch[0], py = how.patch[1], pz = how.patch[2];
    for (int flips = 0; flips < 8; ++flips) {
      bool wanted = true;
      for (std::size_t a = 0; a < 3; ++a) wanted = wanted && (how.mirror[a] || !(flips >> a & 1));
      if (!wanted) continue;
      for (const Index sz : starts[2])
        for (const Index sy : starts[1])
          for (const Index sx : starts[0]) {
            std::vector<float> patch;
            std::vector<Extent3> places;
            for (Index z = 0; z < pz; ++z)
              for (Index y = 0; y < py; ++y)
                for (Index x = 0; x < px; ++x) {
                  const Extent3 in = {flips & 1 ? px - 1 - x : x, flips & 2 ? py - 1 - y : y,
                                      flips & 4 ? pz - 1 - z : z};
                  const Extent3 at = {sx + in[0], sy + in[1], sz + in[2]};
                  const bool inside = image.contains(at[0], at[1], at[2]);
                  patch.push_back(inside ? image.at(at[0], at[1], at[2]) : how.outside);
                  places.push_back(in);
                }
            const F3 logits = no_grad([&] {
              return value(net(F3({1, pz, py, px, 1}, Storage<float, Cpu>(patch))));
            });
            classes = logits.grid().channels;
            sums.resize(std::size_t(image.grid_size() * classes));
            const auto host = logits.dense().value.host();
            for (std::size_t v = 0; v < places.size(); ++v) {
              const auto [ix, iy, iz] = places[v];
              if (!image.contains(sx + ix, sy + iy, sz + iz)) continue;
              const double w = double(taper[0][std::size_t(ix)]) * taper[1][std::size_t(iy)] *
                               taper[2][std::size_t(iz)];
              const Index to = ((sz + iz) * height + sy + iy) * width + sx + ix;
              weights[std::size_t(to)] += w;
              double total = 0;
              for (Index c = 0; c < classes; ++c)
                total += std::exp(double(host[v * std::size_t(classes) + std::size_t(c)]));
              for (Index c = 0; c < classes; ++c) {
                const bool swap = (flips & 1) && !how.partner.empty();
                const Index from = swap ? Index(how.partner[std::size_t(c)]) : c;
                sums[std::size_t(to * classes + c)] +=
                    w * std::exp(double(host[v * std::size_t(classes) + std::size_t(from)])) /
                    total;
              }
            }
          }
    }
  }
};

}  // namespace

TEST_SUITE("train/inference") {
  TEST_CASE("windows cover an axis evenly and end with it") {
    CHECK(window_starts(64, 64, 0.5) == std::vector<Index>{0});
    CHECK(window_starts(10, 64, 0.5) == std::vector<Index>{-27});
    CHECK(window_starts(65, 64, 0.5) == std::vector<Index>{0, 1});
    CHECK(window_starts(128, 64, 0.5) == std::vector<Index>{0, 32, 64});
    CHECK(window_starts(110, 64, 0.5) == std::vector<Index>{0, 23, 46});
    CHECK(window_starts(4, 1, 0.5) == std::vector<Index>{0, 1, 2, 3});
    for (Index extent = 1; extent < 60; ++extent)
      for (Index patch = 1; patch < 20; ++patch)
        for (const double overlap : {0.0, 0.25, 0.5, 0.9}) {
          const auto starts = window_starts(extent, patch, overlap);
          CHECK(starts.front() <= 0);
          CHECK(starts.back() + patch >= extent);
          for (std::size_t i = 1; i < starts.size(); ++i) {
            CHECK(starts[i] > starts[i - 1]);
            CHECK(starts[i] <= starts[i - 1] + patch);
          }
        }
    const auto taper = window_taper(16);
    CHECK(taper[0] == taper[15]);
    CHECK(taper[7] == doctest::Approx(std::exp(-0.5 * 0.0625)).epsilon(1e-6));
  }

  TEST_CASE("a network that sees one voxel gives the same labels for any windows") {
    for (const Extent3 extent :
         {Extent3{1, 1, 1}, {7, 5, 3}, {8, 8, 8}, {9, 17, 23}, {40, 3, 11}}) {
      const Volume<float> image = noise(extent);
      for (const Extent3 patch : {Extent3{8, 8, 8}, {5, 7, 4}, {16, 2, 1}}) {
        Index calls = 0, last = 0;
        const auto got = segment<F3>(
            Pointwise<F3>{}, image,
            {.patch = patch, .mirror = {true, false, true}, .progress = [&](Index done, Index all) {
               ++calls;
               CHECK(done == calls);
               last = all;
             }});
        CHECK(calls == last);
        CHECK(got.confidence.empty());
        REQUIRE(same_grid(got.labels, image));
        for (Index i = 0; i < image.size(); ++i) {
          const float v = image.voxels[std::size_t(i)];
          const int expected = v < 0.5f ? 0 : v < 1.5f ? 1 : 2;
          if (std::abs(v - 0.5f) > 1e-3f && std::abs(v - 1.5f) > 1e-3f)
            REQUIRE(int(got.labels.voxels[std::size_t(i)]) == expected);
        }
      }
    }
  }

  TEST_CASE("labels and confidence are those of sums over the whole volume") {
    const Conv<F3> conv(1, 3);
    const auto net = [&](const F3& x) { return conv(x); };
    const std::vector<SlidingWindow> ways = {
        {.patch = {8, 8, 8}},
        {.patch = {6, 9, 5}, .overlap = 0.7, .outside = -1},
        {.patch = {8, 7, 6}, .mirror = {true, true, true}},
        {.patch = {8, 8, 4}, .overlap = 0, .mirror = {true, false, false}, .partner = {0, 2, 1}}};
    for (const Extent3 extent : {Extent3{13, 9, 17}, {5, 20, 6}})
      for (SlidingWindow how : ways) {
        how.confidence = true;
        const Volume<float> image = noise(extent);
        const auto got = segment<F3>(net, image, how);
        const Reference expected(net, image, how);
        double worst = 0;
        for (std::size_t v = 0; v < expected.weights.size(); ++v) {
          const double* sums = &expected.sums[3 * v];
          const Index best = std::max_element(sums, sums + 3) - sums;
          const double won = sums[best] / expected.weights[v];
          double second = 0;
          for (Index c = 0; c < 3; ++c)
            if (c != best) second = std::max(second, sums[c] / expected.weights[v]);
          worst = std::max(worst, std::abs(won - double(got.confidence.voxels[v])));
          if (won - second > 1e-5) REQUIRE(Index(got.labels.voxels[v]) == best);
        }
        CHECK(worst < 1e-5);
      }
  }

  TEST_CASE("a network that knows left from right gives mirrored labels for a mirrored image") {
    const Conv<F3> conv(1, 3);
    const auto net = [&](const F3& x) { return conv(x); };
    const SlidingWindow how = {
        .patch = {8, 8, 8}, .mirror = {true, false, false}, .partner = {0, 2, 1}};
    const Volume<float> image = noise({13, 9, 10});
    Volume<float> other = image;
    for (Index z = 0; z < 10; ++z)
      for (Index y = 0; y < 9; ++y)
        for (Index x = 0; x < 13; ++x) other.at(x, y, z) = image.at(12 - x, y, z);
    const auto a = segment<F3>(net, image, how).labels, b = segment<F3>(net, other, how).labels;
    Index differ = 0;
    for (Index z = 0; z < 10; ++z)
      for (Index y = 0; y < 9; ++y)
        for (Index x = 0; x < 13; ++x)
          differ += a.at(x, y, z) != how.partner[std::size_t(b.at(12 - x, y, z))];
    CHECK(differ <= 2);  // ties that rounding decides
  }

  TEST_CASE("a 2-D network sees one slice at a time") {
    const Conv<F2> conv(2, 4);
    const auto net = [&](const F2& x) { return conv(x); };
    const Volume<float> image = noise({20, 9, 5}, 2);
    const SlidingWindow how = {.patch = {8, 8, 100}, .mirror = {true, true, false}};
    const auto whole = segment<F2>(net, image, how);
    for (Index z = 0; z < 5; ++z) {
      const auto slice = segment<F2>(net, cropped(image, {0, 0, z}, {20, 9, 1}), how);
      for (Index y = 0; y < 9; ++y)
        for (Index x = 0; x < 20; ++x)
          REQUIRE(slice.labels.at(x, y, 0) == whole.labels.at(x, y, z));
    }
  }

  TEST_CASE("the same bits come from 1, 2 and 4 threads") {
    const Conv<F3> conv(1, 5);
    const auto net = [&](const F3& x) { return conv(x); };
    const SlidingWindow how = {
        .patch = {8, 8, 8}, .mirror = {true, false, false}, .confidence = true};
    const Volume<float> image = noise({21, 18, 19});
    const int before = threads();
    set_threads(1);
    const auto one = segment<F3>(net, image, how);
    for (const int count : {2, 4}) {
      set_threads(count);
      const auto more = segment<F3>(net, image, how);
      CHECK(more.labels.voxels == one.labels.voxels);
      CHECK(more.confidence.voxels == one.confidence.voxels);
    }
    set_threads(before);
  }

  TEST_CASE("memory does not grow with classes times volume") {
    const auto peak = [] {
      ::rusage usage{};
      ::getrusage(RUSAGE_SELF, &usage);
      return Index(usage.ru_maxrss) * 1024;
    };
    const SlidingWindow how = {.patch = {16, 16, 16}};
    const Volume<float> image = noise({16, 16, 600});
    segment<F3>(Pointwise<F3>{60}, cropped(image, {0, 0, 0}, {16, 16, 40}), how);
    const Index before = peak();
    segment<F3>(Pointwise<F3>{60}, image, how);
    CHECK(peak() - before < 8 << 20);  // 60 classes of the volume would be 37 MB
    CHECK(segment_bytes(image.extent, how.patch, 60) == 2 * 4 * 60 * 16 * 16 * 16);
  }

  TEST_CASE("what cannot be done has its sentence") {
    const Volume<float> image = noise({9, 9, 9});
    const Pointwise<F3> net;
    CHECK_THROWS_WITH_AS(segment<F3>(net, image, {.patch = {8, 0, 8}}),
                         "segmed: segment: a patch of 8x0x8 with an overlap of 0.5; give sizes "
                         "from 1, overlap below 1",
                         ConfigError);
    CHECK_THROWS_AS(segment<F3>(net, image, {.overlap = 1}), ConfigError);
    CHECK_THROWS_WITH_AS(
        segment<F2>(Pointwise<F2>{}, image, {.patch = {8, 8, 1}, .mirror = {false, false, true}}),
        "segmed: segment: a 2-D network cannot be mirrored along z", ConfigError);
    CHECK_THROWS_WITH_AS(segment<F3>(net, image, {.patch = {8, 8, 8}, .partner = {0, 1}}),
                         "segmed: segment: 2 partners for 3 classes", ConfigError);
    CHECK_THROWS_WITH_AS(
        segment<F3>([](const F3& x) { return x; }, image, {.patch = {8, 8, 8}}),
        "segmed: segment: a patch (1, 8, 8, 8, 1) became logits (1, 8, 8, 8, 1); a network keeps "
        "the extents and gives 2 to 255 classes",
        ShapeError);
    Volume<float> broken = image;
    broken.at(3, 4, 5) = std::nanf("");
    CHECK_THROWS_WITH_AS(segment<F3>(net, broken, {.patch = {8, 8, 8}}),
                         "segmed: segment: at voxel (3, 4, 5) the network gives no number",
                         DataError);
    CHECK_THROWS_AS(segment<F3>(net, Volume<float>{}, {}), ShapeError);
    struct Interrupted {};
    CHECK_THROWS_AS(
        segment<F3>(net, image,
                    {.patch = {8, 8, 8}, .progress = [](Index, Index) { throw Interrupted{}; }}),
        Interrupted);
  }
}
