// SPDX-License-Identifier: Apache-2.0
// Batches on their way to a device that fetches them beside its work.
#include <cmath>

#include <doctest/doctest.h>

#include "../backend/host_gpu.hpp"
#include "small_cohort.hpp"
#include <segmed/semi/samples.hpp>

namespace {
using namespace segmed;
using fake::RecordingHost;
using F = Features<3, float, RecordingHost>;

/// Two patches full of a number, with a second view of each.
struct Full : HostBatch<F> {
  explicit Full(float number) {
    Patch patch;
    patch.extent = {3, 4, 5}, patch.channels = 1;
    patch.image.assign(60, number), patch.strong.assign(60, -number);
    patch.labels.assign(60, 1), patch.annotated = AnnotatedSet::all(2);
    fill({patch, patch});
  }
};
float first_of(const F& map) { return map.dense().value.host()[0]; }

struct Limited {
  explicit Limited(int allocations) { RecordingHost::allocations = allocations; }
  ~Limited() { RecordingHost::allocations = -1; }
};

}  // namespace

TEST_SUITE_BEGIN("semi/samples");

TEST_CASE("a batch that fits in part leaves nothing on its way") {
  RecordingHost::early = 0;
  const std::size_t before = RecordingHost::Memory::current().used();
  for (int parts = 0; parts < 4; ++parts) {
    CAPTURE(parts);
    RecordingHost::Transfers transfers;
    const Full batch(3);
    const Limited limit(parts);
    CHECK_THROWS_AS(batch.uploaded(transfers), MemoryError);
  }
  CHECK(RecordingHost::early == 0);
  CHECK(RecordingHost::Memory::current().used() == before);
}

TEST_CASE("who waits for one stream's copies waits for no other's") {
  RecordingHost::Transfers first, second;
  const Full a(3), b(4);
  SamplesAhead<F> ahead = a.uploaded(first), others = b.uploaded(second);
  const Samples<F> one = ahead.taken(), other = others.taken();
  first.join(), first.finish();
  CHECK(first_of(one.image) == 3);
  CHECK(first_of(one.strong) == -3);
  CHECK(std::isnan(first_of(other.image)));
  second.join();
  CHECK(first_of(other.image) == 4);
  CHECK(one.labels.classes.host()[7] == 1);
}

TEST_CASE("sources that fit in part leave nothing on their way") {
  using G = Features<3, float, fake::HostGpu>;
  RecordingHost::early = 0;
  const auto cohort = trial::small_cohort();
  const std::size_t before = RecordingHost::Memory::current().used();
  const ReadyCase ready = make_ready(cohort.load(0), {});
  SampleOptions options{.patch = {8, 8, 8}, .strong_view = true, .source = true};
  HostBatch<G> batch;
  batch.fill({draw_patch(ready, cohort.classes, {}, options, {})});
  for (int parts = 0; parts < 6; ++parts) {
    CAPTURE(parts);
    RecordingHost::Transfers transfers;
    const Limited limit(parts);
    CHECK_THROWS_AS(batch.uploaded(transfers), MemoryError);
  }
  CHECK(RecordingHost::early == 0);
  CHECK(RecordingHost::Memory::current().used() == before);
}

TEST_CASE("a stream of sources gives the samples that a stream of patches gives") {
  using G = Features<3, float, fake::HostGpu>;
  const auto cohort = trial::small_cohort(5, 5);
  const auto store = make_store(cohort, {});
  LoaderOptions how;
  how.sample.patch = {12, 10, 8}, how.sample.strong_view = true;
  how.sample.augment.elastic_chance = how.sample.augment.weak.blur_chance = 0.5f;
  const std::vector<LoaderCase> cases = {{0}, {1}, {2}, {3}, {4}};
  SampleStream<G> made(store, cohort.classes, cases, how);
  how.sample.source = true;
  SampleStream<G> sources(store, cohort.classes, cases, how);
  for (const Index step : {0, 1, 2, 7, 8, 3}) {
    CAPTURE(step);
    const Samples<G> expected = made.at(step), there = sources.at(step);
    CHECK(there.cases == expected.cases);
    CHECK(there.labels.grid == expected.labels.grid);
    CHECK(there.labels.annotated == expected.labels.annotated);
    CHECK(there.labels.classes.host() == expected.labels.classes.host());
    for (const auto& [a, b] :
         {std::pair{&there.image, &expected.image}, {&there.strong, &expected.strong}}) {
      CHECK(a->grid() == b->grid());
      const auto x = a->dense().value.host(), y = b->dense().value.host();
      Index apart = 0;
      for (std::size_t i = 0; i < x.size(); ++i) apart += std::abs(x[i] - y[i]) < 1e-4f ? 0 : 1;
      CHECK(apart == 0);
    }
  }
}

TEST_SUITE_END();
