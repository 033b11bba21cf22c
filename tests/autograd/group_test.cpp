// SPDX-License-Identifier: Apache-2.0
#include <map>

#include "check.hpp"
#include <segmed/autograd/convolution.hpp>
#include <segmed/autograd/group.hpp>
#include <segmed/autograd/normalize.hpp>

TEST_SUITE_BEGIN("autograd/group");
using namespace check;

namespace {

using P = Map2::P;
using B = Buffer<double, Cpu>;
using Names = std::vector<std::string>;

/// A convolution with its normalisation: two parameters, a bias that it does without, statistics.
struct Layer {
  P weight{9 * 2 * 2, {.deviation = 1}};
  P bias;
  P gain{2, {.constant = 1}}, shift{2};
  B mean{2}, variance{2, 1};

  Map2 operator()(const Map2& x) const {
    const Map2 y = conv(x, weight, bias, ConvGeometry<2>::cubic(3));
    return leaky_relu(batch_norm(y, gain, shift, {&mean, &variance, 0.5}), 0.1);
  }
  static void members(auto& self, auto&& visit) {
    visit("weight", self.weight), visit("bias", self.bias);
    visit("gain", self.gain), visit("shift", self.shift);
    visit("mean", self.mean), visit("variance", self.variance);
  }
};
struct Net {
  using Features = Map2;
  std::vector<Layer> layers{std::size_t{2}};
  P last{2 * 2, {.deviation = 0.5}};

  Map2 operator()(const Map2& x) const {
    Map2 y = x;
    for (const auto& layer : layers) y = layer(y);
    return conv(y, last, P(), ConvGeometry<2>::cubic(1));
  }
  static void members(auto& self, auto&& visit) {
    visit("layers", self.layers), visit("last", self.last);
  }
};
/// The same members, built in another order and with other numbers at first.
struct Rebuilt {
  P last{2 * 2, {.deviation = 0.5}};
  std::vector<Layer> layers{std::size_t{2}};
  static void members(auto& self, auto&& visit) {
    visit("last", self.last), visit("layers", self.layers);
  }
};
/// A network that forgot a member.
struct Forgetful {
  Net net;
  P extra{2 * 2, {.deviation = 1}};
  Map2 operator()(const Map2& x) const {
    return net(conv(x, extra, P(), ConvGeometry<2>::cubic(1)));
  }
  static void members(auto& self, auto&& visit) { visit("net", self.net); }
};
struct Policy {
  Frozen<Net> teacher;
  Net second;
  static void members(auto& self, auto&& visit) {
    visit("teacher", self.teacher), visit("second", self.second);
  }
};
static_assert(Module<Net> && Module<Policy> && !Module<int>);

const Grid grid{2, 1, 4, 5, 2};
Map2 input(bool tracked = false) { return random_map<Map2>(grid, 1, tracked); }
/// Something that saves itself, beside a frozen layer and a parameter of its own.
struct Counter {
  float steps = 7;
  void save(Archive& into, const std::string& prefix) const {
    into.keep(prefix + ".steps", StoredTensor::of(std::vector<float>{steps}));
  }
  void load(const Archive& from, const std::string& prefix) {
    steps = from.numbers<float>(prefix + ".steps").at(0);
  }
};
struct Student {
  Frozen<Layer> teacher = Layer();
  Counter counter;
  P own = P(3);
  static void members(auto& self, auto&& visit) {
    visit("teacher", self.teacher), visit("counter", self.counter), visit("own", self.own);
  }
};
struct Mixed {
  Param<float, Cpu> odd = Param<float, Cpu>(3);
  static void members(auto& self, auto&& visit) { visit("odd", self.odd); }
};
const Names names{
    "layers.0.weight", "layers.0.gain", "layers.0.shift", "layers.1.weight", "layers.1.gain",
    "layers.1.shift",  "last"};

}  // namespace

TEST_CASE("an inventory lists leaves and parts that save themselves, each with its path and role") {
  Student student;
  const Inventory inventory(student, "student");
  Names paths;
  for (const auto& at : inventory.leaves) paths.push_back(at.path);
  CHECK(paths == Names{"student.teacher.module.weight", "student.teacher.module.gain",
                       "student.teacher.module.shift", "student.teacher.module.mean",
                       "student.teacher.module.variance", "student.own"});  // no empty bias
  CHECK(inventory.leaves[0].role == Role::frozen);
  CHECK(inventory.leaves[5].role == Role::trained);
  CHECK(inventory.leaves[0].leaf->trainable());
  CHECK_FALSE(inventory.leaves[3].leaf->trainable());
  REQUIRE(inventory.states.size() == 1);
  CHECK(inventory.states[0].path == "student.counter");
  Archive archive;
  inventory.states[0].save(&student.counter, archive, "here");
  student.counter.steps = 0;
  inventory.states[0].load(inventory.states[0].part, archive, "here");
  CHECK(student.counter.steps == 7);
}

