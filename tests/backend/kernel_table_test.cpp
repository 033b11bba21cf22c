// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/backend/cpu.hpp>

using namespace segmed;

namespace {

/// Counts how often each cell is met, one at a time or several.
struct Meet {
  Index across;
  int* met;
  void operator()(Index i) const { ++met[i]; }
  void operator()(Index row, Index c) const { ++met[row * across + c]; }
  template <int n>
  void columns(Index row, Index first) const {
    for (int k = 0; k < n; ++k) (*this)(row, first + k);
  }
};

}  // namespace

TEST_SUITE("backend/kernel_table") {
  TEST_CASE("launches in the set of the kernels meet every item once") {
    for (const Index across : {1, 7, 8, 31, 32, 77})
      for (const Index rows : {0, 1, 300}) {
        std::vector<int> met(static_cast<std::size_t>(rows * across));
        Cpu::launch_blocks(rows * across, Meet{across, met.data()});
        Cpu::launch_rows(rows, across, Meet{across, met.data()});
        Cpu::launch(rows * across, Meet{across, met.data()});
        CHECK(std::count(met.begin(), met.end(), 3) == rows * across);
      }
  }
  TEST_CASE("the set in use is one of the program's, and the best when no name is given") {
    CHECK(InstructionSets<float>::find(kernels<float>().set) != nullptr);
    const Kernels<float>& best = InstructionSets<float>::choose("");
    CHECK(&best == &InstructionSets<float>::choose(best.set));
  }
  TEST_CASE("an unknown set is refused with the choices") {
    std::string text;
    try {
      InstructionSets<float>::choose("sse9");
    } catch (const ConfigError& e) {
      text = e.what();
    }
    CHECK(text.find("segmed: SEGMED_ISA: no kernels named sse9") == 0);
    CHECK(text.find("; choose one of ") != std::string::npos);
    CHECK(text.find(InstructionSets<float>::choose("").set) != std::string::npos);
  }
  TEST_CASE("few channels are convolved by the set whose vectors they fill") {
    for (const char* name : InstructionSets<float>::names) {
      const Kernels<float>* all = InstructionSets<float>::find(name);
      if (!all) continue;
      const auto chosen = [&](Index inputs, Index outputs, Index kernel) {
        Window w;
        w.fine.channels = inputs, w.coarse.channels = outputs, w.kernel[2] = kernel;
        return &all->of(w);
      };
      const Index half = all->vector_bytes / 8;
      const Kernels<float>* few = all->narrower ? all->narrower : all;
      CHECK(chosen(half, half, 3) == few);
      CHECK(chosen(1, half, 3) == few);
      CHECK(chosen(half, half, 1) == all);
      CHECK(chosen(half + 1, half, 3) == all);
      CHECK(chosen(half, half + 1, 3) == all);
    }
  }
  TEST_CASE("all sets of this program compute the same within rounding") {
    Index inputs = 19, outputs = 21;
    SUBCASE("") {}
    SUBCASE("few channels") { inputs = 3, outputs = 8; }
    SUBCASE("half a vector more") { inputs = 24, outputs = 24; }
    Window w;
    w.fine = {1, 6, 7, 8, inputs}, w.coarse = {1, 6, 7, 8, outputs};
    for (int a = 0; a < 3; ++a) w.kernel[a] = 3, w.padding[a] = 1;
    std::vector<float> x(std::size_t(w.fine.size())), weight(std::size_t(w.weights()));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(i * 7919 % 1009) / 1009.f - 0.5f;
    for (std::size_t i = 0; i < weight.size(); ++i)
      weight[i] = float(i * 104729 % 997) / 997.f - 0.5f;
    Feed<float> feed;
    feed.values.lane[0].grid = w.fine, feed.values.lane[0].x = x.data();
    std::vector<float> first;
    for (const char* name : InstructionSets<float>::names) {
      const Kernels<float>* kernels_of_set = InstructionSets<float>::find(name);
      if (!kernels_of_set) continue;
      CAPTURE(name);
      std::vector<float> y(std::size_t(w.coarse.size()));
      Sink<float> sink;
      sink.out[0] = y.data(), sink.grid[0] = w.coarse;
      kernels_of_set->gather(w, feed, weight.data(), sink);
      if (first.empty()) first = y;
      float worst = 0;
      for (std::size_t i = 0; i < y.size(); ++i) worst = std::max(worst, std::abs(y[i] - first[i]));
      CHECK(worst < 1e-4f);
    }
  }
}
