// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <filesystem>

#include <doctest/doctest.h>

#include <segmed/autograd/scalar.hpp>
#include <segmed/backend/cpu.hpp>
#include <segmed/nn/any_network.hpp>
#include <segmed/nn/unet.hpp>
#include <segmed/train/checkpoint.hpp>
#include <segmed/train/optimizer.hpp>

using namespace segmed;
namespace fs = std::filesystem;

namespace {

using F = Features<2, float, Cpu>;

struct Folder {  // gone at the end of the test
  fs::path path;
  Folder() {
    char name[] = "/tmp/segmed_checkpoint_XXXXXX";
    path = ::mkdtemp(name);
  }
  ~Folder() { fs::remove_all(path); }
  std::string operator/(const char* name) const { return (path / name).string(); }
};

struct Parts : UNetParts<F> {
  using Encoder = ConvBlock<F, BatchNorm<F>>;  // has buffers
};
using Net = UNet<Parts>;
Net small_net(std::uint64_t seed = 1, Index classes = 2) {
  Net::Options options;
  options.classes = classes;
  options.widths = {4, 6};
  options.encoder_convs = options.decoder_convs = 1;
  options.dropout = 0.2f;
  options.seed = seed;
  return Net(options);
}

/// A policy with a teacher, a trained part of its own, and plain state that it saves itself.
struct Policy {
  Frozen<Net> teacher;
  Conv<F> extra{2, 2, {.kernel = 1}};
  double threshold = 0.5;
  std::vector<float> history = {};

  void save(Archive& into, const std::string& prefix) const {
    into.texts[prefix + ".threshold"] = number_text(threshold);
    into.keep(prefix + ".history", StoredTensor::of(history));
  }
  void load(const Archive& from, const std::string& prefix) {
    threshold = from.number<double>(prefix + ".threshold");
    history = from.numbers<float>(prefix + ".history");
  }
  static void members(auto& self, auto&& visit) {
    visit("teacher", self.teacher);
    visit("extra", self.extra);
  }
};
struct Both {
  Policy first;
  static void members(auto& self, auto&& visit) { visit("first", self.first); }
};
struct Plain {};  // a policy that keeps nothing

/// One run: everything that a step reads or writes.
struct Run {
  Net net = small_net();
  Policy policy{{small_net()}};
  Group<float, Cpu> trained, teacher;
  Clock<Cpu> clock;
  TrainingState state{.seed = 7};

  Run() : trained(Role::trained, net, policy), teacher(Role::frozen, policy) {}

  void step() {
    clock.set({.seed = state.seed, .step = std::uint32_t(state.step), .rate = 3e-3f});
    const Grid grid{2, 1, 9, 8, 1};
    const Philox random{state.seed, Purpose::sample, 0, std::uint32_t(state.step)};
    std::vector<float> image, target;
    for (Index i = 0; i < grid.size(); ++i) {
      image.push_back(random.normal(i));
      target.push_back(image.back() > 0 ? 1.0f : 0.0f);
      target.push_back(1 - target.back());
    }
    const F x(grid, Storage<float, Cpu>(image));
    const F y(grid.with_channels(2), Storage<float, Cpu>(target));
    const F logits = net(x);
    const F taught = no_grad([&] { return value(softmax(policy.teacher(x))); });
    trained.clear_grads();
    backward(mean_square(softmax(logits), y) + 0.1f * mean_square(softmax(logits), taught) +
             mean_square(softmax(policy.extra(logits)), y));
    policy.history.push_back(float(update(AdamW{}, trained, clock, 12)));
    policy.threshold += 0.1 / double(1 + state.step);
    WeightAverage{.keep = 0.9f}.follow(policy.teacher, net, state.step);
    ++state.step;
    state.seconds += 0.1;
  }
  void save(const std::string& path) {
    Checkpoint checkpoint;
    checkpoint.state = state;
    checkpoint.save("network", net);
    checkpoint.save("policy", policy);
    checkpoint.save_optimizer("optimizer", trained);
    checkpoint.write(path);
  }
  void load(const std::string& path) {
    const Checkpoint checkpoint = Checkpoint::read(path);
    state = checkpoint.state;
    checkpoint.load("network", net);
    checkpoint.load("policy", policy);
    checkpoint.load_optimizer("optimizer", trained);
  }
  /// Every number of the run.
  std::map<std::string, std::vector<float>> numbers() {
    std::map<std::string, std::vector<float>> all;
    for (const auto& inventory : {Inventory(net, "network"), Inventory(policy, "policy")})
      for (const auto& at : inventory.leaves) all[at.path] = at.leaf->stored().as<float>();
    for (std::size_t k = 0; k < trained.states(); ++k)
      all["state" + std::to_string(k)] = trained.state(k).host();
    all["history"] = policy.history;
    all["plain"] = {float(policy.threshold), float(state.step), float(state.seconds)};
    return all;
  }
};

}  // namespace

