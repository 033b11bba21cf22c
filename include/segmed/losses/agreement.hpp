// SPDX-License-Identifier: Apache-2.0
// Losses that compare several predictions of the same voxels, without labels.
#pragma once
#include <vector>

#include <segmed/autograd/scalar.hpp>
#include <segmed/losses/exponential.hpp>

namespace segmed {

/// Some maps of logits on one grid.
template <class T>
struct LogitMaps {
  static constexpr int most = 8;
  const T* z[most];
  int count;
  Index classes;
};
/// One voxel as several maps of logits see it. Log-probabilities are formed from logits, so that
/// those of hopeless classes stay finite.
template <class T>
struct Opinions {
  using W = Wide<T>;
  static constexpr int most = LogitMaps<T>::most;
  static constexpr Index kept = 16;  // classes whose probabilities are formed once
  const LogitMaps<T>& from;
  int maps;
  Index classes, row;
  W top[most], log_sum[most];  // the largest logit, and the log of the sum of e^(z - top)

  SEGMED_HD Opinions(const LogitMaps<T>& logits, Index voxel)
      : from(logits), maps(logits.count), classes(logits.classes), row(voxel) {
    for (int s = 0; s < maps; ++s) {
      top[s] = logit(s, 0);
      for (Index c = 1; c < classes; ++c) top[s] = logit(s, c) > top[s] ? logit(s, c) : top[s];
      log_sum[s] = log_softmax_sum(s, W(1), kept_[s]);
    }
  }
  SEGMED_HD W logit(int s, Index c) const { return W(from.z[s][row * classes + c]); }
  SEGMED_HD W log_p(int s, Index c) const { return (logit(s, c) - top[s]) - log_sum[s]; }
  SEGMED_HD W p(int s, Index c) const {
    return classes <= kept ? kept_[s][c] : math::fast_exp(log_p(s, c));
  }
  /// The log of the sum of e^(factor (z - top)); into `kept_p` what each class has of that sum, if
  /// the classes are few.
  SEGMED_HD W log_softmax_sum(int s, W factor, W* kept_p) const {
    W sum = 0;
    for (Index c = 0; c < classes; ++c) {
      const W e = math::fast_exp(factor * (logit(s, c) - top[s]));
      if (classes <= kept) kept_p[c] = e;
      sum += e;
    }
    for (Index c = 0; classes <= kept && c < classes; ++c) kept_p[c] *= 1 / sum;
    return math::fast_log(sum);
  }

 private:
  W kept_[most][kept];
};

/// How far several predictions of a voxel are apart: `sums(maps)` numbers per voxel, of which the
/// loss sees the means; its value and the slopes of them; and the derivative of a voxel's numbers,
/// weighted by those slopes, with respect to the log-probabilities of one class in every map.
template <class A>
concept Agreement = requires(const A& a, const Opinions<float>& x, double* sums,
                             const double* means, float* slopes) {
  { a.sums(2) } -> std::same_as<int>;
  a.add(sums, x);
  { a.finish(means, sums, 2) } -> std::same_as<double>;
  a.slope(a.prepared(means, x), x, Index{}, slopes);
};

template <class T, class A>
struct AgreementSums {  // one item per voxel
  A agreement;
  LogitMaps<T> maps;
  SEGMED_HD void operator()(Index, Index row, double* sums) const {
    agreement.add(sums, Opinions<T>(maps, row));
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
template <class T, class A>
struct AgreementPull {  // one item per voxel
  using W = Wide<T>;
  A agreement;
  LogitMaps<T> maps;
  const double* slopes;
  double voxels;
  const W* g;
  T* gradient[LogitMaps<T>::most];
  SEGMED_HD void operator()(Index row) const {
    const Opinions<T> x(maps, row);
    const auto prepared = agreement.prepared(slopes, x);
    const bool few = x.classes <= x.kept;
    W slope[Opinions<T>::kept][Opinions<T>::most], total[Opinions<T>::most];
    for (int s = 0; s < x.maps; ++s) total[s] = 0;
    for (Index c = 0; c < x.classes; ++c) {
      W* const of_class = slope[few ? c : 0];
      agreement.slope(prepared, x, c, of_class);
      for (int s = 0; s < x.maps; ++s) total[s] += of_class[s];
    }
    const W up = W(double(*g) / voxels);
    for (Index c = 0; c < x.classes; ++c) {
      W* const of_class = slope[few ? c : 0];
      if (!few) agreement.slope(prepared, x, c, of_class);
      for (int s = 0; s < x.maps; ++s) {
        if (!gradient[s]) continue;
        T& to = gradient[s][row * x.classes + c];
        to = T(W(to) + up * (of_class[s] - x.p(s, c) * total[s]));
      }
    }
  }
};

/// A loss that compares 2 to 8 maps of logits voxel by voxel: one pass forward, one backward, and
/// no map of probabilities between them.
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
  const double voxels = double(grid.rows());
  Scalar<F> y(tracked);
  auto sums = reduce<D>(1, grid.rows(), width, AgreementSums<T, A>{how, x});
  Storage<double, D> slopes(width);
  D::launch(1, FinishAgreement<W, A>{how, maps, width, voxels, sums.write(), slopes.write(),
                                     y.value().write()});
  record_scalar(y, [=](const W* g) {
    AgreementPull<T, A> pull{how, x, slopes.read(), voxels, g, {}};
    for (int s = 0; s < maps; ++s)
      if (seen[std::size_t(s)].tracked()) pull.gradient[s] = seen[std::size_t(s)].gradient_to_add();
    D::launch(grid.rows(), pull);
  });
  return y;
}

}  // namespace segmed
