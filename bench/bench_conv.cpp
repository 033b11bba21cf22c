// SPDX-License-Identifier: Apache-2.0
// Convolutions beside oneDNN's, run in turns in one process: medians of the ratios of neighbours.
// SEGMED_CONV and SEGMED_ISA force segmed's algorithm and instruction set. With several threads set
// OMP_WAIT_POLICY=passive: else oneDNN's spin on into segmed's turn.
//   bench_conv [--json FILE] [threads [rounds [part of a shape's name]]]
//   bench_conv --check   the results alone, without times and without oneDNN
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dnnl.hpp>
#include <omp.h>
#include <string>
#include <unordered_map>
#include <vector>

#include "roofline.hpp"
#include <segmed/backend/convolution.hpp>
#include <segmed/backend/cpu.hpp>

namespace {
using namespace segmed;
using Dims = dnnl::memory::dims;
using Tag = dnnl::memory::format_tag;

struct Shape {
  const char* name;
  Index inputs, outputs, extent[3], kernel, stride, padding;
  bool transposed;
  Index coarse(int a) const {
    return transposed ? extent[a] : (extent[a] + 2 * padding - kernel) / stride + 1;
  }
  Index fine(int a) const { return transposed ? extent[a] * stride : extent[a]; }
  // As `compare` names it.
  std::string row(int pass) const {
    const char* const kinds[] = {"BM_Conv3d", "BM_Conv3dStride2", "BM_ConvT3d", "BM_Conv3d1x1"};
    const char* const passes[] = {"Fwd/", "BwdData/", "BwdWeights/"};
    std::string size = std::to_string(extent[0]);
    for (int a = 1; a < 3; ++a)
      if (extent[1] != extent[0]) size += "x" + std::to_string(extent[a]);
    std::string text = kinds[transposed ? 2 : kernel == 1 ? 3 : stride == 2 ? 1 : 0];
    text += passes[pass] + std::to_string(inputs) + "x" + std::to_string(outputs) + "/" + size;
    if (transposed) return text + "/k2s2";
    return kernel == 3 && stride == 1 ? text + "/k3" : text;
  }
  // Of the direct algorithm, whichever is used.
  double flops() const {
    return 2.0 * double(inputs * outputs * kernel * kernel * kernel) *
           double(coarse(0) * coarse(1) * coarse(2));
  }
};

using bench::seconds_of;

// Memory as tensors have it.
template <class T>
struct Pooled {
  using value_type = T;
  T* allocate(std::size_t n) { return static_cast<T*>(Memory::current().allocate(n * sizeof(T))); }
  void deallocate(T* p, std::size_t n) { Memory::current().release(p, n * sizeof(T)); }
  friend bool operator==(const Pooled&, const Pooled&) { return true; }
};
using Numbers = std::vector<float, Pooled<float>>;

Numbers numbers(Index n) {
  Numbers x(static_cast<std::size_t>(n));
  unsigned r = 1;
  for (float& v : x) r = r * 1664525u + 1013904223u, v = float(r >> 9) / 8388608.f - 0.5f;
  return x;
}

// One of oneDNN's three passes in one layout; empty where it has none.
struct Peer {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::vector<dnnl::primitive> primitives;
  std::vector<std::unordered_map<int, dnnl::memory>> arguments;

