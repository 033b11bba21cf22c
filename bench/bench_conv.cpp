// SPDX-License-Identifier: Apache-2.0
// Convolutions: by themselves, or beside oneDNN's, which take turns with them in one process.
// SEGMED_CONV and SEGMED_ISA force segmed's algorithm and instruction set, but for the rows that
// name an algorithm. With several threads set OMP_WAIT_POLICY=passive: else oneDNN's spin on into
// segmed's turn.
//   bench_conv THREADS [ROUNDS [PART]]   beside oneDNN: medians of the ratios of neighbours, of
//                                        the shapes or rows whose names contain PART
//   bench_conv --pairs                   reads lines "NAME THREADS", answers "MS PEER SHARE" to
//                                        each: one turn of both
//   bench_conv --peer                    the peer's name and version
//   bench_conv ...                       without oneDNN; see workload.hpp
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <omp.h>
#include <string>
#include <vector>

#include "peer_onednn.hpp"
#include "workload.hpp"
#include <segmed/autograd/convolution.hpp>
#include <segmed/backend/convolution.hpp>
#include <segmed/backend/cpu.hpp>

namespace {
using namespace segmed;
using namespace bench;
using F = Features<3, float, Cpu>;

// What SEGMED_CONV says, for the rows that name no algorithm.
const ConvolutionMode asked = convolution_mode();

/// A row's convolution by segmed.
struct Ours {
  Pass pass;
  ConvolutionMode mode;
  bool inference, transposed;
  Window w;
  Numbers fine, coarse, weight, grad, bias;
  std::vector<double> moments;
  Sink<float> to_fine, to_coarse;
  Feed<float> from_fine, from_coarse;
  F input;  // what else inference takes
  F::P held_weight, held_bias;
  ConvGeometry<3> geometry = ConvGeometry<3>::cubic(3);

