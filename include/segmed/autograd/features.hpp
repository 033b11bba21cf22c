// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <optional>

#include <segmed/autograd/param.hpp>
#include <segmed/backend/view.hpp>

namespace segmed {

/// A gradient that comes into being when somebody adds to it.
template <class T, Device D>
struct Slot {
  bool tracked = false;
  Storage<T, D> sum;
};

/// A scale and a shift per (case, channel) that readers apply on load, and their gradients.
template <class W, Device D>
struct ScaleShift {
  Storage<W, D> scale, shift;
  Storage<double, D> scale_grad, shift_grad;
  bool settles = false;  // its op is on the tape and carries on what a raw leaf has deferred
};
/// A learned slope below zero per (case, channel), and its gradient.
template <class W, Device D>
struct Slopes {
  Storage<W, D> slope;
  Storage<double, D> grad;
};

/// How readers see a tensor: leak(scale * raw + shift), where leak(z) is z above zero and slope * z
/// below.
template <class T, Device D>
struct View {
  std::shared_ptr<ScaleShift<Wide<T>, D>> affine;  // none: scale 1, shift 0
  std::shared_ptr<Slopes<Wide<T>, D>> slopes;      // none: `leak` everywhere
  Wide<T> leak = 1;                                // 1: no activation
  std::shared_ptr<Slot<T, D>>
      grad;  // of what readers see; for an untouched tensor the tensor's own

  bool plain() const { return !affine && !slopes && leak == Wide<T>(1); }
};

/// One dense tensor. Its producer gets back the sum of three parts, added on load: a dense
/// gradient, the gradient of one view (not yet carried through that view), and that of the moments.
template <class T, Device D>
struct Dense {
  Grid grid;
  Storage<T, D> value;
  std::shared_ptr<Slot<T, D>> grad;
  Storage<double, D> moments = {}, moments_grad = {};  // (cases, channels, 2): sum, sum of squares
  bool produced = false;  // by an op that reads `deferred` on load; a leaf's waits for its norm
  std::optional<View<T, D>> deferred = {};
};

template <class T, Device D>
struct Source : View<T, D> {
  std::shared_ptr<Dense<T, D>> raw;
};

/// The extents of a batch: cases, spatial extents (depth, height, width or height, width),
/// channels.
template <std::size_t Dim>
struct Shape {
  Index cases = 1;
  std::array<Index, Dim> extent{};
  Index channels = 1;

  Grid grid() const {
    if constexpr (Dim == 3)
      return {cases, extent[0], extent[1], extent[2], channels};
    else
      return {cases, 1, extent[0], extent[1], channels};
  }
};

/// Where a pull adds to the gradient of each element, once: the first to come sets it.
template <class T>
struct Additions {
  T* to = nullptr;  // null: nobody wants this gradient
  bool fresh = false;

  SEGMED_HD void add(Index i, Wide<T> x) const { to[i] = T(fresh ? x : Wide<T>(to[i]) + x); }
  /// The same for n elements from the i-th on.
  template <std::size_t n>
  SEGMED_HD void add(Index i, const Wide<T> (&x)[n]) const {
    if (fresh)
      for (std::size_t k = 0; k < n; ++k) to[i + Index(k)] = T(x[k]);
    else
      for (std::size_t k = 0; k < n; ++k) to[i + Index(k)] = T(Wide<T>(to[i + Index(k)]) + x[k]);
  }
};

/// A batch of multi-channel images, (cases, spatial..., channels). Rank, dtype and device travel as
/// this one type. It is a value of one or two sources side by side, each with work still pending;
/// ops that can read sources as they are never write the result down.
template <std::size_t Dim, class T, Device D>
class Features {
 public:
  using value_type = T;
  using Wide = segmed::Wide<T>;
  using device = D;
  using P = Param<Wide, D>;
  static constexpr std::size_t dim = Dim;
  static_assert(Dim == 2 || Dim == 3, "Features: images have two or three spatial axes");

  Features() = default;
  explicit Features(const Shape<Dim>& s) : Features(s.grid(), false) {}
  /// An uninitialised tensor on `grid`.
  Features(const Grid& grid, bool tracked)
      : Features(grid, Storage<T, D>(grid.size(), Uninitialized{}), tracked) {}
  Features(const Grid& grid, Storage<T, D> value, bool tracked = false) {
    require(Dim == 3 || grid.depth == 1, "Features", "a 2-D map on a grid ", grid, " with depth");
    require(value.size() == grid.size(), "Features", "grid ", grid, " needs ", grid.size(),
            " values, not ", value.size());
    auto raw = std::make_shared<Dense<T, D>>();
    raw->grid = grid;
    raw->value = std::move(value);
    raw->grad = slot(tracked);
    Source<T, D> source;
    source.grad = raw->grad;
    source.raw = std::move(raw);
    sources_.push_back(std::move(source));
  }
  explicit Features(std::vector<Source<T, D>> sources) : sources_(std::move(sources)) {}
  /// A leaf of the tape: `gradient()` holds its gradient after backward.
  static Features leaf(const Grid& grid, const std::vector<T>& host) {
    return Features(grid, Storage<T, D>(host), true);
  }

