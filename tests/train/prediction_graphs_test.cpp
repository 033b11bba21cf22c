// SPDX-License-Identifier: Apache-2.0
// Which dense graphs a prediction asks for: what is tuned before must be what is met then.
#include <set>

#include "../backend/dense_loop.hpp"
#include "../backend/teamed_host.hpp"
#include <segmed/nn/unet.hpp>
#include <segmed/train/inference.hpp>

namespace {
using namespace segmed;

struct Listing : made_up::DenseLoop {
  static std::set<CudnnKey>& met() {
    static std::set<CudnnKey> all;
    return all;
  }
  template <CudnnStored T>
  static const CudnnProblem* plan(const CudnnProblem& p) {
    met().insert(p.key());
    return DenseLoop::plan<T>(p);
  }
};
struct Host : check::TeamedHost, made_up::DenseConvolutions<Host, Listing> {};
using F = Features<3, Bfloat16, Host>;

}  // namespace

TEST_SUITE("train/prediction graphs") {
  TEST_CASE("one blank patch asks for all graphs that predictions of any scan ask for") {
    const UNet<UNetParts<F>> net({.channels_in = 1, .classes = 3, .widths = {8, 16}});
    const auto graphs = [&](const Extent3& extent, bool mirrored) {
      Listing::met().clear();
      SlidingWindow how{.patch = {8, 6, 4}};
      how.mirror = {mirrored, false, mirrored};
      auto image = make_volume<float>(extent);
      for (std::size_t i = 0; i < image.voxels.size(); ++i)
        image.voxels[i] = mirrored ? float(i % 7) : 0.0f;
      segment<F>(net, image, how);
      return Listing::met();
    };
    const std::set<CudnnKey> blank = graphs({8, 6, 4}, false);
    CHECK(blank.size() > 4);
    CHECK(graphs({11, 6, 9}, true) == blank);
    CHECK(graphs({5, 7, 3}, true) == blank);
  }
}
