// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <segmed/backend/cpu.hpp>

using namespace segmed;

namespace {

int formed = 0;  // how often weights were brought into a form

// The kernels in use, which say so.
Kernels<float> counting() {
  Kernels<float> kernels_in_use = kernels<float>();
  kernels_in_use.make_form = [](const Window& w, bool to_coarse, const float* weight,
                                const WeightForm& form, float* numbers) {
    ++formed;
    kernels<float>().make_form(w, to_coarse, weight, form, numbers);
  };
  return kernels_in_use;
}
Window cube(Index extent, Index inputs, Index outputs) {
  Window w;
  w.fine = {1, extent, extent, extent, inputs}, w.coarse = w.fine.with_channels(outputs);
  for (int a = 0; a < 3; ++a) w.kernel[a] = 3, w.padding[a] = 1;
  return w;
}
std::vector<float> numbers(Index count, Index seed) {
  std::vector<float> x(static_cast<std::size_t>(count));
  for (Index i = 0; i < count; ++i)
    x[std::size_t(i)] = float((i + seed) * 7919 % 1009) / 1009.f - 0.5f;
  return x;
}
std::vector<float> convolved(const Kernels<float>& by, const Window& w, bool to_coarse,
                             const WeightFeed<float>& weight) {
  const Grid &from = to_coarse ? w.fine : w.coarse, &to = to_coarse ? w.coarse : w.fine;
  const std::vector<float> x = numbers(from.size(), 5);
  std::vector<float> y(std::size_t(to.size()));
  Feed<float> feed;
  feed.values.lane[0].grid = from, feed.values.lane[0].x = x.data();
  Sink<float> sink;
  sink.out[0] = y.data(), sink.grid[0] = to;
  (to_coarse ? by.gather : by.scatter)(w, feed, weight, sink);
  return y;
}
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_SUITE("backend/weight_forms") {
  TEST_CASE("weights used again keep their form until they are others") {
    const Kernels<float> kernels_in_use = counting();
    const Window w = cube(8, 32, 48), smaller = cube(7, 32, 48);
    REQUIRE(kernels_in_use.form(w, true).numbers > 0);
    REQUIRE(kernels_in_use.form(w, true) == kernels_in_use.form(smaller, true));
    const std::vector<float> weight = numbers(w.weights(), 1), other = numbers(w.weights(), 2);
    const Index held = WeightForms<float>::bytes_held();
    WeightForms<float> forms;
    formed = 0;
    const auto check = [&](const Window& on, bool to_coarse, const std::vector<float>& given,
                           std::uint64_t version, bool kept) {
      const auto found = forms.find(kernels_in_use, on, to_coarse, given.data(), version);
      CHECK(found.kept() == kept);
      CHECK(same_bits(convolved(kernels_in_use, on, to_coarse, found.weights(given.data())),
                      convolved(kernels_in_use, on, to_coarse, given.data())));
    };
    check(w, true, weight, 1, false);
    CHECK(formed == 0);
    check(w, true, weight, 1, true);
    check(w, true, weight, 1, true);
    check(smaller, true, weight, 1, true);  // the same tiles on another grid
    CHECK(formed == 1);
    check(w, false, weight, 1, false);
    check(w, false, weight, 1, true);  // the other way is another form
    check(w, true, weight, 1, true);
    CHECK(formed == 2);
    set_convolution_mode(ConvolutionMode::precise);  // and so are other tiles
    check(w, true, weight, 1, false);
    check(w, true, weight, 1, true);
    set_convolution_mode(ConvolutionMode::direct);
    check(w, true, weight, 1, false);
    set_convolution_mode(ConvolutionMode::automatic);
    CHECK(formed == 3);
    CHECK(WeightForms<float>::bytes_held() > held);
    check(w, true, other, 2, false);
    CHECK(WeightForms<float>::bytes_held() == held);
    check(w, true, other, 2, true);
    CHECK(formed == 4);
    forms.forget();
    CHECK(WeightForms<float>::bytes_held() == held);
    check(w, true, other, 2, false);
  }
  TEST_CASE("a form for other tiles is not taken") {
    const Window w = cube(8, 32, 32);
    const std::vector<float> weight = numbers(w.weights(), 1);
    const Kernels<float>& by = kernels<float>();
    WeightForm form = by.form(w, true);
    std::vector<float> made(std::size_t(form.numbers));
    by.make_form(w, true, weight.data(), form, made.data());
    const auto plain = convolved(by, w, true, weight.data());
    CHECK(same_bits(convolved(by, w, true, {weight.data(), form, made.data()}), plain));
    form.tile[0] = 1;
    CHECK(same_bits(convolved(by, w, true, {weight.data(), form, nullptr}), plain));
    std::fill(made.begin(), made.end(), 1e30f);
    CHECK(same_bits(convolved(by, w, true, {weight.data(), form, made.data()}), plain));
  }
  TEST_CASE("only small grids of many weights keep a form, and no more than there is room for") {
    const Kernels<float>& by = kernels<float>();
    CHECK(by.form(cube(12, 256, 256), true).numbers > 0);
    CHECK(by.form(cube(6, 320, 320), true).numbers > 0);
    CHECK(by.form(cube(48, 64, 64), true).numbers == 0);
    Window dense = cube(8, 64, 64);
    dense.kernel[0] = dense.kernel[1] = dense.kernel[2] = 1;
    CHECK(by.form(dense, true).numbers == 0);
    CHECK(kernels<double>().form(cube(8, 32, 32), true).numbers == 0);

    Kernels<float> greedy = by;
    greedy.form = [](const Window&, bool) {
      WeightForm form;
      form.numbers = WeightForms<float>::most_bytes / Index(sizeof(float)) + 1;
      return form;
    };
    WeightForms<float> forms;
    for (int i = 0; i < 3; ++i)
      CHECK_FALSE(forms.find(greedy, cube(8, 32, 32), true, nullptr, 1).kept());
  }
  TEST_CASE("several threads share a form") {
    const Kernels<float> kernels_in_use = counting();
    const Window w = cube(6, 24, 40);
    const std::vector<float> weight = numbers(w.weights(), 3);
    const auto expected = convolved(kernels_in_use, w, true, weight.data());
    WeightForms<float> forms;
    formed = 0;
    std::atomic<int> wrong = 0;
    std::vector<std::thread> users;
    for (int i = 0; i < 4; ++i)
      users.emplace_back([&] {
        for (int k = 0; k < 8; ++k) {
          const auto found = forms.find(kernels_in_use, w, true, weight.data(), 1);
          const auto made = convolved(kernels_in_use, w, true, found.weights(weight.data()));
          wrong += !same_bits(made, expected);
        }
      });
    for (std::thread& user : users) user.join();
    CHECK(wrong == 0);
    CHECK(formed == 1);
  }
}
