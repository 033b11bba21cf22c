// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/autograd/group.hpp>
#include <segmed/autograd/scalar.hpp>
#include <segmed/backend/cpu.hpp>
#include <segmed/nn/unet.hpp>

using namespace segmed;

namespace {

template <class F>
F noise(const Grid& grid) {
  std::vector<typename F::value_type> values;
  for (Index i = 0; i < grid.size(); ++i)
    values.push_back(typename F::value_type(Philox{6, Purpose::noise}.normal(i)));
  return F(grid, Storage<typename F::value_type, Cpu>(values));
}
template <class F>
auto host(const F& x) {
  return value(x).dense().value.host();
}
template <class Net>
std::map<std::string, std::vector<typename Net::F::Wide>> weights(const Net& net) {
  using W = typename Net::F::Wide;
  std::map<std::string, std::vector<W>> all;
  for (const auto& [path, role, leaf] : Inventory(net).leaves)
    if (leaf->trainable()) all[path] = leaf->stored().template as<W>();
  return all;
}
template <class Net>
typename Net::Options tiny(Index classes = 2) {
  typename Net::Options options;
  options.classes = classes;
  options.widths = {3, 4, 5};
  options.encoder_convs = options.decoder_convs = 1;
  return options;
}

/// The largest distance between backward and central differences over some parameters, relative to
/// the largest gradient.
template <class Net>
double whole_net_error(Net net, const Grid& grid, int count) {
  using F = typename Net::F;
  const Group<double, Cpu> group(Role::trained, net);
  const F x = noise<F>(grid), target = noise<F>(grid.with_channels(net.options.classes));
  const auto loss = [&] { return mean_square(softmax(net(x)), target); };
  backward(loss());
  const auto slopes = group.grads.host();
  double worst = 0, largest = 0;
  for (int i = 0; i < count; ++i) {
    const Philox random{8, Purpose::noise, std::uint32_t(i)};
    const auto& p = group.params()[std::size_t(random.below(0, Index(group.params().size())))];
    const Index at = random.below(1, p->value.size());
    const Index in_group = p->value.read() - group.values.read() + at;
    auto values = p->value.host();
    const double kept = values[std::size_t(at)], step = 1e-6;
    const auto value_at = [&](double delta) {
      values[std::size_t(at)] = kept + delta;
      p->value.assign(values);
      return no_grad(loss).host();
    };
    const double numeric = (value_at(step) - value_at(-step)) / (2 * step);
    value_at(0);
    worst = std::max(worst, std::abs(numeric - slopes[std::size_t(in_group)]));
    largest = std::max(largest, std::abs(numeric));
  }
  return worst / largest;
}

using F2 = Features<2, double, Cpu>;
using F3 = Features<3, double, Cpu>;
using Plain2 = UNet<UNetParts<F2>>;
using Plain3 = UNet<UNetParts<F3>>;
using Residual3 = UNet<ResidualParts<F3>>;
struct OtherParts : UNetParts<F2> {
  using Encoder = Residual<ConvBlock<F2, GroupNorm<F2, 2>, Silu>>;
  using Decoder = ConvBlock<F2, BatchNorm<F2>, Prelu<F2>>;
  using Up = LinearUp<F2>;
};
using Other2 = UNet<OtherParts>;

/// Most tests only go forward: nothing shall wait on the tape for a backward that never comes.
struct Forward {
  Scope scope{[](Mode& m) { m.record = false; }};
};

}  // namespace

