// SPDX-License-Identifier: Apache-2.0
// Losses that compare several predictions of the same voxels, without labels.
#pragma once
#include <vector>

#include <segmed/autograd/scalar.hpp>
#include <segmed/losses/lanes.hpp>

namespace segmed {

/// Some maps of logits on one grid.
template <class T>
struct LogitMaps {
  static constexpr int most = 8;
  const T* z[most];
  int count;
  Index classes;
};
/// One voxel, or n neighbouring ones, as several maps of logits see them. Log-probabilities are
/// formed from logits, so that those of hopeless classes stay finite.
template <class T, int n = 1>
struct Opinions {
  using Number = Wide<T>;
  using W = NumbersOf<T, n>;
  static constexpr int most = LogitMaps<T>::most;
  static constexpr Index kept = 16;  // classes whose probabilities are formed once
  const LogitMaps<T>& from;
  int maps;
  Index classes, row;
  W top[most], log_sum[most];  // the largest logit, and the log of the sum of e^(z - top)

  /// `logs`: somebody asks for `log_p`.
  SEGMED_HD Opinions(const LogitMaps<T>& logits, Index voxel, bool logs)
      : from(logits), maps(logits.count), classes(logits.classes), row(voxel) {
    for (int s = 0; s < maps; ++s) {
      for (Index c = 0; few() && c < classes; ++c) kept_z_[s][c] = read(s, c);
      top[s] = logit(s, 0);
      for (Index c = 1; c < classes; ++c) top[s] = math::larger(top[s], logit(s, c));
      const W sum = softmax_sum(s, W(1), kept_p_[s]);
      if (logs || !few()) log_sum[s] = math::fast_log(sum);
    }
  }
  SEGMED_HD bool few() const { return classes <= kept; }
  SEGMED_HD W logit(int s, Index c) const { return few() ? kept_z_[s][c] : read(s, c); }
  SEGMED_HD W log_p(int s, Index c) const { return (logit(s, c) - top[s]) - log_sum[s]; }
  SEGMED_HD W p(int s, Index c) const {
    return few() ? kept_p_[s][c] : math::fast_exp(log_p(s, c));
  }
  /// The sum of e^(factor (z - top)); into `kept_p` what each class has of it, if the classes are
  /// few.
  SEGMED_HD W softmax_sum(int s, W factor, W* kept_p) const {
    W sum = Number(0);
    for (Index c = 0; c < classes; ++c) {
      const W e = math::fast_exp(factor * (logit(s, c) - top[s]));
      if (few()) kept_p[c] = e;
      sum += e;
    }
    const W share = W(1) / sum;
    for (Index c = 0; few() && c < classes; ++c) kept_p[c] *= share;
    return sum;
  }

 private:
  W kept_z_[most][kept], kept_p_[most][kept];

  SEGMED_HD W read(int s, Index c) const {
    return read_lanes<n>(from.z[s] + row * classes + c, classes);
  }
};

/// How far several predictions of a voxel are apart: `sums(maps)` numbers per voxel, of which the
/// loss sees the means; its value and the slopes of them; and the derivative of a voxel's numbers,
/// weighted by those slopes, with respect to the log-probabilities of one class in every map.
/// `logs`: it looks at log-probabilities.
template <class A>
concept Agreement = requires(const A& a, const Opinions<float>& x, double* sums,
                             const double* means, float* slopes) {
  { a.sums(2) } -> std::same_as<int>;
  { A::logs } -> std::convertible_to<bool>;
  a.add(sums, x);
  { a.finish(means, sums, 2) } -> std::same_as<double>;
  a.slope(a.prepared(means, x), x, Index{}, slopes);
};

template <class T, class A, int lanes>
struct AgreementSums {  // one item per `lanes` voxels
  A agreement;
  LogitMaps<T> maps;
  Index rows;
  SEGMED_HD void operator()(Index, Index item, double* sums) const {
    each_lanes<lanes>(rows, item, [&](auto n, Index row) {
      agreement.add(sums, Opinions<T, decltype(n)::value>(maps, row, A::logs));
    });
  }
};
template <class W, class A>
struct FinishAgreement {
  A agreement;
  int maps, width;
  double voxels;
  double *sums, *slopes;
  W* out;
  SEGMED_HD void operator()(Index) const {
    for (int i = 0; i < width; ++i) sums[i] /= voxels;
    *out = W(agreement.finish(sums, slopes, maps));
  }
};
template <class T, class A, int lanes>
struct AgreementPull {  // one item per `lanes` voxels
  A agreement;
  LogitMaps<T> maps;
  Index rows;
  const double* slopes;
  double voxels;
  const Wide<T>* g;
  T* gradient[LogitMaps<T>::most];