TEST_CASE("a group is of one number type") {
  Mixed mixed;
  CHECK_THROWS_WITH_AS(GroupOf<Map2>(Role::trained, mixed),
                       "segmed: Group: odd has numbers of type F32, the others F64; a Group is of "
                       "one type and device",
                       Error);
}

TEST_CASE("a group lays the parameters out flat, in the order of members, padded") {
  Net net;
  initialize(net, 5);
  const auto weight = net.layers[1].weight.value().host();
  GroupOf<Map2> group(Role::trained, net);
  Names seen;
  Index at = 0;
  for (const auto& p : group.params()) {
    seen.push_back(p->name);
    CHECK(p->value.read() == group.values.read() + at);
    CHECK(p->grad.read() == group.grads.read() + at);
    at += GroupOf<Map2>::padded(p->value.size());
  }
  CHECK(seen == names);
  CHECK(group.values.size() == at);
  CHECK(group.grads.size() == at);
  CHECK(at == 48 + 16 + 16 + 48 + 16 + 16 + 16);
  CHECK(net.layers[1].weight.value().host() == weight);
  CHECK(parameter_count(net) == 36 + 2 + 2 + 36 + 2 + 2 + 4);
  // Written through the module, read through the group, and the other way round.
  net.last.value().assign({1, 2, 3, 4});
  CHECK(group.values.host()[160 + 3] == 4);
  group.values.write()[160] = 9;
  CHECK(net.last.value().host()[0] == 9);
}

TEST_CASE("gradients arrive in the flat buffer, and padding stays zero") {
  Net net;
  initialize(net, 5);
  GroupOf<Map2> group(Role::trained, net);
  backward(probe(net(input())));
  const auto grads = group.grads.host();
  Index at = 0;
  for (const auto& p : group.params()) {
    double largest = 0;
    for (Index i = 0; i < GroupOf<Map2>::padded(p->value.size()); ++i) {
      const double g = std::abs(grads[std::size_t(at + i)]);
      if (i < p->value.size())
        largest = std::max(largest, g);
      else
        CHECK(g == 0);
    }
    CAPTURE(p->name);
    CHECK(largest > 0);
    at += GroupOf<Map2>::padded(p->value.size());
  }
  group.clear_grads();
  for (const double g : group.grads.host()) CHECK(g == 0);
}

TEST_CASE("several modules share a group") {
  Net a, b;
  GroupOf<Map2> group(Role::trained, a, b);
  CHECK(group.params().size() == 14);
  CHECK(group.params()[0]->name == "0.layers.0.weight");
  CHECK(group.params()[13]->name == "1.last");
}

TEST_CASE("optimizer state lies where the values lie, zeros at first") {
  Net net;
  GroupOf<Map2> group(Role::trained, net);
  auto& second = group.state(1);
  CHECK(group.states() == 2);
  CHECK(second.size() == group.values.size());
  for (const double v : second.host()) CHECK(v == 0);
  const auto* address = second.read();
  group.state(5);
  CHECK(second.read() == address);
}

TEST_CASE("a parameter in the loss but in no group is a loud error, and the tape is left clean") {
  Forgetful net;
  initialize(net, 5);
  {
    GroupOf<Map2> group(Role::trained, net);
    const auto loss = probe(net(input()));
    CHECK_THROWS_WITH_AS(backward(loss),
                         "segmed: backward: a parameter takes part in the loss but belongs to no "
                         "Group; list it in its module's `members`",
                         Error);
    CHECK(Tape::current()->size() == 0);
    CHECK(net.net.last.state()->open_uses == 0);
    CHECK(net.extra.state()->open_uses == 0);
    for (const double g : group.grads.host()) CHECK(g == 0);
  }
  // The group is gone, so its members are on their own again, by name.
  CHECK_THROWS_WITH_AS(
      backward(probe(net.net(input()))),
      "segmed: backward: net.layers.0.weight takes part in the loss but belongs to no "
      "Group; list it in its module's `members`",
      Error);
}