  void fill(dnnl::memory& m) {
    const std::size_t n = m.get_desc().get_size() / sizeof(float);
    const Numbers x = numbers(Index(n));
    std::memcpy(m.get_data_handle(), x.data(), n * sizeof(float));
  }
  template <class P, class D>
  void add(const D& description, std::vector<std::pair<int, dnnl::memory::desc>> list) {
    std::unordered_map<int, dnnl::memory> given;
    for (auto& [id, desc] : list) {
      dnnl::memory m(desc, engine);
      fill(m);
      given.emplace(id, m);
    }
    primitives.push_back(P(description));
    arguments.push_back(std::move(given));
  }
  Peer(const Shape& s, int pass, Tag tag) {
    using namespace dnnl;
    const auto f32 = memory::data_type::f32;
    Dims in{1, s.inputs}, out{1, s.outputs};
    for (int a = 0; a < 3; ++a) {
      in.push_back(s.extent[a]);
      out.push_back(s.transposed ? s.fine(a) : s.coarse(a));
    }
    const memory::desc x(in, f32, s.inputs == 1 && tag == Tag::any ? Tag::ncdhw : tag);
    const memory::desc y(out, f32, tag);
    const memory::desc w(Dims{s.outputs, s.inputs, s.kernel, s.kernel, s.kernel}, f32, Tag::any);
    const memory::desc b(Dims{s.outputs}, f32, Tag::any);
    const Dims stride{s.stride, s.stride, s.stride}, pad{s.padding, s.padding, s.padding};
    const auto make = [&](auto forward, auto data, auto weights, auto algorithm) {
      using F = decltype(forward);
      using D = decltype(data);
      using W = decltype(weights);
      const typename F::primitive_desc fd(
          {prop_kind::forward_training, algorithm, x, w, b, y, stride, pad, pad}, engine);
      if (pass == 0) {
        add<F>(fd, {{DNNL_ARG_SRC, fd.src_desc()},
                    {DNNL_ARG_WEIGHTS, fd.weights_desc()},
                    {DNNL_ARG_BIAS, fd.bias_desc()},
                    {DNNL_ARG_DST, fd.dst_desc()}});
      } else if (pass == 1) {
        const typename D::primitive_desc dd({algorithm, x, w, y, stride, pad, pad}, engine, fd);
        add<D>(dd, {{DNNL_ARG_DIFF_SRC, dd.diff_src_desc()},
                    {DNNL_ARG_WEIGHTS, dd.weights_desc()},
                    {DNNL_ARG_DIFF_DST, dd.diff_dst_desc()}});
      } else {
        const typename W::primitive_desc wd({algorithm, x, w, b, y, stride, pad, pad}, engine, fd);
        add<W>(wd, {{DNNL_ARG_SRC, wd.src_desc()},
                    {DNNL_ARG_DIFF_WEIGHTS, wd.diff_weights_desc()},
                    {DNNL_ARG_DIFF_BIAS, wd.diff_bias_desc()},
                    {DNNL_ARG_DIFF_DST, wd.diff_dst_desc()}});
      }
    };
    if (s.transposed)
      make(deconvolution_forward{}, deconvolution_backward_data{}, deconvolution_backward_weights{},
           algorithm::deconvolution_direct);
    else
      make(convolution_forward{}, convolution_backward_data{}, convolution_backward_weights{},
           algorithm::convolution_direct);
  }
  void run() {
    for (std::size_t i = 0; i < primitives.size(); ++i) primitives[i].execute(stream, arguments[i]);
    stream.wait();
  }
};

struct Ours {
  Window w;
  bool transposed;
  Numbers fine, coarse, weight, grad, bias;
  std::vector<double> moments;
  Sink<float> to_fine, to_coarse;
  Feed<float> from_fine, from_coarse;