TEST_SUITE("train/checkpoint") {
  TEST_CASE("training that was resumed equals training that was not, bit for bit") {
    const Folder folder;
    Run whole;
    for (int i = 0; i < 10; ++i) whole.step();
    {
      Run first;
      for (int i = 0; i < 5; ++i) first.step();
      first.save(folder / "last.safetensors");
    }
    Run second;
    const Net other = small_net(99);
    second.net = other;  // whatever stood there before
    second.load(folder / "last.safetensors");
    CHECK(second.state.step == 5);
    for (int i = 0; i < 5; ++i) second.step();
    CHECK(second.numbers() == whole.numbers());
    CHECK(second.state == whole.state);

    Run again;  // one step at a time
    for (int i = 0; i < 10; ++i) {
      Run next;
      if (i > 0) next.load(folder / "one.safetensors");
      next.step();
      next.save(folder / "one.safetensors");
    }
    again.load(folder / "one.safetensors");
    CHECK(again.numbers() == whole.numbers());
  }

  TEST_CASE("a checkpoint at step zero holds no optimizer state and resumes") {
    const Folder folder;
    Run run;
    run.save(folder / "a");
    Run other;
    other.load(folder / "a");
    run.step();
    other.step();
    CHECK(run.numbers() == other.numbers());
  }

  TEST_CASE("loading keeps the Group: values stay in its buffer") {
    Run run;
    Checkpoint checkpoint;
    checkpoint.save("network", small_net(5));
    const float* before = run.net.head.weight.value().read();
    checkpoint.load("network", run.net);
    CHECK(run.net.head.weight.value().read() == before);
    CHECK(run.net.head.weight.value().host() == small_net(5).head.weight.value().host());
  }

  TEST_CASE("an erased network has the tensors of the bare one") {
    Checkpoint bare, erased;
    const Net net = small_net(3);
    bare.save("network", net);
    erased.save("network", AnyNetwork<F>(net));
    CHECK(bare.tensors == erased.tensors);
    CHECK(bare.tensors.count("network.head.weight") == 1);
    CHECK(bare.tensors.count("network.encode.stages.0.units.0.norm.variance") == 1);
    AnyNetwork<F> other(small_net(4));
    bare.load("network", other);
    Checkpoint back;
    back.save("network", other);
    CHECK(back.tensors == bare.tensors);
  }

  TEST_CASE("the card, the state and texts are read back as they were") {
    const Folder folder;
    Checkpoint checkpoint;
    checkpoint.card = {.network = "residual",
                       .options = R"({"widths":[16,32]})",
                       .classes = {"background", "left \"kidney\""},
                       .spacing = {0.1, 1.0 / 3, 5},
                       .normalization = R"({"z_score":true})",
                       .arithmetic = "avx512, auto convolutions"};
    checkpoint.state = {.seed = 18446744073709551615u, .step = 123456789012, .seconds = 1.0 / 3};
    checkpoint.texts["plan"] = "{}";
    checkpoint.write(folder / "a");
    const Checkpoint back = Checkpoint::read(folder / "a");
    CHECK(back.card == checkpoint.card);
    CHECK(back.state == checkpoint.state);
    CHECK(back.texts == checkpoint.texts);
    CHECK(back.text("plan") == "{}");
    CHECK_THROWS_WITH_AS(back.text("plans"), "segmed: archive: there is no entry plans", DataError);
    CHECK_THROWS_WITH_AS(back.number<Index>("plan"),
                         "segmed: archive: entry plan is \"{}\", which is no number of its kind",
                         DataError);
  }

  TEST_CASE("tensors that are missing, left over or of another size are named") {
    Checkpoint checkpoint;
    checkpoint.save("network", small_net());
    Net other = small_net(2, 3);
    const auto before = other.encode.stages[0].units[0].conv.weight.value().host();
    CHECK_THROWS_WITH_AS(checkpoint.load("network", other),
                         "segmed: checkpoint: what was kept does not fit network; 2 different: "
                         "network.head.weight (8 F32 instead of 12 F32), network.head.bias (2 F32 "
                         "instead of 3 F32); build it with the options it was saved with",
                         DataError);
    CHECK(other.encode.stages[0].units[0].conv.weight.value().host() == before);

    Net net = small_net();
    checkpoint.tensors.erase("network.head.bias");
    CHECK_THROWS_WITH_AS(checkpoint.load("network", net),
                         "segmed: checkpoint: what was kept does not fit network; 1 not there: "
                         "network.head.bias; build it with the options it was saved with",
                         DataError);
    checkpoint.keep("network.head.bias", StoredTensor::of(std::vector<float>{1, 2}));
    checkpoint.keep("network.head.boas", StoredTensor::of(std::vector<float>{1, 2}));
    CHECK_THROWS_WITH_AS(checkpoint.load("network", net),
                         "segmed: checkpoint: what was kept does not fit network; 1 left over: "
                         "network.head.boas; build it with the options it was saved with",
                         DataError);
    checkpoint.tensors.erase("network.head.boas");
    checkpoint.load("network", net);
    CHECK(net.head.bias.value().host() == std::vector<float>{1, 2});
    CHECK_THROWS_WITH_AS(
        checkpoint.keep("network.head.bias", StoredTensor::of(std::vector<float>{1, 2})),
        "segmed: archive: tensor network.head.bias is kept twice", Error);
  }

  TEST_CASE("parts save what is not a parameter, at any depth") {
    Both both{{{small_net()}}};
    both.first.threshold = 0.25;
    both.first.history = {1, 2, 3};
    Checkpoint checkpoint;
    checkpoint.save("policy", both);
    CHECK(checkpoint.text("policy.first.threshold") == "0.25");
    CHECK(checkpoint.tensors.count("policy.first.teacher.module.head.weight") == 1);
    Both other{{{small_net(8)}}};
    checkpoint.load("policy", other);
    CHECK(other.first.threshold == 0.25);
    CHECK(other.first.history == both.first.history);
    Plain plain;
    checkpoint.save("plain", plain);
    checkpoint.load("plain", plain);
    CHECK(!checkpoint.has("plain"));
    CHECK(checkpoint.has("policy"));
  }

  TEST_CASE("a file that is no checkpoint is refused") {
    const Folder folder;
    SafeTensors::write(folder / "a", {});
    CHECK_THROWS_WITH_AS(Checkpoint::read(folder / "a"),
                         ("segmed: checkpoint: " + folder / "a" +
                          ": is a safetensors file, but no checkpoint of segmed")
                             .c_str(),
                         FileError);
    TensorFile later;
    later.metadata["segmed.format"] = "3";
    SafeTensors::write(folder / "b", later);
    CHECK_THROWS_WITH_AS(
        Checkpoint::read(folder / "b"),
        ("segmed: checkpoint: " + folder / "b" + ": has format 3, this program reads 2").c_str(),
        FileError);
  }
}
