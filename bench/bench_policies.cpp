// SPDX-License-Identifier: Apache-2.0
// One step of training with every policy, beside the passes through networks that it needs: a
// policy that takes more than 1.15 times as long makes copies or passes that nobody asked for.
//
//   step_ms, passes_ms   the shortest of the steps and of their passes, which take turns; processor
//                        time of all threads, to which other programs can only add
//   ratio                of these two
//   peak_MiB             what a step holds at most, the policy's own networks included
#include <ctime>

#include "workload.hpp"
#include <segmed/losses/composition.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/region.hpp>
#include <segmed/nn/any_network.hpp>
#include <segmed/nn/dynamic_head.hpp>
#include <segmed/nn/unet.hpp>
#include <segmed/semi/adversarial.hpp>
#include <segmed/semi/copy_paste.hpp>
#include <segmed/semi/cross_consistency.hpp>
#include <segmed/semi/cross_pseudo_supervision.hpp>
#include <segmed/semi/cross_teaching.hpp>
#include <segmed/semi/cube_shuffle.hpp>
#include <segmed/semi/deformation_consistency.hpp>
#include <segmed/semi/dual_task.hpp>
#include <segmed/semi/entropy_minimization.hpp>
#include <segmed/semi/exclusion_training.hpp>
#include <segmed/semi/fix_match.hpp>
#include <segmed/semi/interpolation_consistency.hpp>
#include <segmed/semi/leaf_dice_training.hpp>
#include <segmed/semi/marginal_training.hpp>
#include <segmed/semi/masked_sigmoid.hpp>
#include <segmed/semi/mean_teacher.hpp>
#include <segmed/semi/mutual_consistency.hpp>
#include <segmed/semi/partial_completion.hpp>
#include <segmed/semi/pyramid_consistency.hpp>
#include <segmed/semi/regularized_dropout.hpp>
#include <segmed/semi/self_training.hpp>
#include <segmed/semi/target_adaptive.hpp>
#include <segmed/semi/trainer.hpp>
#include <segmed/semi/transform_consistency.hpp>
#include <segmed/semi/uncertainty_aware_mean_teacher.hpp>
#include <segmed/semi/uni_match.hpp>

namespace {
using namespace segmed;
using F = Features<3, float, Cpu>;
using Parts = UNetParts<F>;
using Plain = UNet<Parts>;
using Net = AnyNetwork<F>;  // so that all policies are compiled for one network
using Loss = Sum<Dice, CrossEntropy>;

constexpr Index classes = 3, cases = 2;

/// How often a batch went through an encoder and through a decoder.
struct Seen {
  Index encoders = 0, decoders = 0;
  bool operator==(const Seen&) const = default;
} seen;

struct CountedDecoder {
  AnyDecoder<F> decode;
  F operator()(const std::vector<F>& levels) const {
    seen.decoders += levels[0].grid().cases;
    return decode(levels);
  }
  static void members(auto& self, auto&& visit) { visit("decode", self.decode); }
};
struct CountedNet {
  using Features = F;
  Plain net;
  std::vector<F> encode(const F& image) const {
    seen.encoders += image.grid().cases;
    return net.encode(image);
  }
  F decode(const std::vector<F>& levels) const {
    seen.decoders += levels[0].grid().cases;
    return net.decode(levels);
  }
  F classify(const F& features) const { return net.classify(features); }
  F features(const F& image) const { return decode(encode(image)); }
  F operator()(const F& image) const { return classify(features(image)); }
  std::vector<F> outputs(const std::vector<F>& levels) const {
    seen.decoders += levels[0].grid().cases;
    return net.outputs(levels);
  }
  std::vector<F> outputs(const F& image) const { return outputs(encode(image)); }
  AnyDecoder<F> branch(const BranchOptions& options) const {
    return CountedDecoder{net.branch(options)};
  }
  static void members(auto& self, auto&& visit) { visit("net", self.net); }
};
/// Without decoders beside its own.
struct CountedDynamicNet {
  using Features = F;
  DynamicUNet<Parts> net;
  F operator()(const F& image) const {
    seen.encoders += image.grid().cases, seen.decoders += image.grid().cases;
    return net(image);
  }
  static void members(auto& self, auto&& visit) { visit("net", self.net); }
};

/// What a step needs, in batches of a few cases.
struct Passes {
  Index students = 0;         // forward, loss and backward
  Index forward = 0;          // forward alone
  Index decoders = 0;         // a decoder forward, its loss and backward
  Index other_decoders = 0;   // one that raises linearly and one that repeats, likewise
  Index decoder_forward = 0;  // a decoder forward alone
  Index heads = 0;            // one that reads what the decoder gives, forward and backward
  Index critics = 0;          // a critic forward and backward
  Index networks = 1;         // that the optimizer moves or that follow one

