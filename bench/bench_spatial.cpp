// SPDX-License-Identifier: Apache-2.0
// Pooling and upsampling, forward and backward each by itself.
#include "workload.hpp"
#include <segmed/autograd/pool.hpp>
#include <segmed/autograd/scalar.hpp>
#include <segmed/autograd/spatial.hpp>
#include <segmed/autograd/stretch.hpp>

namespace {
using namespace segmed;
using F = Features<3, float, Cpu>;
using Op = F (*)(const F&);

F max_pool_2(const F& x) { return max_pool(x, {2, 2, 2}, {2, 2, 2}); }
F trilinear_2x(const F& x) { return upsample(x, {2, 2, 2}, Interpolation::linear); }
F nearest_2x(const F& x) { return upsample(x, {2, 2, 2}, Interpolation::nearest); }

F leaf(const Grid& grid) { return F::leaf(grid, bench::normal_numbers(grid.size())); }
F pulled(const F& x, const F& y, const Storage<float, Cpu>& incoming) {
  y.dense().grad->sum = incoming;
  Tape::current()->pull_all({});
  return x;
}

bench::Run forward(Op op, const Grid& grid) {
  return
      [op, x = leaf(grid)] { return bench::seconds_of([&] { no_grad([&] { return op(x); }); }); };
}
bench::Run backward_only(Op op, const Grid& grid) {
  const F x = leaf(grid);
  const Index size = no_grad([&] { return op(x); }).grid().size();
  return [op, x, incoming = Storage<float, Cpu>(bench::normal_numbers(size, 1))] {
    x.dense().grad->sum = {};
    const F y = op(x);
    return bench::seconds_of([&] { pulled(x, y, incoming); });
  };
}

/// What an output voxel reads along one axis, from its definition.
struct Tap {
  Index from;
  double weight;
};
std::vector<Tap> taps(Index out, Index extent, bool linear) {
  if (!linear) return {{out / 2, 1.0}};
  const double at = std::max(0.0, (double(out) + 0.5) / 2 - 0.5);
  const Index low = Index(at), high = std::min(low + 1, extent - 1);
  return {{low, 1 - (at - double(low))}, {high, at - double(low)}};
}
/// Visits (output voxel, input voxel, weight) of an upsampling by 2.
void each_tap(const Grid& in, bool linear, const auto& visit) {
  for (Index z = 0; z < 2 * in.depth; ++z)
    for (Index y = 0; y < 2 * in.height; ++y)
      for (Index x = 0; x < 2 * in.width; ++x)
        for (const Tap& a : taps(z, in.depth, linear))
          for (const Tap& b : taps(y, in.height, linear))
            for (const Tap& c : taps(x, in.width, linear))
              visit((z * 2 * in.height + y) * 2 * in.width + x,
                    (a.from * in.height + b.from) * in.width + c.from,
                    a.weight * b.weight * c.weight);
}
void check(const char* what, Op op, const Grid& in, const auto& plain,
           std::vector<bench::Check>& found) {
  const F x = leaf(in), y = op(x);
  const Storage<float, Cpu> incoming(bench::normal_numbers(y.grid().size(), 1));
  pulled(x, y, incoming);
  const auto values = x.dense().value.host(), g = incoming.host();
  std::vector<double> made(g.size()), slope(values.size());
  plain(values, g, made, slope);
  found.push_back({what, bench::relative_error(y.dense().value.host(), made), 1e-6});
  found.push_back(
      {std::string(what) + "'s gradient", bench::relative_error(x.gradient().host(), slope), 1e-6});
}
void check_max_pool(const Grid& in, std::vector<bench::Check>& found) {
  const auto channels = std::size_t(in.channels);
  check(
      "max_pool", max_pool_2, in,
      [&](const auto& x, const auto& g, auto& made, auto& slope) {
        const Index across = in.width / 2, down = in.height / 2;
        for (std::size_t i = 0; i < made.size(); ++i) {
          const Index v = Index(i / channels);
          std::size_t best = 0;
          for (Index k = 0; k < 8; ++k) {
            const Index z = v / across / down * 2 + k / 4, y = v / across % down * 2 + k / 2 % 2;
            const Index at = (z * in.height + y) * in.width + v % across * 2 + k % 2;
            const std::size_t j = std::size_t(at) * channels + i % channels;
            if (k == 0 || x[j] > x[best]) best = j;
          }
          made[i] = double(x[best]);
          slope[best] += double(g[i]);
        }
      },
      found);
}
void check_upsampling(bool linear, const Grid& in, std::vector<bench::Check>& found) {
  const auto channels = std::size_t(in.channels);
  check(
      linear ? "trilinear upsampling" : "nearest upsampling", linear ? trilinear_2x : nearest_2x,
      in,
      [&](const auto& x, const auto& g, auto& made, auto& slope) {
        each_tap(in, linear, [&](Index to, Index from, double weight) {
          for (std::size_t c = 0; c < channels; ++c) {
            const std::size_t i = std::size_t(to) * channels + c;
            const std::size_t j = std::size_t(from) * channels + c;
            made[i] += weight * double(x[j]);
            slope[j] += weight * double(g[i]);
          }
        });
      },
      found);
}
std::vector<bench::Check> checks_of(Op op, const Grid& in) {
  std::vector<bench::Check> found;
  if (op == max_pool_2)
    check_max_pool(in, found);
  else
    check_upsampling(op == trilinear_2x, in, found);
  return found;
}
std::vector<bench::Check> checks() {
  std::vector<bench::Check> found;
  for (const Op op : {max_pool_2, trilinear_2x, nearest_2x})
    for (const bench::Check& c : checks_of(op, {1, 4, 6, 8, 5})) found.push_back(c);
  return found;
}

}  // namespace

int main(int argc, char** argv) {
  struct Case {
    const char *name, *shape;
    Op op;
    Grid grid;
    double traffic;  // tensors of the input's size that are read or written
  };
  std::vector<bench::Workload> workloads;
  for (const auto& [name, shape, op, grid, traffic] :
       {Case{"BM_MaxPool2", "/32/96", max_pool_2, {1, 96, 96, 96, 32}, 9.0 / 8},
        Case{"BM_UpsampleTrilinear2x", "/64/48", trilinear_2x, {1, 48, 48, 48, 64}, 9},
        Case{"BM_UpsampleNearest2x", "/64/48", nearest_2x, {1, 48, 48, 48, 64}, 9}}) {
    const double bytes = traffic * 4 * double(grid.size());
    const std::string start = name, end = shape;
    const auto look = [op, grid] { return checks_of(op, grid); };
    workloads.push_back(
        {start + "Fwd" + end, [op, grid] { return forward(op, grid); }, 0, bytes, {}, look});
    workloads.push_back(
        {start + "Bwd" + end, [op, grid] { return backward_only(op, grid); }, 0, bytes, {}, look});
  }
  return bench::run_program(argc, argv, checks, std::move(workloads));
}
