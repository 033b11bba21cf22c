// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include <doctest/doctest.h>

#include <segmed/autograd/scalar.hpp>
#include <segmed/backend/cpu.hpp>
#include <segmed/train/optimizer.hpp>

using namespace segmed;

namespace {

using F = Features<2, double, Cpu>;

struct Two {  // parameters of odd sizes, so that the group has gaps between them
  using Features = F;
  F::P first{5}, second{18};
  static void members(auto& self, auto&& visit) {
    visit("first", self.first);
    visit("second", self.second);
  }
};
static_assert(OptimizerFor<Sgd, F> && OptimizerFor<AdamW, F>);
struct NoRate {
  void step(Group<double, Cpu>&, const Clock<Cpu>&) const {}
};
static_assert(!OptimizerFor<NoRate, F>);

std::vector<double> numbers(Index size, std::uint32_t stream) {
  std::vector<double> out;
  for (Index i = 0; i < size; ++i)
    out.push_back(double(Philox{3, Purpose::noise, stream, 0}.normal(i)));
  return out;
}
/// The gradient of a quadratic bowl, another one for each step.
double slope(double x, Index i, int step) {
  return (0.5 + 0.1 * double(i)) * x - 0.3 * double((i + step) % 4);
}
void fill_gradients(Two& net, int step) {
  for (auto* p : {&net.first, &net.second}) {
    auto x = p->value().host();
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = slope(x[i], Index(i), step);
    p->grad().assign(x);
  }
}
std::vector<double> values(const Two& net) {
  auto all = net.first.value().host();
  for (const double x : net.second.value().host()) all.push_back(x);
  return all;
}
Two start() {
  Two net;
  net.first.value().assign(numbers(5, 1));
  net.second.value().assign(numbers(18, 2));
  return net;
}
float rate_at(float rate, int step) { return rate * (1 - 0.03f * float(step)); }

template <class O>
std::vector<double> trace(const O& optimizer, int steps) {
  Two net = start();
  Group<double, Cpu> group(Role::trained, net);
  Clock<Cpu> clock;
  for (int step = 0; step < steps; ++step) {
    clock.set({.step = std::uint32_t(step), .rate = rate_at(optimizer.rate, step)});
    fill_gradients(net, step);
    optimizer.step(group, clock);
  }
  return values(net);
}

/// What PyTorch makes of the same 20 steps; empty without PyTorch.
std::vector<double> torch_trace(const std::string& optimizer, float rate) {
  std::ostringstream script;
  script.precision(17);
  script << "import torch\nt=torch.tensor\nd=torch.float64\n";
  int p = 0;
  for (const Index size : {5, 18}) {
    script << "p" << p << "=t([";
    for (const double x : numbers(size, std::uint32_t(++p))) script << x << ',';
    script << "],dtype=d,requires_grad=True)\n";
  }
  script << "ps=[p0,p1]\no=" << optimizer << "\nrates=[";
  for (int step = 0; step < 20; ++step) script << double(rate_at(rate, step)) << ',';
  script << "]\nfor s in range(20):\n"
            " for g in o.param_groups: g['lr']=rates[s]\n"
            " for p in ps:\n"
            "  i=torch.arange(p.numel(),dtype=d)\n"
            "  p.grad=((0.5+0.1*i)*p-0.3*((i+s)%4)).detach()\n"
            " o.step()\n"
            "for p in ps:\n for x in p.tolist(): print(repr(x))\n";
  const std::string command = "/usr/bin/python3 - 2>/dev/null <<'END'\n" + script.str() + "END\n";
  std::vector<double> out;
  if (FILE* pipe = ::popen(command.c_str(), "r")) {
    for (double x = 0; std::fscanf(pipe, "%lf", &x) == 1;) out.push_back(x);
    ::pclose(pipe);
  }
  return out;
}
void check_parity(const std::vector<double>& ours, const std::vector<double>& theirs) {
  if (theirs.empty()) {
    MESSAGE("skipped: no PyTorch under /usr/bin/python3");
    return;
  }
  REQUIRE(ours.size() == theirs.size());
  double worst = 0;
  for (std::size_t i = 0; i < ours.size(); ++i)
    worst = std::max(worst, std::abs(ours[i] - theirs[i]));
  CHECK(worst <= 1e-9);
}
std::string exact(float x) {
  std::ostringstream text;
  text.precision(17);
  text << double(x);
  return text.str();
}

}  // namespace

