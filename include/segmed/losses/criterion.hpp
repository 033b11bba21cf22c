// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/scalar.hpp>
#include <segmed/losses/labels.hpp>
#include <segmed/losses/voxel_teams.hpp>

namespace segmed {

/// What no loss can do without: labels on the logits' grid, and classes that a label can name.
template <FeatureMap F>
void check_labels(const F& logits, const Labels<typename F::device>& labels, bool partial) {
  const Grid grid = logits.grid();
  require(labels.grid == grid.with_channels(1), "loss", "logits ", grid, " do not match labels ",
          labels.grid);
  require(grid.channels >= 2 && grid.channels <= 255, "loss", "logits have ", grid.channels,
          " channels; give one per class, background included, at most 255");
  require(Index(labels.annotated.size()) == grid.cases, "loss", grid.cases,
          " cases need as many annotated sets, not ", labels.annotated.size());
  if (partial) return;
  for (Index n = 0; n < grid.cases; ++n)
    for (Index c = 1; c < grid.channels; ++c)
      require<DataError>(labels.annotated[std::size_t(n)].has(c), "loss", "class ", c,
                         " was not annotated in case ", n,
                         " of the batch; wrap the loss in Marginal");
}
/// Names the first label that no class has.
template <Device D>
[[noreturn]] void fail_for_stranger(const Labels<D>& labels, Index classes) {
  const auto values = labels.classes.host();
  std::size_t i = 0;
  while (i + 1 < values.size() && (values[i] < classes || values[i] == ignored)) ++i;
  fail<DataError>("loss", "label ", int(values[i]), " in case ", Index(i) / labels.grid.voxels(),
                  " of the batch, but the logits have ", classes,
                  " classes; give the network that class, or mark its voxels as ignored (",
                  int(ignored), ")");
}

/// A voxel loss on logits and labels: one pass forward, one pass backward, and between them memory
/// for a few sums per (case, class).
template <VoxelLoss L, FeatureMap F>
Scalar<F> voxel_loss(const L& loss, const F& logits, const Labels<typename F::device>& labels) {
  using T = typename F::value_type;
  using W = typename F::Wide;
  using D = typename F::device;
  constexpr int lanes = voxel_lanes<D>;
  check_labels(logits, labels, takes_partial_labels<L>);
  const F z = value(logits);
  const Grid grid = z.grid();
  auto sets = labels.sets();
  ClassSums all{nullptr,    nullptr,       sets.read(), AnnotatedSet::all(grid.channels),
                grid.cases, grid.channels, L::sums};
  const Index width = all.per_case();
  Storage<double, D> sums(grid.cases * width, Uninitialized{}), slopes(grid.cases * width);
  all.sum = sums.write(), all.slope = slopes.write();
  VoxelPass<T, L, lanes> pass{loss, z.data(), labels.classes.read(), all, grid.voxels()};
  if constexpr (HasTeams<D>) {
    sum_voxels_by_teams<D>(pass, grid.cases);
  } else {
    const VoxelBlocks blocks(grid.cases, grid.voxels(), width);
    Storage<double, D> partial(grid.cases * blocks.count * width, Uninitialized{});
    D::launch_blocks(grid.cases * blocks.count,
                     VoxelSums<T, L, lanes>{pass, blocks, partial.write()});
    D::launch(grid.cases * width, MergeSums{blocks.count, width, partial.read(), all.sum});
  }
  if constexpr (std::same_as<D, Cpu>)  // elsewhere looking would stop the queue of kernels
    for (Index n = 0; n < grid.cases; ++n)
      if (all.sum[(n + 1) * width - 1] > 0) fail_for_stranger(labels, grid.channels);
  if (const Ranks& ranks = Ranks::current(); !ranks.alone()) {
    // The finish is that of the whole batch; this rank then goes on with the slopes of its cases.
    sums = gathered(sums), sets = gathered(sets);
    slopes = Storage<double, D>(sums.size());
    all.cases = grid.cases * ranks.size();
    all.sum = sums.write(), all.slope = slopes.write(), all.annotated = sets.read();
    pass.all = all.own(grid.cases * ranks.rank(), grid.cases);
  }
  Scalar<F> y(z.tracked());
  const FinishSums<L, W> finish{loss, all, y.value().write()};
  if constexpr (HasTeams<D>)
    finish_by_teams<D>(finish);
  else
    D::launch(1, finish);
  record_scalar(y, [=, kept = labels.classes](const W* g) {
    auto& into = z.dense().grad->sum;
    const bool fresh = into.empty();
    const bool past_caches = grid.size() * Index(sizeof(T)) >= Index(16) << 20;
    if (fresh) into = Storage<T, D>(grid.size(), Uninitialized{});
    if constexpr (HasTeams<D>)
      pull_voxels_by_teams<D>(pass, grid.cases, g, into.write(), fresh);
    else
      D::launch_blocks(grid.cases * ((grid.voxels() + voxel_run - 1) / voxel_run),
                       VoxelPull<T, L, lanes>{pass, g, into.write(), fresh, past_caches});
    (void)sums, (void)slopes, (void)sets, (void)kept;  // the pass points into them
  });
  return y;
}

/// A loss, ready to be called with what a network returned and with labels. A voxel loss runs as
/// one pass; any other struct is called as loss(output, labels).
///
///   shapes   logits (cases, spatial..., classes); labels (cases, spatial...); result scalar
///   throws   ShapeError when they do not fit; DataError for a label that no class has, and for a
///            class that was not annotated where the loss does not take partial labels
template <class L>
struct Criterion {
  L loss;
  static constexpr bool partial_labels = takes_partial_labels<L>;

  template <class Output, Device D>
  auto operator()(const Output& output, const Labels<D>& labels) const {
    if constexpr (VoxelLoss<L>) {
      static_assert(FeatureMap<Output>,
                    "Criterion: this loss reads one map of logits; for a network with several "
                    "outputs wrap it in DeepSupervision; see losses/deep_supervision.hpp");
      return voxel_loss(loss, output, labels);
    } else {
      static_assert(
          requires { loss(output, labels); },
          "Criterion: a loss is a VoxelLoss or is called as loss(output, labels); see "
          "losses/voxel_loss.hpp");
      return loss(output, labels);
    }
  }
};
template <class L>
Criterion(L) -> Criterion<L>;

}  // namespace segmed
