// SPDX-License-Identifier: Apache-2.0
// Batches on their way to a device that fetches them beside its work.
#include <cmath>

#include <doctest/doctest.h>

#include "../backend/recording_host.hpp"
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
  const Samples<F> one = a.uploaded(first), other = b.uploaded(second);
  first.join(), first.finish();
  CHECK(first_of(one.image) == 3);
  CHECK(first_of(one.strong) == -3);
  CHECK(std::isnan(first_of(other.image)));
  second.join();
  CHECK(first_of(other.image) == 4);
  CHECK(one.labels.classes.host()[7] == 1);
}

TEST_SUITE_END();