  Seen seen() const {
    return {cases * (students + forward),
            cases * (students + forward + decoders + 2 * other_decoders + decoder_forward)};
  }
};

UNetOptions<F::dim> options(bool quick, bool deep_supervision) {
  return {.classes = classes,
          .widths = quick ? std::vector<Index>{4, 8, 16} : std::vector<Index>{8, 16, 32, 64},
          .deep_supervision = deep_supervision};
}
Net network(bool quick) { return CountedNet{Plain(options(quick, true))}; }
Net dynamic_network(bool quick) {
  return CountedDynamicNet{DynamicUNet<Parts>(options(quick, false))};
}
/// D_0 and D_1; D_1 has the first organ, or everything.
Samples<F> samples(bool quick, std::uint32_t stream, AnnotatedSet annotated) {
  const Grid grid = quick ? Grid{cases, 16, 16, 16, 1} : Grid{cases, 32, 48, 32, 1};
  Samples<F> out;
  out.image = F(grid, Storage<float, Cpu>(bench::normal_numbers(grid.size(), stream)));
  out.strong = F(grid, Storage<float, Cpu>(bench::normal_numbers(grid.size(), stream + 10)));
  // Boxes of organs, for what looks at pieces and borders.
  std::vector<std::uint8_t> labels(std::size_t(grid.size()));
  for (Index i = 0; i < grid.size(); ++i) {
    const Index x = i % grid.width, y = i / grid.width % grid.height;
    const bool inside = y > grid.height / 4 && y < grid.height * 3 / 4;
    const Index organ = x * 3 / grid.width;
    labels[std::size_t(i)] = inside && annotated.has(organ) ? std::uint8_t(organ) : 0;
  }
  out.labels = labels_of<Cpu>(grid, labels, {annotated, annotated});
  out.cases.assign(std::size_t(cases), "case");
  return out;
}

/// The passes by themselves.
struct Network {
  Net net;
  AnyDecoder<F> decoder, linear, nearest;
  Conv<F> head;
  Critic<F> critic;
  Frozen<Net> slow;
  Samples<F> batch;
  std::vector<F> levels;
  F probabilities;
  Clock<Cpu> clock;
  Group<float, Cpu> group, followers;

  /// Decoders are those that `branched` makes.
  Network(const Net& of, const Net& branched, bool quick)
      : net(of),
        decoder(branched.branch({})),
        linear(branched.branch({.raise = Raise::linear})),
        nearest(branched.branch({.raise = Raise::nearest})),
        head(quick ? 4 : 8, classes - 1, {.kernel = 1}),
        critic(classes + 1),
        slow{net},
        batch(samples(quick, 3, AnnotatedSet::all(classes))),
        group(Role::trained, net, decoder, linear, nearest, head, critic),
        followers(Role::frozen, slow) {
    clock.set({.rate = 1e-3f});
    const auto leaf = [](const F& x) { return F::leaf(x.grid(), x.dense().value.host()); };
    no_grad([&] {
      for (const F& level : branched.encode(batch.image)) levels.push_back(leaf(value(level)));
      probabilities = leaf(value(softmax(net(batch.image))));
    });
  }