TEST_SUITE("nn/unet") {
  TEST_CASE_FIXTURE(Forward, "logits lie on the image's grid, whatever its extents") {
    const Plain3 net(tiny<Plain3>(4));
    for (const Grid& grid : {Grid{1, 8, 8, 8, 1}, {2, 7, 9, 11, 1}, {1, 5, 1, 13, 1}})
      CHECK(net(noise<F3>(grid)).grid() == grid.with_channels(4));
    const Plain2 flat(tiny<Plain2>(3));
    CHECK(flat(noise<F2>({3, 1, 13, 10, 1})).grid() == Grid{3, 1, 13, 10, 3});
    const Other2 other(tiny<Other2>());
    CHECK(other(noise<F2>({2, 1, 9, 15, 1})).grid() == Grid{2, 1, 9, 15, 2});
  }

  TEST_CASE_FIXTURE(Forward, "anisotropic strides leave an axis as it is") {
    auto options = tiny<Plain3>();
    options.strides = {{1, 2, 2}, {2, 2, 2}};
    const Plain3 net(options);
    CHECK(options.divisor() == std::array<Index, 3>{2, 4, 4});
    CHECK(net(noise<F3>({1, 3, 9, 10, 1})).grid() == Grid{1, 3, 9, 10, 2});
    const auto levels = net.encode(noise<F3>({1, 3, 9, 10, 1}));
    CHECK(levels[1].grid() == Grid{1, 3, 5, 5, 4});
    CHECK(levels[2].grid() == Grid{1, 2, 3, 3, 5});
  }

  TEST_CASE_FIXTURE(Forward,
                    "deep supervision shows every resolution but the lowest, the finest first") {
    auto options = tiny<Plain3>(3);
    options.widths = {3, 4, 5, 6};
    options.deep_supervision = true;
    const Plain3 net(options);
    const F3 x = noise<F3>({1, 9, 8, 16, 1});
    const auto outputs = net.outputs(x);
    REQUIRE(outputs.size() == 3);
    CHECK(outputs[0].grid() == Grid{1, 9, 8, 16, 3});
    CHECK(outputs[1].grid() == Grid{1, 5, 4, 8, 3});
    CHECK(outputs[2].grid() == Grid{1, 3, 2, 4, 3});
    CHECK(host(outputs[0]) == host(net(x)));
    CHECK(Plain3(tiny<Plain3>()).outputs(x).size() == 1);
  }

  TEST_CASE_FIXTURE(Forward, "the head of the features is the network") {
    const Residual3 net(tiny<Residual3>());
    const F3 x = noise<F3>({1, 6, 6, 6, 1});
    CHECK(net.features(x).grid() == Grid{1, 6, 6, 6, 3});
    CHECK(host(net.classify(net.features(x))) == host(net(x)));
  }

  TEST_CASE_FIXTURE(Forward, "the number of parameters is what paper and pencil give") {
    Plain3::Options options;
    options.classes = 3;
    options.widths = {4, 8};
    const Index encoder =
        (27 * 1 * 4 + 8) + (27 * 4 * 4 + 8) + (27 * 4 * 8 + 16) + (27 * 8 * 8 + 16);
    const Index decoder = (8 * 8 * 4 + 4) + (27 * 8 * 4 + 8) + (27 * 4 * 4 + 8);
    CHECK(parameter_count(Plain3(options)) == encoder + decoder + 4 * 3 + 3);
    const Index shortcuts = (1 * 4 + 8) + (4 * 8 + 16);
    CHECK(parameter_count(Residual3(options)) == encoder + shortcuts + decoder + 4 * 3 + 3);
    options.widths = {4, 8, 8};
    const Index one_head = parameter_count(Plain3(options));
    options.deep_supervision = true;
    CHECK(parameter_count(Plain3(options)) == one_head + 8 * 3 + 3);
  }

  TEST_CASE_FIXTURE(Forward, "starting weights follow from seed and path alone") {
    const auto first = weights(Plain3(tiny<Plain3>(2)));
    CHECK(weights(Plain3(tiny<Plain3>(2))) == first);
    // More classes and a deeper net change the parameters around, not those with the same path.
    auto options = tiny<Plain3>(5);
    options.widths = {3, 4, 5, 6};
    const auto deeper = weights(Plain3(options));
    for (const char* path : {"encode.stages.0.units.0.conv.weight",
                             "encode.stages.2.units.0.conv.weight", "decode.ups.0.conv.weight"})
      CHECK(deeper.at(path) == first.at(path));
    auto other = tiny<Plain3>(2);
    other.seed = 2;
    CHECK(weights(Plain3(other)).at("head.weight") != first.at("head.weight"));
    CHECK(first.at("encode.stages.1.units.0.conv.weight") !=
          first.at("decode.stages.0.units.0.conv.weight"));
  }

  TEST_CASE_FIXTURE(Forward, "a copy has weights of its own") {
    Plain2 net(tiny<Plain2>());
    Plain2 copy = net;
    const F2 x = noise<F2>({1, 1, 8, 8, 1});
    CHECK(host(copy(x)) == host(net(x)));
    const auto before = host(net(x));
    copy.head.bias.value().assign({7, -7});
    CHECK(host(net(x)) == before);
    CHECK(host(copy(x)) != before);
    const Plain2 kept = net;
    net = copy;
    CHECK(host(net(x)) == host(copy(x)));
    net = kept;
    CHECK(host(net(x)) == before);
  }

  TEST_CASE("gradients of whole nets are those of differences") {
    CHECK(whole_net_error(Plain2(tiny<Plain2>(3)), {2, 1, 9, 10, 1}, 200) < 1e-4);
    CHECK(whole_net_error(Plain3(tiny<Plain3>()), {1, 8, 7, 6, 1}, 200) < 1e-4);
    CHECK(whole_net_error(Residual3(tiny<Residual3>()), {1, 6, 8, 7, 1}, 200) < 1e-4);
    CHECK(whole_net_error(Other2(tiny<Other2>()), {2, 1, 12, 10, 1}, 200) < 1e-4);
  }

  TEST_CASE("a whole net gives the same bits fused and written down, with any number of threads") {
    using F = Features<3, float, Cpu>;
    using Net = UNet<ResidualParts<F>>;
    auto options = tiny<Net>();
    options.widths = {8, 16, 24};
    Net net(options);
    Group<float, Cpu> group(Role::trained, net);
    const F x = noise<F>({2, 9, 12, 11, 1}), target = noise<F>({2, 9, 12, 11, 2});
    const auto step = [&] {
      group.clear_grads();
      const auto loss = mean_square(softmax(net(x)), target);
      const double value = loss.host();
      backward(loss);
      auto all = group.grads.host();
      all.push_back(float(value));
      return all;
    };
    const int before = threads();
    set_threads(1);
    const auto one = step();
    const auto forward = [&] { return no_grad([&] { return host(net(x)); }); };
    CHECK(materialized(forward) == forward());
    for (const int count : {2, 4}) {
      set_threads(count);
      CHECK(step() == one);
    }
    set_threads(before);
  }

  TEST_CASE("a net learns one image by heart") {
    using F = Features<2, float, Cpu>;
    using Net = UNet<UNetParts<F>>;
    auto options = tiny<Net>();
    options.widths = {8, 16};
    Net net(options);
    Group<float, Cpu> group(Role::trained, net);
    const Grid grid{1, 1, 16, 16, 1};
    std::vector<float> image, target;
    for (Index y = 0; y < 16; ++y)
      for (Index x = 0; x < 16; ++x) {
        const bool inside = (x - 6) * (x - 6) + (y - 9) * (y - 9) < 20;
        image.push_back(float(inside) + 0.5f * Philox{1, Purpose::noise}.normal(16 * y + x));
        target.push_back(float(!inside));
        target.push_back(float(inside));
      }
    const F in(grid, Storage<float, Cpu>(image));
    const F out(grid.with_channels(2), Storage<float, Cpu>(target));
    std::vector<double> losses;
    for (int step = 0; step < 60; ++step) {
      group.clear_grads();
      const auto loss = mean_square(softmax(net(in)), out);
      losses.push_back(loss.host());
      backward(loss);
      auto values = group.values.host();
      const auto slopes = group.grads.host();
      double norm = 1e-12;
      for (const float g : slopes) norm += double(g) * double(g);
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] -= 0.15f * slopes[i] / float(std::sqrt(norm));
      group.values.assign(values);
    }
    CHECK(losses.back() < 0.1 * losses.front());
  }

  TEST_CASE("stages that run once more in backward give the same bits in less memory") {
    using F = Features<3, float, Cpu>;
    const Grid grid{1, 32, 32, 32, 1};
    const F x = noise<F>(grid), target = noise<F>(grid.with_channels(2));
    struct Step {
      std::vector<float> gradients;
      std::size_t peak;  // above what lasts, in bytes
    };
    const auto step = [&](auto net) {
      const Group<float, Cpu> group(Role::trained, net);
      Draws::current() = {};  // the same features are dropped
      const std::size_t before = Memory::current().used();
      Memory::current().forget_peak();
      backward(mean_square(softmax(net(x)), target));
      return Step{group.grads.host(), Memory::current().peak() - before};
    };
    const auto compare = [&]<class Net>(std::type_identity<Net>) {
      typename Net::Options options{.widths = {16, 32, 64}, .dropout = 0.2f};
      const Step plain = step(Net(options));
      options.recompute = true;
      const Step again = step(Net(options));
      CHECK(plain.gradients == again.gradients);
      CHECK(double(again.peak) < 0.75 * double(plain.peak));
    };
    compare(std::type_identity<UNet<UNetParts<F>>>{});
    compare(std::type_identity<UNet<ResidualParts<F>>>{});
  }

  TEST_CASE_FIXTURE(Forward, "where nothing is recorded, no map outlives its last reader") {
    using F = Features<3, float, Cpu>;
    const UNet<UNetParts<F>> net({.widths = {16, 32}});
    const Grid grid{1, 48, 48, 48, 1};
    const F x = noise<F>(grid);
    const std::size_t before = Memory::current().used();
    Memory::current().forget_peak();
    host(net(x));
    // At most both halves of the concatenation and what its first convolution makes of them.
    const double map = 4.0 * 16 * double(grid.voxels());
    CHECK(double(Memory::current().peak() - before) < 3.6 * map);
  }

  TEST_CASE_FIXTURE(Forward, "options that do not fit are refused") {
    auto options = tiny<Plain3>();
    options.strides = {{2, 2, 2}};
    CHECK_THROWS_WITH_AS(Plain3{options}, "segmed: UNet: 3 widths need 2 strides, not 1",
                         ConfigError);
    options = tiny<Plain3>();
    options.classes = 1;
    CHECK_THROWS_WITH_AS(Plain3{options},
                         "segmed: UNet: channels_in 1, classes 1 and 3 widths; give at least 1, 2 "
                         "and 1",
                         ConfigError);
  }
}