  explicit Ours(const Shape& s) : transposed(s.transposed) {
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
  }
  bool down(int pass) const { return (pass == 0) != transposed; }
  void run(int pass) {
    if (pass == 2)
      Cpu::weigh(w, from_fine, from_coarse, grad.data());
    else if (down(pass))
      Cpu::gather(w, from_fine, weight.data(), to_coarse);
    else
      Cpu::scatter(w, from_coarse, weight.data(), to_fine);
  }
  // Runs a pass once: the relative error of some of its numbers, in the square mean, against the
  // plain kernels in double.
  double error(int pass) {
    const auto wide = [](const Numbers& x) { return std::vector<double>(x.begin(), x.end()); };
    std::vector<double> all_fine = wide(fine), all_coarse = wide(coarse);
    const std::vector<double> weights = wide(weight), biases = wide(bias);
    std::vector<double> gradient(grad.size());
    std::fill(grad.begin(), grad.end(), 0.0f);
    run(pass);
    Feed<double> of_fine, of_coarse;
    of_fine.values.lane[0].grid = w.fine, of_fine.values.lane[0].x = all_fine.data();
    of_coarse.values.lane[0].grid = w.coarse, of_coarse.values.lane[0].x = all_coarse.data();
    Sink<double> sink;
    sink.grid[0] = down(pass) ? w.coarse : w.fine;
    sink.out[0] = down(pass) ? all_coarse.data() : all_fine.data();
    if (pass == 0) sink.bias = biases.data();
    const bool weighs = pass == 2;
    const Index rows = weighs ? w.taps() * w.fine.channels : sink.grid[0].rows();
    const Index columns = weighs ? w.coarse.channels : sink.grid[0].channels;
    const Numbers& made = weighs ? grad : down(pass) ? coarse : fine;
    const std::vector<double>& exact = weighs ? gradient : down(pass) ? all_coarse : all_fine;
    double difference = 0, size = 0;
    unsigned r = 7;
    for (int sample = 0; sample < (weighs ? 24 : 400); ++sample) {
      r = r * 1664525u + 1013904223u;
      const Index item = Index(r >> 4) % (rows * columns);
      const Index row = item / columns, c = item % columns;
      if (weighs) {
        gradient[std::size_t(item)] = 0;  // which the kernel adds to
        WeighKernel<double>{w, of_fine, of_coarse, gradient.data()}(row, c);
      } else if (down(pass)) {
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

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const char* json = nullptr;
  if (argc > 2 && std::string(argv[1]) == "--json") json = argv[2], argc -= 2, argv += 2;
  const bool check = argc > 1 && std::string(argv[1]) == "--check";
  if (check) --argc, ++argv;
  std::string rows;
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1, rounds = argc > 2 ? std::atoi(argv[2]) : 7;
  const char* only = argc > 3 ? argv[3] : "";
  set_threads(threads);
  const bench::Roofline peak = json ? bench::roofline() : bench::Roofline{};
  omp_set_num_threads(threads);
  std::printf("kernels %s, %s convolutions, %d threads%s\n", kernels<float>().set,
              name_of(convolution_mode()), threads,
              check ? "" : "; ms (GFLOP/s), ratio = oneDNN's best layout / segmed");
  for (const Shape& s : {Shape{"32->32@96", 32, 32, {96, 96, 96}, 3, 1, 1, false},
                         {"64->64@48", 64, 64, {48, 48, 48}, 3, 1, 1, false},
                         {"128->128@24", 128, 128, {24, 24, 24}, 3, 1, 1, false},
                         {"256->256@12", 256, 256, {12, 12, 12}, 3, 1, 1, false},
                         {"320->320@6", 320, 320, {6, 6, 6}, 3, 1, 1, false},
                         {"32->32@35x50x36", 32, 32, {35, 50, 36}, 3, 1, 1, false},
                         {"64->64@20x28x20", 64, 64, {20, 28, 20}, 3, 1, 1, false},
                         {"128->128@12", 128, 128, {12, 12, 12}, 3, 1, 1, false},
                         {"16->16@64", 16, 16, {64, 64, 64}, 3, 1, 1, false},
                         {"8->8@48", 8, 8, {48, 48, 48}, 3, 1, 1, false},
                         {"48->16@64", 48, 16, {64, 64, 64}, 3, 1, 1, false},
                         {"64->64@8", 64, 64, {8, 8, 8}, 3, 1, 1, false},
                         {"1->32@96", 1, 32, {96, 96, 96}, 3, 1, 1, false},
                         {"32->64@96s2", 32, 64, {96, 96, 96}, 3, 2, 1, false},
                         {"32->11@96k1", 32, 11, {96, 96, 96}, 1, 1, 0, false},
                         {"64->32@48Tk2s2", 64, 32, {48, 48, 48}, 2, 2, 0, true}}) {
    if (!std::strstr(s.name, only)) continue;
    Ours ours(s);
    for (int pass = 0; pass < 3; ++pass) {
      std::vector<Peer> peers;
      for (const Tag tag : {Tag::any, Tag::ndhwc}) try {
          if (check) break;
          peers.emplace_back(s, pass, tag);
          peers.back().run();
        } catch (const dnnl::error&) {
        }
      const double error = ours.error(pass);
      if (!(error < 1e-4)) {
        std::printf("%s: pass %d is wrong by %g\n", s.name, pass, error);
        return 1;
      }
      if (check) continue;
      std::vector<double> mine, theirs, ratio;
      const int repeats = std::max(1, int(4e9 / s.flops()));
      for (int r = 0; r < rounds; ++r) {
        double best = 1e30;
        for (Peer& peer : peers)
          best = std::min(best, seconds_of([&] {
                            for (int i = 0; i < repeats; ++i) peer.run();
                          }));
        const double own = seconds_of([&] {
          for (int i = 0; i < repeats; ++i) ours.run(pass);
        });
        mine.push_back(own / repeats), theirs.push_back(best / repeats);
        ratio.push_back(best / own);
      }
      char row[400];
      std::snprintf(
          row, sizeof row,
          "%s\n  {\"name\": \"%s\", \"threads\": %d, \"ours_ms\": %.6g, \"peer_ms\": %.6g, "
          "\"ratio\": %.4g, \"low\": %.4g, \"high\": %.4g, \"roofline\": %.4g}",
          rows.empty() ? "" : ",", s.row(pass).c_str(), threads, median(mine) * 1e3,
          median(theirs) * 1e3, median(ratio), *std::min_element(ratio.begin(), ratio.end()),
          *std::max_element(ratio.begin(), ratio.end()), peak.share(s.flops(), 0, median(mine)));
      rows += row;
      const char* passes[] = {"forward", "backward-data", "backward-weights"};
      std::printf(
          "%-15s %-17s segmed %8.3f (%5.1f)  oneDNN %8.3f (%5.1f)  ratio %.2f  error %.1e\n",
          s.name, passes[pass], median(mine) * 1e3, s.flops() / median(mine) * 1e-9,
          median(theirs) * 1e3, s.flops() / median(theirs) * 1e-9, median(ratio), error);
      std::fflush(stdout);
    }
  }
  if (!json) return 0;
  std::FILE* file = std::fopen(json, "w");
  if (!file) return std::printf("%s cannot be written\n", json), 2;
  const dnnl_version_t* v = dnnl_version();
  std::fprintf(file, "{\"peer\": \"oneDNN %d.%d.%d\", \"rows\": [%s\n]}\n", v->major, v->minor,
               v->patch, rows.c_str());
  return std::fclose(file) == 0 ? 0 : 2;
}