  void run(const Passes& passes) {
    const Criterion<Loss> criterion{};
    for (Index i = 0; i < passes.students; ++i) backward(criterion(net(batch.image), batch.labels));
    for (Index i = 0; i < passes.forward; ++i) no_grad([&] { return value(net(batch.image)); });
    const auto fresh = [&] {
      for (const F& level : levels) level.dense().grad->sum = {};
    };
    const auto decoded = [&](const AnyDecoder<F>& by) {
      fresh();
      backward(criterion(by(levels), batch.labels));
    };
    for (Index i = 0; i < passes.decoders; ++i) decoded(decoder);
    for (Index i = 0; i < passes.other_decoders; ++i) decoded(linear), decoded(nearest);
    for (Index i = 0; i < passes.decoder_forward; ++i)
      no_grad([&] { return value(decoder(levels)); });
    for (Index i = 0; i < passes.heads; ++i) fresh(), backward(mean(head(levels[0])));
    for (Index i = 0; i < passes.critics; ++i) {
      probabilities.dense().grad->sum = {};
      backward(mean(critic(probabilities, batch.image)));
    }
    for (Index i = 0; i < passes.networks; ++i) {
      group.clear_grads();
      update(AdamW{}, group, clock);
      ema(slow, net, 0.99);
    }
  }
};

/// A policy in the middle of its run.
struct Case {
  std::string name;
  Passes needs;
  std::function<std::shared_ptr<Learner<F>>(Net& student)> learner;
  bool labels_everywhere = false;
  Net (*student)(bool quick) = network;
};

/// A Trainer and what it refers to.
template <class Policy>
struct Learning {
  Loss loss{};
  AdamW optimizer{};
  Policy policy;
  Trainer<Net, Loss, Policy, AdamW> trainer;

  Learning(Net& net, Policy of)
      : policy(std::move(of)), trainer(net, loss, policy, optimizer, 1, 0, 0) {}
};
template <class Make>
Case policy(const std::string& name, const Passes& needs, Make make,
            bool labels_everywhere = false) {
  return {name, needs,
          [make](Net& net) -> std::shared_ptr<Learner<F>> {
            using Policy = decltype(make(net));
            const auto all = std::make_shared<Learning<Policy>>(net, make(net));
            return {all, &all->trainer};
          },
          labels_everywhere};
}
Case with_student(Net (*student)(bool quick), Case of) {
  of.student = student;
  return of;
}
template <class Policy>
Case plain(const std::string& name, const Passes& needs, Policy of) {
  return policy(name, needs, [of](Net&) { return of; });
}

// Nobody looks at D_1 for its labels here but the policies about them: a student is asked for D_1
// where the policy itself asks. What the table in docs/policies.md says holds for both.
const std::vector<Case>& all_policies() {
  static const std::vector<Case> all = {
      plain("supervised", {.students = 1}, Supervised{}),
      plain("marginal", {.students = 2}, MarginalTraining{}),
      plain("exclusion", {.students = 2}, ExclusionTraining{}),
      plain("target_adaptive", {.students = 2}, TargetAdaptive{}),
      plain("leaf_dice", {.students = 2}, LeafDiceTraining{}),
      plain("masked_sigmoid", {.students = 2}, MaskedSigmoid{}),
      with_student(dynamic_network,
                   plain("dynamic_head", {.students = 2}, MaskedSigmoid{.background = false})),
      policy("partial_completion", {.students = 2, .forward = 1},
             [](Net& net) { return PartialCompletion<Net>{{net}}; }),
      policy("mean_teacher", {.students = 2, .forward = 1},
             [](Net& net) { return MeanTeacher<Net>{{net}}; }),
      policy("uamt", {.students = 2, .forward = 8},
             [](Net& net) { return UncertaintyAwareMeanTeacher<Net>{{net}}; }),
      policy("ict", {.students = 2, .forward = 1},
             [](Net& net) { return InterpolationConsistency<Net>{{net}}; }),
      policy("bcp", {.students = 1, .forward = 1}, [](Net& net) { return CopyPaste<Net>{{net}}; }),
      policy("cube_shuffle", {.students = 3, .forward = 1},
             [](Net& net) { return CubeShuffle<Net>{{net}}; }),
      plain("entropy", {.students = 2}, EntropyMinimization{}),
      plain("transform", {.students = 3}, TransformConsistency{}),
      plain("deformation", {.students = 3}, DeformationConsistency{}),
      plain("fixmatch", {.students = 2, .forward = 1}, FixMatch{}),
      plain("unimatch", {.students = 4, .decoder_forward = 1}, UniMatch{}),
      plain("rdrop", {.students = 2, .decoders = 1}, RegularizedDropout{}),
      plain("urpc", {.students = 2}, PyramidConsistency{}),
      policy("cct", {.students = 1 + 1, .decoders = 2, .decoder_forward = 1, .networks = 2},
             [](Net& net) { return CrossConsistency<Net>(net); }),
      policy("mcnet", {.students = 2, .other_decoders = 2, .networks = 2},
             [](Net& net) { return MutualConsistency<Net>(net); }),
      policy("dtc", {.students = 2, .heads = 2},
             [](Net& net) { return DualTask<Net>::of(net, classes); }),
      policy("dan", {.students = 2, .critics = 3},
             [](Net&) { return Adversarial<Net>::of(classes); }),
      policy("cps", {.students = 4, .networks = 2},
             [](Net& net) { return CrossPseudoSupervision<Net>{with_other_start(net, 2)}; }),
      policy("cross_teaching", {.students = 4, .networks = 2},
             [](Net& net) { return CrossTeaching<Net>{with_other_start(net, 2)}; }),
      policy(
          "self_training", {.students = 2}, [](Net&) { return SelfTraining{.relabelled = 1}; },
          true),
  };
  return all;
}

/// One policy beside its passes.
struct Trial {
  const Case& of;
  Net net;
  std::shared_ptr<Learner<F>> learner;
  Samples<F> full, partial;

