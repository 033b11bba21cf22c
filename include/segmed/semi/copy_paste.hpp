// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>

#include <segmed/autograd/group.hpp>
#include <segmed/semi/complete.hpp>
#include <segmed/semi/largest_pieces.hpp>
#include <segmed/semi/mean_teacher.hpp>
#include <segmed/semi/policy.hpp>
#include <segmed/tensor/gather.hpp>

namespace segmed {

/// A box of voxels: depth, height, width.
struct PasteBox {
  Index begin[3] = {0, 0, 0}, extent[3] = {0, 0, 0};

  SEGMED_HD bool holds(const Grid& grid, Index v) const {
    const Index at[3] = {v / grid.width / grid.height, v / grid.width % grid.height,
                         v % grid.width};
    bool inside = true;
    for (int a = 0; a < 3; ++a) inside &= at[a] >= begin[a] && at[a] < begin[a] + extent[a];
    return inside;
  }
  /// A box with that share of every axis' extent, rounded down, at a random place of the step.
  static PasteBox draw(const Grid& grid, float side) {
    const Philox random = Draws::next(Purpose::noise);
    const Index extents[3] = {grid.depth, grid.height, grid.width};
    PasteBox box;
    for (int a = 0; a < 3; ++a) {
      const Index wanted = Index(double(side) * double(extents[a]) + 1e-4);
      box.extent[a] = std::clamp<Index>(wanted, 1, extents[a]);
      box.begin[a] = random.below(a, extents[a] - box.extent[a] + 1);
    }
    return box;
  }
};

/// Consecutive cases of a batch, from the first again after the last; nothing: ignored labels.
template <class T>
struct PasteSource {
  const T* data = nullptr;
  Index first = 0, cases = 1;

  SEGMED_HD Index operator()(Index n) const { return (first + n) % cases; }
};
template <class T>
struct PasteKernel {
  Grid grid;
  PasteBox box;
  PasteSource<T> outside, inside;
  T* out;
  SEGMED_HD void operator()(Index row, Index c) const {
    const Index n = row / grid.voxels(), v = row % grid.voxels();
    const PasteSource<T>& from = box.holds(grid, v) ? inside : outside;
    out[row * grid.channels + c] =
        from.data ? from.data[(from(n) * grid.voxels() + v) * grid.channels + c] : T(ignored);
  }
};

/// Some consecutive cases with their labels.
template <FeatureMap F>
struct PasteCases {
  using D = typename F::device;
  F image;
  Labels<D> labels;
  Index first = 0;

  const AnnotatedSet& annotated(Index n) const {
    return labels.annotated[std::size_t((first + n) % labels.grid.cases)];
  }
  Index cases() const { return labels.grid.cases; }
  PasteCases later(Index by) const { return {image, labels, first + by}; }
  /// Those of all ranks, of which each brings as many.
  PasteCases of_all(const Ranks& ranks) const {
    if (ranks.alone()) return *this;
    Grid grid = image.grid();
    grid.cases *= ranks.size();
    return {F(grid, gathered(detach(image).dense().value)),
            {grid.with_channels(1), gathered(labels.classes), ranks.gathered(labels.annotated), {}},
            first};
  }
};

/// Pairs of cases, the second of each pasted into the first where the box is.
///
///   shapes   result image (cases, spatial..., channels)
template <FeatureMap F>
struct Pasted {
  using T = typename F::value_type;
  using D = typename F::device;
  const PasteCases<F>&outside, &inside;
  PasteBox box;
  Index cases;

  F image() const {
    const F a = detach(outside.image), b = detach(inside.image);
    Grid grid = a.grid();
    grid.cases = b.grid().cases;
    require(grid == b.grid(), "paste", "shapes differ: ", a.grid(), " and ", b.grid());
    grid.cases = cases;
    F y(grid, false);
    D::launch_rows(grid.rows(), grid.channels,
                   PasteKernel<T>{grid,
                                  box,
                                  {a.data(), outside.first, a.grid().cases},
                                  {b.data(), inside.first, b.grid().cases},
                                  y.mutable_data()});
    return y;
  }
  /// The labels of the mixture, or of one part of it; those of the other are ignored then.
  Labels<D> labels(bool with_outside, bool with_inside) const {
    const PasteCases<F>& known = with_outside ? outside : inside;
    Labels<D> out{known.labels.grid, {}, {}, {}};
    out.grid.cases = cases;
    out.classes = Storage<std::uint8_t, D>(out.grid.size(), Uninitialized{});
    for (Index n = 0; n < cases; ++n) out.annotated.push_back(known.annotated(n));
    D::launch_rows(out.grid.rows(), 1,
                   PasteKernel<std::uint8_t>{out.grid, box, source(outside, with_outside),
                                             source(inside, with_inside), out.classes.write()});
    return out;
  }

