// SPDX-License-Identifier: Apache-2.0
// Terms that ask several predictions of the same voxels to agree.
#pragma once
#include <segmed/losses/agreement.hpp>

namespace segmed {

/// Half the sum of both Kullback-Leibler divergences between the first two predictions, over the
/// classes of each voxel; both learn.
///
///   units    nats
///   source   Liang et al., R-Drop, 2021, arXiv:2106.14448, eq. 2
struct SymmetricDivergence {
  struct None {};
  int sums(int) const { return 1; }
  template <class T>
  SEGMED_HD void add(double* sum, const Opinions<T>& x) const {
    for (Index c = 0; c < x.classes; ++c)
      sum[0] += 0.5 * double((x.p(0, c) - x.p(1, c)) * (x.log_p(0, c) - x.log_p(1, c)));
  }
  SEGMED_HD double finish(const double* mean, double* slope, int) const {
    slope[0] = 1;
    return mean[0];
  }
  template <class T>
  SEGMED_HD None prepared(const double*, const Opinions<T>&) const {
    return {};
  }
  template <class T>
  SEGMED_HD void slope(None, const Opinions<T>& x, Index c, Wide<T>* out) const {
    const Wide<T> p = x.p(0, c), q = x.p(1, c), apart = x.log_p(0, c) - x.log_p(1, c);
    out[0] = Wide<T>(0.5) * (p * apart + p - q);
    out[1] = Wide<T>(0.5) * (q - p - q * apart);
  }
};

/// Each prediction's mean squared distance to each other one, sharpened: to p^(1/temperature) over
/// its sum. The sharpened ones are given; the sum over ordered pairs.
///
///   source   Wu et al., MC-Net+, 2022, arXiv:2109.09960, eq. 2 and 3, for any number of classes
struct SharpenedDistance {
  float temperature = 0.1f;