  Trial(const Case& which, bool quick)
      : of(which),
        net(of.student(quick)),
        learner(of.learner(net)),
        full(samples(quick, 1, AnnotatedSet::all(classes))),
        partial(samples(
            quick, 2, of.labels_everywhere ? AnnotatedSet::all(classes) : AnnotatedSet{}.with(1))) {
  }
  double step() { return learner->step(full, partial, 0.6, 1).total; }
};

/// The shortest of all runs so far, in seconds.
struct Times {
  double step = INFINITY, passes = INFINITY, peak = 0;

  std::map<std::string, double> found() const {
    return {{"step_ms", 1e3 * step},
            {"passes_ms", 1e3 * passes},
            {"ratio", step / passes},
            {"peak_MiB", peak}};
  }
};

bench::Workload workload(const Case& of) {
  const auto times = std::make_shared<Times>();
  const auto prepare = [&of, times]() -> bench::Run {
    *times = {};
    const std::size_t before = Memory::current().used();
    const auto trial = std::make_shared<Trial>(of, false);
    Memory::current().forget_peak();
    trial->step(), trial->step();
    times->peak = double(Memory::current().peak() - before) / (1 << 20);
    const auto alone = std::make_shared<Network>(of.student(false), network(false), false);
    alone->run(of.needs);
    return [&of, times, trial, alone] {
      const auto processor_seconds = [](auto work) {
        const std::clock_t start = std::clock();
        work();
        return double(std::clock() - start) / CLOCKS_PER_SEC;
      };
      const double wall = bench::seconds_of(
          [&] { times->step = std::min(times->step, processor_seconds([&] { trial->step(); })); });
      times->passes = std::min(times->passes, processor_seconds([&] { alone->run(of.needs); }));
      return wall;
    };
  };
  return {"BM_Policy/" + of.name, prepare, 0, 0, [times] { return times->found(); }};
}

/// Every policy: one step is finite, and runs networks as often as said.
std::vector<bench::Check> checks() {
  std::vector<bench::Check> found;
  for (const Case& of : all_policies()) {
    Trial trial(of, true);
    seen = {};
    found.push_back({of.name + "'s loss", std::isfinite(trial.step()) ? 0.0 : 1.0, 0});
    const Seen wanted = of.needs.seen();
    found.push_back({of.name + "'s number of encoded cases",
                     std::abs(double(seen.encoders - wanted.encoders)), 0});
    found.push_back({of.name + "'s number of decoded cases",
                     std::abs(double(seen.decoders - wanted.decoders)), 0});
  }
  return found;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<bench::Workload> workloads;
  for (const Case& of : all_policies()) workloads.push_back(workload(of));
  return bench::run_program(argc, argv, checks, std::move(workloads));
}