TEST_CASE("a parameter sits in one group") {
  Net net;
  GroupOf<Map2> group(Role::trained, net);
  CHECK_THROWS_WITH_AS(GroupOf<Map2>(Role::trained, net),
                       "segmed: Group: layers.0.weight already belongs to a Group", Error);
  Net other;
  CHECK_THROWS_WITH_AS(GroupOf<Map2>(Role::trained, other, other),
                       "segmed: Group: 1.layers.0.weight already belongs to a Group", Error);
}

TEST_CASE("on_ready fires once for each parameter, when its earliest use has been pulled") {
  Net net;
  initialize(net, 5);
  GroupOf<Map2> group(Role::trained, net);
  Names order;
  const OnReady note = [&](const ParamUse& p) {
    order.push_back(p.name);
    CHECK(p.open_uses == 0);
  };
  backward(probe(net(input())), note);
  CHECK(order.size() == names.size());
  CHECK(order.front() == "last");
  CHECK(order.back() == "layers.0.weight");
  std::sort(order.begin(), order.end());
  Names sorted = names;
  std::sort(sorted.begin(), sorted.end());
  CHECK(order == sorted);

  SUBCASE("also when the module was used twice") {
    order.clear();
    backward(probe(net(input())) + probe(net(input())), note);
    CHECK(order.size() == names.size());
    CHECK(order.back() == "layers.0.weight");
  }
  SUBCASE("with the complete gradient") {
    std::map<std::string, std::vector<double>> when_ready;
    group.clear_grads();
    backward(probe(net(input())) + 2 * probe(net(input())), [&](const ParamUse& p) {
      for (const auto& q : group.params())
        if (q->name == p.name) when_ready[p.name] = q->grad.host();
    });
    CHECK(when_ready.size() == names.size());
    for (const auto& q : group.params()) CHECK(when_ready[q->name] == q->grad.host());
  }
}

TEST_CASE("a pull that throws leaves no open use behind") {
  Net net;
  GroupOf<Map2> group(Role::trained, net);
  const auto loss = probe(net(input()));
  record({net.last.state()}, [] { fail("test", "the device is gone"); });
  CHECK_THROWS_WITH_AS(backward(loss), "segmed: test: the device is gone", ShapeError);
  for (const auto& p : group.params()) CHECK(p->open_uses == 0);
  CHECK(Tape::current()->size() == 0);
}

TEST_CASE("copies are deep") {
  Net net;
  initialize(net, 5);
  GroupOf<Map2> group(Role::trained, net);
  Net copy = net;
  const auto before = net.last.value().host();
  CHECK(copy.last.value().host() == before);
  copy.last.value().assign({0, 0, 0, 0});
  copy.layers[0].mean.running().assign({7, 7});
  CHECK(net.last.value().host() == before);
  CHECK(net.layers[0].mean.running().host() == std::vector<double>{0, 0});
  CHECK(copy.last.state()->group.expired());
}

TEST_CASE("assignment writes the values and keeps the group") {
  Net net, other;
  initialize(net, 5);
  initialize(other, 6);
  GroupOf<Map2> group(Role::trained, net);
  net = other;
  CHECK(net.last.value().read() == group.values.read() + 160);
  CHECK_FALSE(net.last.state()->group.expired());
  CHECK(net.last.value().host() == other.last.value().host());
  CHECK(net.layers[0].weight.value().host() == other.layers[0].weight.value().host());
}

TEST_CASE("an alias shares parameters and statistics") {
  Net net;
  initialize(net, 5);
  const auto handle = alias(net);
  net.last.value().assign({1, 2, 3, 4});
  net.layers[0].mean.running().assign({7, 8});
  CHECK(handle->last.value().host()[3] == 4);
  CHECK(handle->layers[0].mean.running().host() == std::vector<double>{7, 8});
  CHECK_FALSE(Mode::current().alias);
}

TEST_CASE("starting values depend on the seed and the path alone") {
  Net net;
  Rebuilt rebuilt;
  initialize(net, 5);
  initialize(rebuilt, 5);
  CHECK(net.last.value().host() == rebuilt.last.value().host());
  for (std::size_t i = 0; i < 2; ++i)
    CHECK(net.layers[i].weight.value().host() == rebuilt.layers[i].weight.value().host());
  CHECK(net.layers[0].weight.value().host() != net.layers[1].weight.value().host());
  CHECK(net.layers[0].gain.value().host() == std::vector<double>{1, 1});
  initialize(rebuilt, 6);
  CHECK(net.last.value().host() != rebuilt.last.value().host());
}