 private:
  static PasteSource<std::uint8_t> source(const PasteCases<F>& part, bool wanted) {
    return {wanted ? part.labels.classes.read() : nullptr, part.first, part.labels.grid.cases};
  }
};

/// D_0 and D_1 are pasted into each other, one box per step, and the student learns the mixtures:
/// labels where D_0 shows, the answers of a slow average of itself where D_1 does. Until `after` it
/// learns mixtures within D_0. The run's own network, or its average, predicts.
///
///   source   Bai et al., Bidirectional copy-paste, 2023, arXiv:2305.00673; the box is two thirds
///            of each extent, for any extents. The first half of D_0 takes voxels from D_1 and the
///            last half gives them. The teacher follows from the first step on, faster at first as
///            in MeanTeacher; both parts of a mixture have the user's loss, on the finest output.
///            D_1 takes part from 1/15 of the budget on; the authors' script takes 2,000 steps
///            without it and 15,000 with it, 2/17. A voxel's answer is the likeliest class, there
///            the one organ from a probability of one half on
///
/// Ranks tell each other their cases and answers and share the mixtures of one process, if each
/// holds an even number of cases of D_0. With an odd number, which leaves no equal parts, it mixes
/// its own cases from `after` on; a single one takes voxels and gives them then, two mixtures
/// instead of one.
///
/// The terms stand in place of the usual one. Uses D_1's partial labels: answers keep what was
/// drawn and propose annotated classes nowhere else.
template <Network Net>
struct CopyPaste {
  using F = typename Net::Features;
  static constexpr bool partial_labels = true;
  Frozen<Net> teacher;
  float keep = 0.99f;       // of the teacher, per step
  float weight = 0.5f;      // of the part that the teacher labelled; no warm-up
  bool largest = true;      // of each class the teacher's answer is its largest piece alone
  float side = 2.0f / 3;    // of the box, as a share of each extent
  float after = 1.0f / 15;  // the fraction of the budget from which D_1 takes part

  template <class Now>
  typename Now::Value supervised(Now& now) {
    const Ranks& all = Ranks::current();
    const PasteBox box = PasteBox::draw(now.full.image.grid(), side);
    const PasteCases<F> known{now.full.image, now.full.labels};
    const Index own = known.cases();
    if (now.partial.empty() || now.clock.host().progress < after) {
      const PasteCases<F> a = known.of_all(all).later(all.rank() * own);
      return within(now, Pasted<F>{a, a.later((own * all.size() + 1) / 2), box, own});
    }
    const Ranks who = own % 2 == 0 ? all : Ranks();
    const PasteCases<F> a = known.of_all(who),
                        u = PasteCases<F>{now.partial.image, answers(now)}.of_all(who);
    const Index half = (a.cases() + 1) / 2, mine = half / who.size(), begin = who.rank() * mine;
    const PasteCases<F> b = a.later(a.cases() - half),
                        v = u.later(std::max<Index>(0, u.cases() - half));
    return mixture(now, Pasted<F>{a.later(begin), u.later(begin), box, mine}, 1, weight) +
           mixture(now, Pasted<F>{v.later(begin), b.later(begin), box, mine}, weight, 1);
  }
  template <class Now>
  typename Now::Value loss(Now&) {
    return {};
  }
  void after_step(auto& now) { follow(teacher, keep, now); }
  static void options(auto& self, auto&& visit) {
    visit("keep", self.keep, between(0, 1));
    visit("weight", self.weight, at_least(0));
    visit("largest", self.largest);
    visit("side", self.side, between(0, 1));
    visit("after", self.after, between(0, 1));
  }
  static void members(auto& self, auto&& visit) { visit("teacher", self.teacher); }

 private:
  template <class Now>
  Labels<typename F::device> answers(const Now& now) const {
    const F logits = evaluating([&] { return teacher(now.partial.image); });
    const auto labels = complete(now.partial.labels, logits);
    if (!largest) return labels;
    return largest_pieces(labels, now.partial.labels, logits.grid().channels);
  }
  template <class Now>
  static typename Now::Value within(Now& now, const Pasted<F>& pasted) {
    return now.criterion(now.student(pasted.image()), pasted.labels(true, true));
  }
  template <class Now>
  static typename Now::Value mixture(Now& now, const Pasted<F>& pasted, float outside,
                                     float inside) {
    const F logits = now.student(pasted.image());
    return outside * now.criterion(logits, pasted.labels(true, false)) +
           inside * now.criterion(logits, pasted.labels(false, true));
  }
};

}  // namespace segmed