  explicit Ours(const ConvCase& of)
      : pass(of.pass), mode(of.mode), inference(of.inference), transposed(of.shape.transposed) {
    const ConvShape& s = of.shape;
    w.fine = {1, s.fine(0), s.fine(1), s.fine(2), s.transposed ? s.outputs : s.inputs};
    w.coarse = {1, s.coarse(0), s.coarse(1), s.coarse(2), s.transposed ? s.inputs : s.outputs};
    for (int a = 0; a < 3; ++a)
      w.kernel[a] = s.kernel, w.stride[a] = s.stride, w.padding[a] = s.padding;
    fine = numbers(w.fine.size()), coarse = numbers(w.coarse.size());
    weight = numbers(w.weights()), grad.resize(weight.size());
    bias = numbers(std::max(s.inputs, s.outputs));
    moments.resize(std::size_t(2 * std::max(s.inputs, s.outputs)));
    to_fine.out[0] = fine.data(), to_fine.grid[0] = w.fine;
    to_coarse.out[0] = coarse.data(), to_coarse.grid[0] = w.coarse;
    Sink<float>& forward = s.transposed ? to_fine : to_coarse;
    forward.bias = bias.data();
    if (s.kernel > 1) forward.moments = moments.data();  // nothing normalises a head's logits
    from_fine.values.lane[0].grid = w.fine, from_fine.values.lane[0].x = fine.data();
    from_coarse.values.lane[0].grid = w.coarse, from_coarse.values.lane[0].x = coarse.data();
    if (!inference) return;
    input = F(w.fine, Storage<float, Cpu>(std::vector<float>(fine.begin(), fine.end())));
    held_weight = F::P(Index(weight.size())), held_bias = F::P(Index(bias.size()));
    held_weight.value().assign(std::vector<float>(weight.begin(), weight.end()));
    held_bias.value().assign(std::vector<float>(bias.begin(), bias.end()));
  }
  bool down() const { return (pass == forward_pass) != transposed; }
  void run() {
    if (mode != ConvolutionMode::automatic) set_convolution_mode(mode);
    if (inference)
      no_grad([&] { return conv(input, held_weight, held_bias, geometry); });
    else if (pass == weights_pass)
      Cpu::weigh(w, from_fine, from_coarse, grad.data());
    else if (down())
      Cpu::gather(w, from_fine, weight.data(), to_coarse);
    else
      Cpu::scatter(w, from_coarse, weight.data(), to_fine);
    if (mode != ConvolutionMode::automatic) set_convolution_mode(asked);
  }
  // Runs once: the relative error of some of its numbers, in the square mean, against the
  // plain kernels in double.
  double error() {
    const auto wide = [](const Numbers& x) { return std::vector<double>(x.begin(), x.end()); };
    std::vector<double> all_fine = wide(fine), all_coarse = wide(coarse);
    const std::vector<double> weights = wide(weight), biases = wide(bias);
    std::vector<double> gradient(grad.size());
    std::fill(grad.begin(), grad.end(), 0.0f);
    if (inference) {
      const auto made = no_grad([&] { return conv(input, held_weight, held_bias, geometry); });
      const std::vector<float> values = made.dense().value.host();
      std::copy(values.begin(), values.end(), coarse.begin());
    } else {
      run();
    }
    Feed<double> of_fine, of_coarse;
    of_fine.values.lane[0].grid = w.fine, of_fine.values.lane[0].x = all_fine.data();
    of_coarse.values.lane[0].grid = w.coarse, of_coarse.values.lane[0].x = all_coarse.data();
    Sink<double> sink;
    sink.grid[0] = down() ? w.coarse : w.fine;
    sink.out[0] = down() ? all_coarse.data() : all_fine.data();
    if (pass == forward_pass) sink.bias = biases.data();
    const bool weighs = pass == weights_pass;
    const Index rows = weighs ? w.taps() * w.fine.channels : sink.grid[0].rows();
    const Index columns = weighs ? w.coarse.channels : sink.grid[0].channels;
    const Numbers& made = weighs ? grad : down() ? coarse : fine;
    const std::vector<double>& exact = weighs ? gradient : down() ? all_coarse : all_fine;
    double difference = 0, size = 0;
    unsigned r = 7;
    for (int sample = 0; sample < (weighs ? 24 : 400); ++sample) {
      r = r * 1664525u + 1013904223u;
      const Index item = Index(r >> 4) % (rows * columns);
      const Index row = item / columns, c = item % columns;
      if (weighs) {
        gradient[std::size_t(item)] = 0;  // which the kernel adds to
        WeighKernel<double>{w, of_fine, of_coarse, gradient.data()}(row, c);
      } else if (down()) {
        GatherKernel<double>{w, of_fine, weights.data(), sink}(row, c);
      } else {
        ScatterKernel<double>{w, of_coarse, weights.data(), sink}(row, c);
      }
      const double truth = exact[std::size_t(item)], off = made[std::size_t(item)] - truth;
      difference += off * off, size += truth * truth;
    }
    return std::sqrt(difference / size);
  }
};

/// Fast sums may be further from the truth than plain ones; precise ones may not.
Check check(const ConvCase& c, Ours& ours) {
  const ConvolutionMode mode = c.mode == ConvolutionMode::automatic ? asked : c.mode;
  if (mode == ConvolutionMode::automatic) return {c.name(), ours.error(), 5e-5};
  if (mode == ConvolutionMode::direct) return {c.name(), ours.error(), 5e-6};
  ConvCase plain = c;
  plain.mode = ConvolutionMode::direct;
  return {c.name(), ours.error(), Ours(plain).error()};
}

std::vector<Workload> workloads(const std::vector<ConvCase>& cases) {
  std::vector<Workload> all;
  for (const ConvCase& c : cases)
    all.push_back({c.name(),
                   [c] {
                     const auto ours = std::make_shared<Ours>(c);
                     return [ours] { return seconds_of([&] { ours->run(); }); };
                   },
                   c.shape.flops(),
                   c.shape.bytes(),
                   {},
                   [c] {
                     Ours ours(c);
                     return std::vector<Check>{check(c, ours)};
                   }});
  return all;
}

/// A row with its peer, warmed up and checked.
class Pair {
 public:
  Pair(const ConvCase& c, int threads)
      : case_(c), ours_((prepare(threads), c)), peer_(c.shape, c.pass) {
    checked_ = check(c, ours_);
    refuse_wrong({checked_});
  }
  /// A turn: seconds of a run of each.
  std::pair<double, double> turn() {
    const int runs = std::max(1, int(2e10 / case_.shape.flops()));
    const double theirs = peer_.seconds(runs);
    const double mine = seconds_of([&] {
      for (int i = 0; i < runs; ++i) ours_.run();
    });
    return {mine / runs, theirs / runs};
  }
  double error() const { return checked_.error; }
  double share(double seconds) const {
    return roofline().share(case_.shape.flops(), case_.shape.bytes(), seconds);
  }