TEST_CASE("what is frozen is no part of the trained group and gets no gradient") {
  Policy policy{{Net{}}, Net{}};
  initialize(policy, 5);
  GroupOf<Map2> trained(Role::trained, policy), frozen(Role::frozen, policy);
  CHECK(trained.params().size() == names.size());
  CHECK(trained.params()[0]->name == "second.layers.0.weight");
  CHECK(frozen.params().size() == names.size());
  CHECK(frozen.params()[0]->name == "teacher.module.layers.0.weight");
  CHECK(frozen.grads.size() == 0);
  CHECK(parameter_count(policy) == parameter_count(policy.second));

  const Map2 x = input(true);
  backward(probe(policy.teacher(policy.second(x)) * policy.teacher(x)));
  double largest = 0;
  for (const double g : trained.grads.host()) largest = std::max(largest, std::abs(g));
  CHECK(largest > 0);
  CHECK_FALSE(x.gradient().empty());
}

TEST_CASE("the weights of constant(module) get no gradient, its input does") {
  Net critic;
  initialize(critic, 5);
  CHECK(gradient_error<Map2>(grid, numbers<double>(grid.size(), 1),
                             [&](const Map2& x) { return probe(constant(critic)(x)); }) < 1e-5);
  CHECK(Mode::current().weights);
}

TEST_CASE("ema is one loop once both modules sit in groups") {
  Net student;
  initialize(student, 5);
  Frozen<Net> teacher{student};
  initialize(teacher, 6);
  student.layers[0].mean.running().assign({1, 2});
  const auto slow = teacher.module.last.value().host(), fast = student.last.value().host();
  const auto check_average = [&] {
    const auto now = teacher.module.last.value().host();
    for (std::size_t i = 0; i < now.size(); ++i)
      CHECK(now[i] == doctest::Approx(0.75 * slow[i] + 0.25 * fast[i]));
    CHECK(teacher.module.layers[0].mean.running().host() == std::vector<double>{0.25, 0.5});
    CHECK(teacher.module.layers[1].variance.running().host() == std::vector<double>{1, 1});
  };
  SUBCASE("grouped") {
    Policy policy{{Net{}}, Net{}};
    GroupOf<Map2> trained(Role::trained, student, policy), frozen(Role::frozen, teacher);
    CHECK(ema(teacher, student, 0.75) == 1);
    check_average();
  }
  SUBCASE("on their own") {
    CHECK(ema(teacher, student, 0.75) == Index(names.size()));
    check_average();
  }
  SUBCASE("with caches that expire") {
    const auto before = teacher.module.last.value().version();
    ema(teacher, student, 0.75);
    CHECK(teacher.module.last.value().version() != before);
  }
}

TEST_CASE("ema tells modules that differ apart") {
  Net student;
  Frozen<Net> teacher{student};
  teacher.module.layers.pop_back();
  CHECK_THROWS_WITH_AS(ema(teacher, student, 0.5), "segmed: ema: 4 parameters cannot follow 7",
                       ShapeError);
  teacher.module.layers.push_back(Layer());
  teacher.module.last = P(5);
  CHECK_THROWS_WITH_AS(ema(teacher, student, 0.5),
                       "segmed: ema: a parameter of 4 numbers cannot be followed by one of 5",
                       ShapeError);
}

TEST_CASE("who writes values in a group, or assigns a module, gives them another version") {
  Net net;
  GroupOf<Map2> group(Role::trained, net);
  auto before = net.last.state()->lasting().version;
  const auto changed = [&] {
    return std::exchange(before, net.last.state()->lasting().version) != before;
  };
  CHECK_FALSE(changed());
  net.last.value().assign({1, 2, 3, 4});
  CHECK(changed());
  group.values.write()[160] = 5;  // as an optimizer does
  CHECK(changed());
  CHECK(net.last.state()->lasting().values[0] == 5);
  Net other;
  net = other;
  CHECK(changed());
  CHECK_FALSE(changed());
}

TEST_CASE("a parameter takes values of its own size") {
  Net net;
  CHECK_THROWS_WITH_AS(net.last.value().assign({1, 2}), "segmed: Storage: 2 values for 4 places",
                       ShapeError);
  B small(2), large(3);
  CHECK_THROWS_WITH_AS(small = large, "segmed: Buffer: size 3 cannot replace 2", ShapeError);
}

TEST_SUITE_END();
