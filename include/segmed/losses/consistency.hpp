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
  static constexpr bool logs = true;
  struct None {};
  int sums(int) const { return 1; }
  template <class O>
  SEGMED_HD void add(double* sum, const O& x) const {
    for (Index c = 0; c < x.classes; ++c)
      sum[0] += 0.5 * math::total((x.p(0, c) - x.p(1, c)) * (x.log_p(0, c) - x.log_p(1, c)));
  }
  SEGMED_HD double finish(const double* mean, double* slope, int) const {
    slope[0] = 1;
    return mean[0];
  }
  template <class O>
  SEGMED_HD None prepared(const double*, const O&) const {
    return {};
  }
  template <class O>
  SEGMED_HD void slope(None, const O& x, Index c, typename O::W* out) const {
    using W = typename O::W;
    const W p = x.p(0, c), q = x.p(1, c), apart = x.log_p(0, c) - x.log_p(1, c);
    out[0] = W(0.5) * (p * apart + p - q);
    out[1] = W(0.5) * (q - p - q * apart);
  }
};

/// Each prediction's mean squared distance to each other one, sharpened: to p^(1/temperature) over
/// its sum. The sharpened ones are given; the sum over ordered pairs.
///
///   source   Wu et al., MC-Net+, 2022, arXiv:2109.09960, eq. 2 and 3, for any number of classes
struct SharpenedDistance {
  static constexpr bool logs = false;
  float temperature = 0.1f;

  template <class O>
  struct Sharpened {
    using W = typename O::W;
    W log_sum[O::most], kept[O::most][O::kept], factor;
    SEGMED_HD Sharpened(W by, const O& x) : factor(by) {
      for (int s = 0; s < x.maps; ++s) {
        const W sum = x.softmax_sum(s, factor, kept[s]);
        if (!x.few()) log_sum[s] = math::fast_log(sum);
      }
    }
    SEGMED_HD W operator()(const O& x, int s, Index c) const {
      return x.few() ? kept[s][c]
                     : math::fast_exp(factor * (x.logit(s, c) - x.top[s]) - log_sum[s]);
    }
  };
  int sums(int) const { return 1; }
  template <class O>
  SEGMED_HD void add(double* sum, const O& x) const {
    using W = typename O::W;
    const Sharpened<O> sharp = prepared(nullptr, x);
    W total = typename O::Number(0);
    for (Index c = 0; c < x.classes; ++c)
      for (int s = 0; s < x.maps; ++s) {
        const W q = sharp(x, s, c);
        for (int r = 0; r < x.maps; ++r) {
          if (r == s) continue;
          const W apart = x.p(r, c) - q;
          total += apart * apart;
        }
      }
    sum[0] += math::total(total) / double(x.classes);
  }
  SEGMED_HD double finish(const double* mean, double* slope, int) const {
    slope[0] = 1;
    return mean[0];
  }
  template <class O>
  SEGMED_HD Sharpened<O> prepared(const double*, const O& x) const {
    return {typename O::Number(1 / temperature), x};
  }
  template <class O>
  SEGMED_HD void slope(const Sharpened<O>& sharp, const O& x, Index c, typename O::W* out) const {
    using W = typename O::W;
    using Number = typename O::Number;
    const W others_of_all = Number(x.maps - 1), two = Number(2) / Number(x.classes);
    W total = Number(0);
    for (int s = 0; s < x.maps; ++s) total += sharp(x, s, c);
    for (int s = 0; s < x.maps; ++s) {
      const W p = x.p(s, c), others = total - sharp(x, s, c);
      out[s] = two * p * (others_of_all * p - others);
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
  static constexpr bool logs = true;
  template <class W>
  struct Mean {
    W p, log_p;
  };
  template <class O>
  struct Uncertain {
    using W = typename O::W;
    using Number = typename O::Number;
    W divergence[O::most], square[O::most];        // V, and the mean of (m - p)^2
    W by_divergence[O::most], by_square[O::most];  // slopes of the loss in them
    Mean<W> mean[O::kept];                         // of each class, if few
    SEGMED_HD explicit Uncertain(const O& x) {
      const W share = Number(1) / Number(x.classes);
      for (int s = 0; s < x.maps; ++s) divergence[s] = square[s] = Number(0);
      for (Index c = 0; c < x.classes; ++c) {
        const Mean<W> m = mean_of_maps(x, c);
        if (x.few()) mean[c] = m;
        for (int s = 0; s < x.maps; ++s) {
          const W apart = m.p - x.p(s, c);
          divergence[s] += m.p * (m.log_p - x.log_p(s, c));
          square[s] += share * (apart * apart);
        }
      }
    }
  };
  /// A class's mean probability. Where all of them vanish its log does not matter, if it is finite.
  template <class O>
  SEGMED_HD static Mean<typename O::W> mean_of_maps(const O& x, Index c) {
    using W = typename O::W;
    using Number = typename O::Number;
    W sum = Number(0);
    for (int s = 0; s < x.maps; ++s) sum += x.p(s, c);
    const W m = sum * W(Number(1) / Number(x.maps));
    return {m, math::fast_log(math::larger(m, W(Number(1e-37))))};
  }
  int sums(int maps) const { return 3 * maps; }
  template <class O>
  SEGMED_HD void add(double* sum, const O& x) const {
    const Uncertain<O> u(x);
    for (int s = 0; s < x.maps; ++s) {
      const typename O::W sure = math::fast_exp(-u.divergence[s]);
      sum[3 * s] += math::total(u.square[s] * sure);
      sum[3 * s + 1] += math::total(sure);
      sum[3 * s + 2] += math::total(u.divergence[s]);
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
  template <class O>
  SEGMED_HD Uncertain<O> prepared(const double* slopes, const O& x) const {
    using W = typename O::W;
    using Number = typename O::Number;
    Uncertain<O> u(x);
    for (int s = 0; s < x.maps; ++s) {
      const double* const by = slopes + 3 * s;
      const W sure = math::fast_exp(-u.divergence[s]);
      u.by_square[s] = W(Number(by[0])) * sure;
      u.by_divergence[s] =
          W(Number(by[2])) - sure * (W(Number(by[0])) * u.square[s] + W(Number(by[1])));
    }
    return u;
  }
  template <class O>
  SEGMED_HD void slope(const Uncertain<O>& u, const O& x, Index c, typename O::W* out) const {
    using W = typename O::W;
    using Number = typename O::Number;
    const Mean<W> m = x.few() ? u.mean[c] : mean_of_maps(x, c);
    const W two = Number(2) / Number(x.classes), share = Number(1) / Number(x.maps);
    W through_mean = Number(0);  // a constant less: it vanishes over the classes
    for (int s = 0; s < x.maps; ++s)
      through_mean +=
          u.by_divergence[s] * (m.log_p - x.log_p(s, c)) + u.by_square[s] * two * (m.p - x.p(s, c));
    for (int s = 0; s < x.maps; ++s) {
      const W p = x.p(s, c);
      out[s] = p * share * through_mean - u.by_divergence[s] * m.p -
               u.by_square[s] * two * (m.p - p) * p;
    }
  }
};

}  // namespace segmed