  template <class T>
  struct Sharpened {
    using W = Wide<T>;
    W log_sum[Opinions<T>::most], kept[Opinions<T>::most][Opinions<T>::kept], factor;
    SEGMED_HD Sharpened(W by, const Opinions<T>& x) : factor(by) {
      for (int s = 0; s < x.maps; ++s) log_sum[s] = x.log_softmax_sum(s, factor, kept[s]);
    }
    SEGMED_HD W operator()(const Opinions<T>& x, int s, Index c) const {
      return x.classes <= x.kept ? kept[s][c]
                                 : math::fast_exp(factor * (x.logit(s, c) - x.top[s]) - log_sum[s]);
    }
  };
  int sums(int) const { return 1; }
  template <class T>
  SEGMED_HD void add(double* sum, const Opinions<T>& x) const {
    const Sharpened<T> sharp = prepared(nullptr, x);
    double total = 0;
    for (Index c = 0; c < x.classes; ++c)
      for (int s = 0; s < x.maps; ++s) {
        const double q = double(sharp(x, s, c));
        for (int r = 0; r < x.maps; ++r) {
          const double apart = double(x.p(r, c)) - q;
          total += r == s ? 0 : apart * apart;
        }
      }
    sum[0] += total / double(x.classes);
  }
  SEGMED_HD double finish(const double* mean, double* slope, int) const {
    slope[0] = 1;
    return mean[0];
  }
  template <class T>
  SEGMED_HD Sharpened<T> prepared(const double*, const Opinions<T>& x) const {
    return {Wide<T>(1 / temperature), x};
  }
  template <class T>
  SEGMED_HD void slope(const Sharpened<T>& sharp, const Opinions<T>& x, Index c,
                       Wide<T>* out) const {
    Wide<T> total = 0;
    for (int s = 0; s < x.maps; ++s) total += sharp(x, s, c);
    for (int s = 0; s < x.maps; ++s) {
      const Wide<T> p = x.p(s, c), others = total - sharp(x, s, c);
      out[s] = 2 * p * (Wide<T>(x.maps - 1) * p - others) / Wide<T>(x.classes);
    }
  }
};

/// The distance of each prediction to their mean m, less where it diverges from it, and that
/// divergence V = sum over classes of m (log m - log p): the mean over the maps of
/// mean((m - p)^2 e^-V) / mean(e^-V) + mean(V). All of them learn.
///
///   units    nats for V
///   source   Luo et al., URPC, 2021, arXiv:2012.07042, eq. 3 to 6
struct RectifiedDistance {
  template <class W>
  struct Mean {
    W p, log_p;
  };
  template <class T>
  struct Uncertain {
    using W = Wide<T>;
    W divergence[Opinions<T>::most], square[Opinions<T>::most];  // V, and the mean of (m - p)^2
    W by_divergence[Opinions<T>::most], by_square[Opinions<T>::most];  // slopes of the loss in them
    Mean<W> mean[Opinions<T>::kept];                                   // of each class, if few
    SEGMED_HD explicit Uncertain(const Opinions<T>& x) : by_divergence{}, by_square{} {
      for (int s = 0; s < x.maps; ++s) divergence[s] = square[s] = 0;
      for (Index c = 0; c < x.classes; ++c) {
        const Mean<W> m = mean_of_maps(x, c);
        if (x.classes <= x.kept) mean[c] = m;
        for (int s = 0; s < x.maps; ++s) {
          const W apart = m.p - x.p(s, c);
          divergence[s] += m.p * (m.log_p - x.log_p(s, c));
          square[s] += apart * apart / W(x.classes);
        }
      }
    }
  };
  /// A class's mean probability. Where all of them vanish its log does not matter, if it is finite.
  template <class T>
  SEGMED_HD static Mean<Wide<T>> mean_of_maps(const Opinions<T>& x, Index c) {
    Wide<T> sum = 0;
    for (int s = 0; s < x.maps; ++s) sum += x.p(s, c);
    const Wide<T> m = sum / Wide<T>(x.maps), least = Wide<T>(1e-37);
    return {m, math::fast_log(m > least ? m : least)};
  }
  int sums(int maps) const { return 3 * maps; }
  template <class T>
  SEGMED_HD void add(double* sum, const Opinions<T>& x) const {
    const Uncertain<T> u(x);
    for (int s = 0; s < x.maps; ++s) {
      const double sure = math::fast_exp(-double(u.divergence[s]));
      sum[3 * s] += double(u.square[s]) * sure;
      sum[3 * s + 1] += sure;
      sum[3 * s + 2] += double(u.divergence[s]);
    }
  }
  SEGMED_HD double finish(const double* mean, double* slope, int maps) const {
    double total = 0;
    for (int s = 0; s < maps; ++s) {
      const double* m = mean + 3 * s;
      const double bottom = m[1] + 1e-8;  // as the authors' script
      total += (m[0] / bottom + m[2]) / maps;
      slope[3 * s] = 1 / (bottom * maps);
      slope[3 * s + 1] = -m[0] / (bottom * bottom * maps);
      slope[3 * s + 2] = 1.0 / maps;
    }
    return total;
  }
  template <class T>
  SEGMED_HD Uncertain<T> prepared(const double* slopes, const Opinions<T>& x) const {
    Uncertain<T> u(x);
    for (int s = 0; s < x.maps; ++s) {
      const double sure = math::fast_exp(-double(u.divergence[s]));
      u.by_square[s] = Wide<T>(slopes[3 * s] * sure);
      u.by_divergence[s] = Wide<T>(
          slopes[3 * s + 2] - sure * (slopes[3 * s] * double(u.square[s]) + slopes[3 * s + 1]));
    }
    return u;
  }
  template <class T>
  SEGMED_HD void slope(const Uncertain<T>& u, const Opinions<T>& x, Index c, Wide<T>* out) const {
    using W = Wide<T>;
    const Mean<W> m = x.classes <= x.kept ? u.mean[c] : mean_of_maps(x, c);
    const W two = W(2) / W(x.classes);
    W through_mean = 0;  // a constant less: it vanishes over the classes
    for (int s = 0; s < x.maps; ++s)
      through_mean +=
          u.by_divergence[s] * (m.log_p - x.log_p(s, c)) + u.by_square[s] * two * (m.p - x.p(s, c));
    for (int s = 0; s < x.maps; ++s) {
      const W p = x.p(s, c);
      out[s] = p / W(x.maps) * through_mean - u.by_divergence[s] * m.p -
               u.by_square[s] * two * (m.p - p) * p;
    }
  }
};

}  // namespace segmed