 private:
  static void prepare(int threads) {
    set_threads(threads);
    omp_set_num_threads(threads);
    roofline();
  }
  ConvCase case_;
  Ours ours_;
  OneDnnLayouts peer_;
  Check checked_;
};

int serve_pairs(const std::vector<ConvCase>& cases) {
  std::unique_ptr<Pair> pair;
  std::string ready;
  for (std::string line; std::getline(std::cin, line);) {
    const Request request(line);
    const auto found = std::find_if(cases.begin(), cases.end(),
                                    [&](const ConvCase& c) { return c.name() == request.name; });
    if (found == cases.end()) {
      std::printf("- no such workload\n");
    } else {
      if (ready != line) pair.reset(), pair = std::make_unique<Pair>(*found, request.threads);
      ready = line;
      const auto [ours, theirs] = pair->turn();
      std::printf("%.6g %.6g %.4g\n", ours * 1e3, theirs * 1e3, pair->share(ours));
    }
    std::fflush(stdout);
  }
  return 0;
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}
int print_pairs(const std::vector<ConvCase>& cases, int threads, int rounds, const char* part) {
  std::printf(
      "kernels %s, %s convolutions, %d threads; ms (GFLOP/s), ratio = best layout of %s / "
      "segmed\n",
      kernels<float>().set, name_of(asked), threads, onednn_version().c_str());
  for (const ConvCase& c : cases) {
    if (!std::strstr(c.shape.name, part) && !std::strstr(c.name().c_str(), part)) continue;
    Pair pair(c, threads);
    std::vector<double> mine, theirs, ratio;
    for (int r = 0; r < rounds; ++r) {
      const auto [ours, peer] = pair.turn();
      mine.push_back(ours), theirs.push_back(peer), ratio.push_back(peer / ours);
    }
    std::printf("%-42s segmed %8.3f (%5.1f)  oneDNN %8.3f (%5.1f)  ratio %.2f  error %.1e\n",
                c.name().c_str(), median(mine) * 1e3, c.shape.flops() / median(mine) * 1e-9,
                median(theirs) * 1e3, c.shape.flops() / median(theirs) * 1e-9, median(ratio),
                pair.error());
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<ConvCase> cases = conv_cases();
  const std::string first = argc > 1 ? argv[1] : "";
  if (first == "--peer") return std::printf("%s\n", onednn_version().c_str()), 0;
  if (first == "--pairs") return serve_pairs(cases);
  if (!first.empty() && first[0] != '-')
    return print_pairs(cases, count_of(argv[0], "THREADS", argv[1]),
                       argc > 2 ? count_of(argv[0], "ROUNDS", argv[2]) : 7,
                       argc > 3 ? argv[3] : "");
  return run_program(
      argc, argv, [] { return std::vector<Check>{}; }, workloads(cases));
}
