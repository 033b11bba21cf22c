// SPDX-License-Identifier: Apache-2.0
// PyTorch as an oracle: one Python process for a whole test program, which evaluates expressions
// and their gradients.
#pragma once
#include <cstdlib>
#include <optional>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

#include "check.hpp"

namespace check {

/// Evaluates expressions of x[0], x[1], ... (torch tensors) and their gradients in Python.
class Oracle {
 public:
  using Values = std::vector<std::vector<double>>;

  struct Array {
    std::vector<Index> shape;
    std::vector<double> values;
  };

  /// None where PyTorch is absent.
  static Oracle* current() {
    static Oracle oracle;
    return oracle.works_ ? &oracle : nullptr;
  }
  /// The value of the expression, and the gradients of its inputs under upstream gradient `g`.
  Values ask(const std::string& expression, const std::vector<Array>& inputs,
             const std::vector<double>& g, bool single) {
    put(Index(single));
    put(Index(expression.size()));
    send(expression.data(), expression.size());
    put(Index(inputs.size()));
    for (const Array& a : inputs) {
      put(Index(a.shape.size()));
      for (const Index extent : a.shape) put(extent);
      send(a.values.data(), sizeof(double) * a.values.size());
    }
    put(Index(g.size()));
    send(g.data(), sizeof(double) * g.size());
    Values out;
    const Index arrays = get();
    REQUIRE_MESSAGE(arrays > 0, "the oracle failed on ", expression);
    for (Index i = 0; i < arrays; ++i) {
      out.emplace_back(static_cast<std::size_t>(get()));
      receive(out.back().data(), sizeof(double) * out.back().size());
    }
    return out;
  }

 private:
  static constexpr const char* script = R"(
import struct, sys, os
source, sink = os.fdopen(0, 'rb'), os.fdopen(os.dup(1), 'wb')
os.dup2(2, 1)
def put(n): sink.write(struct.pack('<q', n))
def get():
    data = source.read(8)
    if len(data) < 8: sys.exit(0)
    return struct.unpack('<q', data)[0]
try:
    import torch, torch.nn.functional as f
except Exception:
    put(0); sink.flush(); sys.exit(0)
torch.set_num_threads(1)
put(1); sink.flush()
def first(x): return x.movedim(-1, 1)                     # channels last -> first
def last(x): return x.movedim(1, -1)
def kernel(w): return w.movedim(-1, 0).movedim(-1, 1)     # (taps, in, out) -> (out, in, taps)
def read(n, dtype): return torch.frombuffer(bytearray(source.read(8 * n)), dtype=torch.float64).to(dtype) if n else torch.zeros(0, dtype=dtype)
while True:
    dtype = torch.float32 if get() else torch.float64
    expression = source.read(get()).decode()
    x = []
    for _ in range(get()):
        shape = [get() for _ in range(get())]
        n = 1
        for e in shape: n *= e
        x.append(read(n, dtype).reshape(shape).requires_grad_())
    g = read(get(), dtype)
    try:
        y = eval(expression, dict(globals(), x=x))
        y.backward(g.reshape(y.shape))
        out = [y] + [torch.zeros_like(t) if t.grad is None else t.grad for t in x]
        put(len(out))
        for t in out:
            t = t.detach().to(torch.float64).contiguous()
            put(t.numel()); sink.write(t.numpy().tobytes())
    except Exception as error:
        print('oracle:', expression, error, file=sys.stderr)
        put(0)
    sink.flush()
)";