  SEGMED_HD void operator()(Index item) const {
    each_lanes<lanes>(rows, item, [&](auto n, Index row) {
      pull(Opinions<T, decltype(n)::value>(maps, row, A::logs));
    });
  }

 private:
  template <int n>
  SEGMED_HD void pull(const Opinions<T, n>& x) const {
    using W = typename Opinions<T, n>::W;
    const auto prepared = agreement.prepared(slopes, x);
    W slope[Opinions<T>::kept][Opinions<T>::most], total[Opinions<T>::most];
    for (int s = 0; s < x.maps; ++s) total[s] = Wide<T>(0);
    for (Index c = 0; c < x.classes; ++c) {
      W* const of_class = slope[x.few() ? c : 0];
      agreement.slope(prepared, x, c, of_class);
      for (int s = 0; s < x.maps; ++s) total[s] += of_class[s];
    }
    const W up = Wide<T>(double(*g) / voxels);
    for (Index c = 0; c < x.classes; ++c) {
      W* const of_class = slope[x.few() ? c : 0];
      if (!x.few()) agreement.slope(prepared, x, c, of_class);
      for (int s = 0; s < x.maps; ++s)
        if (gradient[s])
          add_lanes(gradient[s] + x.row * x.classes + c, x.classes,
                    W(up * (of_class[s] - x.p(s, c) * total[s])));
    }
  }
};

/// A loss that compares 2 to 8 maps of logits voxel by voxel: one pass forward, one backward, and
/// no map of probabilities between them. Where ranks train together, of the voxels of all.
///
///   shapes   logits[i] (cases, spatial..., classes), all alike; result scalar
///   throws   ShapeError for another number of maps, or for maps that differ in shape
template <Agreement A, FeatureMap F>
Scalar<F> agreement(const A& how, const std::vector<F>& logits) {
  using T = typename F::value_type;
  using W = typename F::Wide;
  using D = typename F::device;
  const int maps = int(logits.size()), most = LogitMaps<T>::most;
  require(maps >= 2 && maps <= most, "agreement", maps, " predictions; give 2 to ", most);
  const Grid grid = logits[0].grid();
  std::vector<F> seen;
  bool tracked = false;
  LogitMaps<T> x{{}, maps, grid.channels};
  for (const F& one : logits) {
    require(one.grid() == grid, "agreement", "shapes differ: ", grid, " and ", one.grid());
    seen.push_back(value(one));
    tracked |= seen.back().tracked();
    x.z[seen.size() - 1] = seen.back().data();
  }
  const int width = how.sums(maps);
  const double voxels = double(grid.rows() * Ranks::current().size());
  Scalar<F> y(tracked);
  constexpr int lanes = lanes_of<D>;
  const Index rows = grid.rows(), items = (rows + lanes - 1) / lanes;
  auto sums = over_ranks(reduce<D>(1, items, width, AgreementSums<T, A, lanes>{how, x, rows}));
  Storage<double, D> slopes(width);
  D::launch(1, FinishAgreement<W, A>{how, maps, width, voxels, sums.write(), slopes.write(),
                                     y.value().write()});
  record_scalar(y, [=](const W* g) {
    AgreementPull<T, A, lanes> pull{how, x, rows, slopes.read(), voxels, g, {}};
    for (int s = 0; s < maps; ++s)
      if (seen[std::size_t(s)].tracked()) pull.gradient[s] = seen[std::size_t(s)].gradient_to_add();
    launch_lanes<D>(rows, pull);
  });
  return y;
}

}  // namespace segmed