  const std::vector<Source<T, D>>& sources() const { return sources_; }
  Grid grid() const {
    require<Error>(!sources_.empty(), "Features", "this map is empty; give it a shape");
    Grid g = sources_[0].raw->grid;
    if (sources_.size() == 2) g.channels += sources_[1].raw->grid.channels;
    return g;
  }
  bool empty() const { return sources_.empty(); }
  bool plain() const { return sources_.size() == 1 && sources_[0].plain(); }
  /// Whether a gradient will be wanted.
  bool tracked() const {
    bool any = false;
    for (const auto& s : sources_) any |= s.grad->tracked;
    return any && Mode::current().record;
  }
  /// The one dense tensor of a plain map.
  Dense<T, D>& dense() const {
    require<Error>(plain(), "Features", "work is pending on this map; call value() first");
    return *sources_[0].raw;
  }
  const T* data() const { return dense().value.read(); }
  T* mutable_data() {
    dense().moments = {};  // they would be of other values
    return dense().value.write();
  }
  /// Where this plain map's gradient is added to.
  T* gradient_to_add() const { return dense().grad->sum.or_zeros(grid().size()).write(); }
  /// The same for pulls that reach every element once, which spares a first fill with zeros.
  Additions<T> gradient_additions() const {
    Storage<T, D>& sum = dense().grad->sum;
    const bool fresh = sum.empty();
    if (fresh) sum = Storage<T, D>(grid().size(), Uninitialized{});
    return {sum.write(), fresh};
  }
  const Storage<T, D>& gradient() const { return dense().grad->sum; }

  Reader<T> reader() const {
    Reader<T> r;
    for (std::size_t i = 0; i < sources_.size(); ++i)
      r.lane[i] = lane(*sources_[i].raw, sources_[i]);
    return r;
  }
  /// Adds to the gradients of the sources that want one; for ops that reach every voxel, since the
  /// first of them is given uninitialised memory to write to.
  Sink<T> gradient_sink() const {
    Sink<T> sink;
    for (std::size_t i = 0; i < sources_.size(); ++i)
      aim(sink, i, sources_[i].raw->grid, *sources_[i].grad);
    return sink;
  }
  static void aim(Sink<T>& sink, std::size_t part, const Grid& grid, Slot<T, D>& slot) {
    sink.grid[part] = grid;
    if (!slot.tracked) return;
    sink.add[part] = !slot.sum.empty();
    if (slot.sum.empty()) slot.sum = Storage<T, D>(grid.size(), Uninitialized{});
    sink.out[part] = slot.sum.write();
  }
  static std::shared_ptr<Slot<T, D>> slot(bool tracked) {
    return std::make_shared<Slot<T, D>>(Slot<T, D>{tracked && Mode::current().record, {}});
  }
  static Lane<T> lane(const Dense<T, D>& raw, const View<T, D>& view) {
    Lane<T> l;
    l.grid = raw.grid, l.x = raw.value.read(), l.leak = view.leak;
    if (view.affine) l.scale = view.affine->scale.read(), l.shift = view.affine->shift.read();
    if (view.slopes) l.slope = view.slopes->slope.read();
    return l;
  }