  Oracle() {
    int down[2], up[2];
    if (access("/usr/bin/python3", X_OK) != 0 || pipe(down) != 0 || pipe(up) != 0) return;
    child_ = fork();
    if (child_ == 0) {
      dup2(down[0], 0), dup2(up[1], 1);
      for (const int fd : {down[0], down[1], up[0], up[1]}) close(fd);
      execl("/usr/bin/python3", "python3", "-c", script, static_cast<char*>(nullptr));
      _exit(127);
    }
    close(down[0]), close(up[1]);
    to_ = down[1], from_ = up[0];
    Index answer = 0;
    works_ = child_ > 0 && read_all(&answer, sizeof answer) && answer == 1;
  }
  ~Oracle() {
    if (child_ <= 0) return;
    close(to_), close(from_);
    waitpid(child_, nullptr, 0);
  }
  bool read_all(void* to, std::size_t bytes) {
    auto* at = static_cast<char*>(to);
    while (bytes > 0) {
      const auto got = read(from_, at, bytes);
      if (got <= 0) return false;
      at += got, bytes -= std::size_t(got);
    }
    return true;
  }
  void receive(void* to, std::size_t bytes) { REQUIRE(read_all(to, bytes)); }
  void send(const void* from, std::size_t bytes) {
    auto* at = static_cast<const char*>(from);
    while (bytes > 0) {
      const auto sent = write(to_, at, bytes);
      REQUIRE(sent > 0);
      at += sent, bytes -= std::size_t(sent);
    }
  }
  void put(Index n) { send(&n, sizeof n); }
  Index get() {
    Index n = 0;
    receive(&n, sizeof n);
    return n;
  }

  pid_t child_ = -1;
  int to_ = -1, from_ = -1;
  bool works_ = false;
};

/// How far a and b lie apart, relative to the largest number in b.
inline double distance(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return 1e300;
  double worst = 0, scale = 1e-300;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(a[i] - b[i]);
    worst = !(d <= worst) ? d : worst;
    scale = std::max(scale, std::abs(b[i]));
  }
  return worst / scale;
}
template <class T>
std::vector<double> wide(const std::vector<T>& values) {
  return {values.begin(), values.end()};
}

/// The largest distance between y = op(maps, weights), its gradients, and the same in PyTorch. In
/// the expression, maps come first, as (N, spatial..., C), then the weights with their shapes.
template <class F>
double torch_distance(const std::string& expression, const std::vector<Grid>& grids,
                      const std::vector<std::vector<Index>>& shapes, const Op<F>& op,
                      std::uint64_t seed = 1) {
  Tape::current()->clear();
  std::vector<F> maps;
  std::vector<Oracle::Array> inputs;
  for (const Grid& g : grids) {
    maps.push_back(random_map<F>(g, seed++, true));
    std::vector<Index> shape{g.cases, g.depth, g.height, g.width, g.channels};
    if (F::dim == 2) shape.erase(shape.begin() + 1);
    inputs.push_back({shape, wide(maps.back().dense().value.host())});
  }
  std::vector<Index> sizes;
  for (const auto& shape : shapes) {
    sizes.push_back(1);
    for (const Index extent : shape) sizes.back() *= extent;
  }
  Weights<F> weights(sizes, seed);
  for (std::size_t i = 0; i < shapes.size(); ++i)
    inputs.push_back({shapes[i], wide(weights[i].value().host())});
  GroupOf<F> group(Role::trained, weights);
  const F y = value(op(maps, weights));
  // The upstream gradient is that of sum(y * g).
  const F upstream = random_map<F>(y.grid(), seed + 50);
  backward(float(y.grid().size()) * mean(y * upstream));
  const auto expected = Oracle::current()->ask(
      expression, inputs, wide(upstream.dense().value.host()), sizeof(typename F::value_type) == 4);
  double worst = distance(wide(y.dense().value.host()), expected[0]);
  std::size_t at = 1;
  const auto compare = [&](const std::vector<double>& ours) {
    const double d = distance(ours, expected[at++]);
    worst = !(d <= worst) ? d : worst;
  };
  for (const F& x : maps) compare(wide(x.gradient().host()));
  for (const auto& p : weights.list) compare(wide(p.grad().host()));
  return worst;
}

/// Says so where there is no oracle.
inline bool no_torch() {
  if (Oracle::current()) return false;
  MESSAGE("skipped: /usr/bin/python3 has no torch to compare with");
  return true;
}

}  // namespace check