TEST_SUITE("train/optimizer") {
  TEST_CASE("twenty steps of Sgd are those of PyTorch") {
    for (const bool nesterov : {false, true}) {
      const Sgd sgd{.rate = 0.05f, .momentum = 0.9f, .decay = 1e-2f, .nesterov = nesterov};
      check_parity(trace(sgd, 20), torch_trace("torch.optim.SGD(ps,lr=1,momentum=" + exact(0.9f) +
                                                   ",weight_decay=" + exact(1e-2f) +
                                                   (nesterov ? ",nesterov=True)" : ")"),
                                               0.05f));
    }
  }

  TEST_CASE("twenty steps of AdamW are those of PyTorch") {
    const AdamW adam{.rate = 0.05f, .decay = 0.1f};
    check_parity(trace(adam, 20), torch_trace("torch.optim.AdamW(ps,lr=1,betas=(" + exact(0.9f) +
                                                  "," + exact(0.999f) + "),eps=" + exact(1e-8f) +
                                                  ",weight_decay=" + exact(0.1f) + ")",
                                              0.05f));
  }

  TEST_CASE("the same step has the same bits for any number of threads") {
    const int before = threads();
    set_threads(1);
    const auto one = trace(AdamW{.rate = 0.05f}, 5);
    set_threads(4);
    CHECK(trace(AdamW{.rate = 0.05f}, 5) == one);
    set_threads(before);
  }

  TEST_CASE("a loss falls to its minimum") {
    Two net = start();
    Group<double, Cpu> group(Role::trained, net);
    Clock<Cpu> clock;
    for (int step = 0; step < 300; ++step) {
      clock.set({.step = std::uint32_t(step), .rate = 0.05f});
      fill_gradients(net, 0);
      AdamW{.decay = 0}.step(group, clock);
    }
    CHECK(net.first.value().host()[3] == doctest::Approx(0.9 / 0.8).epsilon(1e-2));
  }

  TEST_CASE("clipping scales to the norm and returns what it was") {
    Two net = start();
    Group<double, Cpu> group(Role::trained, net);
    fill_gradients(net, 1);
    double square = 0;
    for (auto* p : {&net.first, &net.second})
      for (const double g : p->grad().host()) square += g * g;
    const double norm = std::sqrt(square);
    const auto direction = net.first.grad().host();
    CHECK(clip_gradients(group, 2 * norm) == doctest::Approx(norm).epsilon(1e-14));
    CHECK(net.first.grad().host() == direction);
    CHECK(clip_gradients(group, norm / 4) == doctest::Approx(norm).epsilon(1e-14));
    CHECK(net.first.grad().host()[2] == doctest::Approx(direction[2] / 4).epsilon(1e-14));
    CHECK(clip_gradients(group, 100) == doctest::Approx(norm / 4).epsilon(1e-14));
    CHECK_THROWS_WITH_AS(clip_gradients(group, 0),
                         "segmed: clip_gradients: max_norm is 0; give a positive number",
                         ConfigError);
  }

  TEST_CASE("a gradient that is not finite leaves weights and moments untouched") {
    for (const double bad : {std::nan(""), HUGE_VAL, 1e200}) {  // 1e200 has no square
      Two net = start();
      Group<double, Cpu> group(Role::trained, net);
      Clock<Cpu> clock;
      clock.set({.rate = 0.1f});
      fill_gradients(net, 0);
      CHECK(std::isfinite(update(AdamW{}, group, clock, 1)));
      const auto before = values(net), moments = group.state(0).host();
      auto grads = net.second.grad().host();
      grads[17] = bad;
      net.second.grad().assign(grads);
      CHECK(!std::isfinite(update(AdamW{}, group, clock, 1)));
      CHECK(values(net) == before);
      CHECK(group.state(0).host() == moments);
      CHECK(group.grads.host() == std::vector<double>(std::size_t(group.grads.size()), 0));
    }
  }

  TEST_CASE("a group of frozen weights has no step") {
    Frozen<Two> frozen{start()};
    Group<double, Cpu> group(Role::frozen, frozen);
    const Clock<Cpu> clock;
    CHECK_THROWS_WITH_AS(Sgd{}.step(group, clock),
                         "segmed: Sgd: a group of frozen weights has no step", Error);
    CHECK_THROWS_WITH_AS(AdamW{}.step(group, clock),
                         "segmed: AdamW: a group of frozen weights has no step", Error);
  }

  TEST_CASE("an average follows quickly at first and slowly later") {
    const WeightAverage average{.keep = 0.99f};
    CHECK(average.keep_at(0) == doctest::Approx(0.1));
    CHECK(average.keep_at(8) == doctest::Approx(0.5));
    CHECK(average.keep_at(100000) == double(0.99f));
    Two net = start();
    Frozen<Two> slow{net};
    std::vector<double> expected = net.first.value().host();
    for (Index step = 0; step < 3; ++step) {
      net.first.value().assign(numbers(5, std::uint32_t(10 + step)));
      const auto now = net.first.value().host();
      for (std::size_t i = 0; i < now.size(); ++i)
        expected[i] = average.keep_at(step) * expected[i] + (1 - average.keep_at(step)) * now[i];
      average.follow(slow, net, step);
    }
    const auto got = slow.module.first.value().host();
    for (std::size_t i = 0; i < got.size(); ++i)
      CHECK(got[i] == doctest::Approx(expected[i]).epsilon(1e-12));
  }
}