 private:
  std::vector<Source<T, D>> sources_;
};

template <class F>
concept FeatureMap = requires(const F& x) {
  { x.reader() } -> std::same_as<Reader<typename F::value_type>>;
  typename F::device;
};

template <class T>
struct ApplyKernel {
  Reader<T> a, b;
  bool two;
  Grid grid;
  T* y;
  SEGMED_HD void operator()(Index row, Index c) const {
    const At p = grid.at(row, c);
    y[row * grid.channels + c] = T(two ? a(p) + b(p) : a(p));
  }
};
template <class T>
struct DepositKernel {
  Incoming<T> g;
  Grid grid;
  Sink<T> out;
  SEGMED_HD void operator()(Index row, Index c) const {
    const At p = grid.at(row, c);
    out(p, g(p));
  }
};
template <class D, class T>
concept HasRows = requires(const Reader<T>& a, T* y, const Incoming<T>& g, const Sink<T>& out,
                           const Lane<T>& lane, double* sums, Wide<T>* totals) {
  D::apply(a, &a, y, sums);
  D::deposit(g, out);
  D::total(g, totals);
  D::spread(lane, y, y, sums, sums, sums);
  D::moments(lane, sums);
};

/// Runs `pull(incoming)` with y's gradient, summed on load, if any came.
template <FeatureMap F, class Pull>
void record_map(const F& y, Uses uses, Pull pull) {
  if (!y.tracked()) return;
  using T = typename F::value_type;
  y.dense().produced = true;
  record(std::move(uses), [raw = y.sources()[0].raw, pull] {
    if (raw->grad->sum.empty() && !raw->deferred && raw->moments_grad.empty()) return;
    const View<T, typename F::device> untouched;
    const auto& view = raw->deferred ? *raw->deferred : untouched;
    Incoming<T> g;
    g.view = F::lane(*raw, view);
    g.direct = raw->grad->sum.read();
    g.seen = raw->deferred ? view.grad->sum.read() : nullptr;
    g.moments = raw->moments_grad.read();
    pull(g);
  });
}

/// out += g, or out = g.
template <Device D, class T>
void deposit(const Grid& grid, const Incoming<T>& g, const Sink<T>& out) {
  if constexpr (HasRows<D, T>)
    D::deposit(g, out);
  else
    D::launch_rows(grid.rows(), grid.channels, DepositKernel<T>{g, grid, out});
}

/// The same for an op that wants y's gradient as one dense tensor.
template <FeatureMap F, class Pull>
void record_dense(const F& y, Uses uses, Pull pull) {
  using T = typename F::value_type;
  using D = typename F::device;
  record_map(y, std::move(uses), [grid = y.grid(), pull](const Incoming<T>& g) {
    if (!g.seen && !g.moments) return pull(g.direct);
    Storage<T, D> sum(grid.size(), Uninitialized{});
    Sink<T> sink;
    sink.out[0] = sum.write(), sink.grid[0] = grid;
    deposit<D>(grid, g, sink);
    pull(sum.read());
  });
}
/// Gives an incoming gradient to a source that has none yet and of which it is all: a dense one
/// that nobody else holds changes hands, and no voxel is touched.
template <class T, Device D>
bool handed_over(Dense<T, D>& from, const Source<T, D>& to) {
  if (!to.grad->tracked || !to.grad->sum.empty() || from.deferred || !from.moments_grad.empty() ||
      !from.grad->sum.alone())
    return false;
  to.grad->sum = std::exchange(from.grad->sum, {});
  return true;
}
/// a, or a + b, as one dense tensor: both operands are read as they are, in one pass.
template <FeatureMap F>
F applied(const F& a, const F* b) {
  using T = typename F::value_type;
  using D = typename F::device;
  const Grid grid = a.grid();
  F y(grid, a.tracked() || (b && b->tracked()));
  const Reader<T> first = a.reader(), second = b ? b->reader() : Reader<T>{};
  if constexpr (HasRows<D, T>)
    D::apply(first, b ? &second : nullptr, y.mutable_data(), nullptr);
  else
    D::launch_rows(grid.rows(), grid.channels,
                   ApplyKernel<T>{first, second, b != nullptr, grid, y.mutable_data()});
  record_map(y, {},
             [grid, a, raw = y.sources()[0].raw, other = b ? *b : F()](const Incoming<T>& g) {
               if (!other.empty()) deposit<D>(grid, g, other.gradient_sink());
               if (a.sources().size() == 1 && handed_over(*raw, a.sources()[0])) return;
               deposit<D>(grid, g, a.gradient_sink());
             });
  return y;
}

/// The map as one dense tensor: what an op calls that cannot read pending sources. Free when
/// nothing is pending.
template <FeatureMap F>
F value(const F& x) {
  return x.plain() ? x : applied<F>(x, nullptr);
}
/// Gives back at once what value(input) wrote down for an op, `read`, whose pull reads none of it.
template <FeatureMap F>
void forget(const F& input, const F& read) {
  if (!input.plain()) read.dense().value = {};
}
/// Where work has just been attached to a map: nothing happens, unless this thread materialises
/// everything.
template <FeatureMap F>
F pending(F x) {
  return Mode::current().fuse ? x : value(x);
}
/// The residual sum.
template <FeatureMap F>
F operator+(const F& a, const F& b) {
  require(a.grid() == b.grid(), "operator+", "shapes differ: ", a.grid(), " and ", b.grid());
  return applied(a, &b);
}
/// The same values as a constant.
template <FeatureMap F>
F detach(const F& x) {
  return F(x.grid(), no_grad([&] { return value(x); }).dense().value);
}
/// Channels of a, then channels of b; no voxel moves. A concatenation inside is written down first.
template <FeatureMap F>
F concat(const F& a, const F& b) {
  require(a.grid().with_channels(0) == b.grid().with_channels(0), "concat", a.grid(),
          " does not lie on the grid of ", b.grid());
  const F left = a.sources().size() == 1 ? a : value(a);
  F right = b.sources().size() == 1 ? b : value(b);
  // The same map twice: a kernel that adds to both gradients at once must not meet one place twice.
  if (left.sources()[0].grad == right.sources()[0].grad) right = applied<F>(right, nullptr);
  return pending(F({left.sources()[0], right.sources()[0]}));
}

}  // namespace segmed
