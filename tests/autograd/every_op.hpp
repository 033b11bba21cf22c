// SPDX-License-Identifier: Apache-2.0
// Every op on small maps, for any number type and device: what two of them give can be compared.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include <segmed/autograd/convolution.hpp>
#include <segmed/autograd/dynamic_convolution.hpp>
#include <segmed/autograd/gradient_check.hpp>
#include <segmed/autograd/group.hpp>
#include <segmed/autograd/layer_norm.hpp>
#include <segmed/autograd/leaky_convolution.hpp>
#include <segmed/autograd/normalize.hpp>
#include <segmed/autograd/perturb.hpp>
#include <segmed/autograd/pool.hpp>
#include <segmed/autograd/recompute.hpp>
#include <segmed/autograd/spatial.hpp>
#include <segmed/autograd/stretch.hpp>
#include <segmed/autograd/warp.hpp>
#include <segmed/autograd/weighted.hpp>
#include <segmed/core/bfloat16.hpp>
#include <segmed/losses/composition.hpp>
#include <segmed/losses/consistency.hpp>
#include <segmed/losses/criterion.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/partial.hpp>
#include <segmed/losses/region.hpp>

namespace every_op {

using namespace segmed;

/// What an op gives, and the gradients of its maps and of its weights, each as one part.
using Outcome = std::vector<std::vector<double>>;

/// Between -1 and 1, and the same in every type.
inline std::vector<float> numbers(Index size, std::uint64_t seed) {
  const Philox random{seed, Purpose::sample};
  std::vector<float> all;
  for (Index i = 0; i < size; ++i) all.push_back(Bfloat16(random.uniform(i, -1, 1)));
  return all;
}
template <class F>
F leaf(const Grid& grid, std::uint64_t seed) {
  std::vector<typename F::value_type> values;
  for (const float x : numbers(grid.size(), seed))
    values.push_back(typename F::value_type(typename F::Wide(x)));
  return F::leaf(grid, values);
}
template <class F>
struct Weights {
  using P = typename F::P;
  std::vector<P> list;

  explicit Weights(const std::vector<Index>& sizes) {
    std::uint64_t seed = 100;
    for (const Index size : sizes) {
      const auto values = numbers(size, seed++);
      list.emplace_back(size);
      list.back().value().assign({values.begin(), values.end()});
    }
  }
  const P& operator[](std::size_t i) const { return list[i]; }
  static void members(auto& self, auto&& visit) { visit("list", self.list); }
};
/// An op's maps and weights: `op(in)` is a map or a scalar.
template <class F>
struct Inputs {
  using Map = F;
  std::vector<F> x;
  Weights<F> w;
  typename F::P none{};
};

template <class T>
void put(Outcome& into, const std::vector<T>& values) {
  std::vector<double> part;
  for (const T& x : values) part.push_back(double(Wide<T>(x)));
  into.push_back(std::move(part));
}
template <class F, class Op>
Outcome outcome(const std::vector<Grid>& grids, const std::vector<Index>& sizes, const Op& op) {
  using T = typename F::value_type;
  Tape::current()->clear();
  Inputs<F> in{{}, Weights<F>(sizes)};
  for (std::size_t i = 0; i < grids.size(); ++i) in.x.push_back(leaf<F>(grids[i], 10 + i));
  GroupOf<F> group(Role::trained, in.w);
  Draws::current() = {};
  Outcome all;
  const auto made = op(in);
  if constexpr (FeatureMap<std::remove_cvref_t<decltype(made)>>) {
    const F y = value(made);
    backward(probe(y));
    put(all, y.dense().value.host());
  } else {
    backward(made);
    put(all, std::vector<double>{made.host()});
  }
  for (const F& x : in.x) put(all, x.gradient().empty() ? std::vector<T>{} : x.gradient().host());
  put(all, group.grads.host());
  return all;
}
/// The largest distance of a part from that of `truth`, relative to its size, in the square mean.
inline double apart(const Outcome& made, const Outcome& truth) {
  if (made.size() != truth.size()) return INFINITY;
  double worst = 0;
  for (std::size_t k = 0; k < made.size(); ++k) {
    if (made[k].size() != truth[k].size()) return INFINITY;
    double off = 0, size = 0;
    for (std::size_t i = 0; i < made[k].size(); ++i) {
      off += (made[k][i] - truth[k][i]) * (made[k][i] - truth[k][i]);
      size += truth[k][i] * truth[k][i];
    }
    const double error = off == 0 ? 0 : std::sqrt(off / size);
    worst = !(error <= worst) ? error : worst;
  }
  return worst;
}

inline const Grid cube{2, 6, 6, 8, 4};

/// Labels 0 to classes - 1 on a grid, some ignored; the last case does not annotate class 2.
template <class F>
Labels<typename F::device> labels_on(const Grid& grid, bool partial) {
  const Philox random{3, Purpose::sample};
  std::vector<std::uint8_t> values;
  for (Index i = 0; i < grid.rows(); ++i) {
    const Index label = random.below(i, grid.channels + 1);
    values.push_back(label == grid.channels ? ignored : std::uint8_t(label));
  }
  std::vector<AnnotatedSet> sets(std::size_t(grid.cases), AnnotatedSet::all(grid.channels));
  if (partial) sets.back() = AnnotatedSet{}.with(0).with(1);
  return labels_of<typename F::device>(grid, values, sets);
}

/// Of chains of ops: a value that rounding carries across the kink changes the gradient visibly
/// where the leak is small.
inline constexpr double leak = 0.4;

/// visit(name, grids, sizes of weights, op) for every one.
template <class Visit>
void each(const Visit& visit) {
  using G = ConvGeometry<3>;
  const auto conv_of = [](const G& g) {
    return [g](const auto& in) { return conv(in.x[0], in.w[0], in.w[1], g); };
  };
  visit("conv 3x3x3", {cube}, {27 * 4 * 8, 8}, conv_of(G::cubic(3)));
  visit("conv 3x3x3, 16 to 32", {{2, 4, 6, 8, 16}}, {27 * 16 * 32, 32}, conv_of(G::cubic(3)));
  visit("conv, one channel", {{2, 6, 6, 8, 1}}, {27 * 8, 8}, conv_of(G::cubic(3)));
  visit("conv, odd extents and channels", {{1, 5, 7, 3, 3}}, {27 * 3 * 5, 5}, conv_of(G::cubic(3)));
  visit("conv, strided", {cube}, {27 * 4 * 8, 8}, conv_of(G::cubic(3, 2)));
  visit("conv, dilated", {cube}, {27 * 4 * 8, 8}, conv_of(G::cubic(3, 1, -1, 2)));
  visit("conv, in groups", {cube}, {27 * 2 * 8, 8}, conv_of(G::cubic(3, 1, -1, 1, 2)));
  visit("conv 1x1x1", {cube}, {4 * 3, 3}, conv_of(G::cubic(1)));
  visit("conv, flat kernel", {cube}, {9 * 4 * 8, 8},
        conv_of(G{{1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}}));
  visit("transposed conv", {cube}, {8 * 3 * 4, 3}, [](const auto& in) {
    return transposed_conv(in.x[0], in.w[0], in.w[1], G::cubic(2, 2, 0));
  });
  visit("transposed conv, 16 to 8", {{2, 4, 4, 6, 16}}, {8 * 8 * 16, 8}, [](const auto& in) {
    return transposed_conv(in.x[0], in.w[0], in.w[1], G::cubic(2, 2, 0));
  });
  visit("leaky conv", {cube}, {27 * 4 * 8, 8},
        [](const auto& in) { return leaky_conv(in.x[0], in.w[0], in.w[1], G::cubic(3), leak); });
  visit("leaky conv, norm, conv", {cube}, {27 * 4 * 8, 8, 8, 27 * 8 * 4}, [](const auto& in) {
    const auto y = leaky_conv(in.x[0], in.w[0], in.none, G::cubic(3), leak);
    return conv(instance_norm(y, in.w[1], in.w[2]), in.w[3], in.none, G::cubic(3));
  });
  visit("conv of two sources", {cube, cube}, {27 * 8 * 8}, [](const auto& in) {
    return conv(concat(in.x[0], in.x[1]), in.w[0], in.none, G::cubic(3));
  });
  visit("conv, norm, leak, conv", {cube}, {27 * 4 * 8, 8, 8, 27 * 8 * 4}, [](const auto& in) {
    const auto y = conv(in.x[0], in.w[0], in.none, G::cubic(3));
    return conv(leaky_relu(instance_norm(y, in.w[1], in.w[2]), leak), in.w[3], in.none,
                G::cubic(3));
  });

  visit("instance norm", {cube}, {4, 4},
        [](const auto& in) { return leaky_relu(instance_norm(in.x[0], in.w[0], in.w[1]), 0.01); });
  visit("group norm", {cube}, {27 * 4 * 8, 8, 8}, [](const auto& in) {
    const auto y = conv(in.x[0], in.w[0], in.none, G::cubic(3));
    return leaky_relu(group_norm(y, 2, in.w[1], in.w[2]), leak);
  });
  visit("batch norm", {cube}, {27 * 4 * 8, 8, 8}, [](const auto& in) {
    const auto y = conv(in.x[0], in.w[0], in.none, G::cubic(3));
    return leaky_relu(batch_norm(y, in.w[1], in.w[2]), leak);
  });
  visit("layer norm", {{2, 3, 5, 4, 19}}, {19, 19},
        [](const auto& in) { return layer_norm(in.x[0], in.w[0], in.w[1]); });
  visit("conv, layer norm, leak", {cube}, {27 * 4 * 8, 8, 8}, [](const auto& in) {
    const auto y = conv(in.x[0], in.w[0], in.none, G::cubic(3));
    return leaky_relu(layer_norm(y, in.w[1], in.w[2]), leak);
  });
  visit("prelu", {cube}, {4}, [](const auto& in) { return prelu(in.x[0], in.w[0]); });
  visit("residual", {cube}, {27 * 4 * 4, 4, 4}, [](const auto& in) {
    const auto y = conv(in.x[0], in.w[0], in.none, G::cubic(3));
    return leaky_relu(instance_norm(y, in.w[1], in.w[2]) + in.x[0], leak);
  });
  visit("recomputed", {cube}, {4, 4}, [](const auto& in) {
    const auto block = [&in](const auto& x) { return instance_norm(x, in.w[0], in.w[1]); };
    return leaky_relu(recompute(block, in.x[0]), 0.1);
  });

  const auto mapped = [](auto f) { return [f](const auto& in) { return map(f, in.x[0]); }; };
  visit("gelu", {cube}, {}, mapped(math::Gelu{}));
  visit("silu", {cube}, {}, mapped(math::Silu{}));
  visit("sigmoid", {cube}, {}, mapped(math::Sigmoid{}));
  visit("tanh", {cube}, {}, mapped(math::Tanh{}));
  visit("exp", {cube}, {}, mapped(math::Exp{}));
  visit("scaled", {cube}, {}, [](const auto& in) { return scaled(in.x[0], 3, -1); });
  visit("sum", {cube, cube}, {}, [](const auto& in) { return in.x[0] + in.x[1]; });
  visit("difference", {cube, cube}, {}, [](const auto& in) { return in.x[0] - in.x[1]; });
  visit("product", {cube, cube}, {}, [](const auto& in) { return in.x[0] * in.x[1]; });
  visit("quotient", {cube, cube}, {},
        [](const auto& in) { return in.x[0] / map(math::Exp{}, in.x[1]); });
  visit("where", {cube, cube}, {},
        [](const auto& in) { return where(in.x[0], in.x[1], scaled(in.x[0], 2)); });
  visit("softmax", {cube}, {}, [](const auto& in) { return softmax(in.x[0]); });
  visit("dropout", {cube}, {}, [](const auto& in) { return dropout(in.x[0], 0.3f); });
  visit("noise", {cube}, {}, [](const auto& in) { return add_noise(in.x[0], 0.3f, 0.5f); });
  visit("channel dropout", {cube}, {},
        [](const auto& in) { return channel_dropout(in.x[0], 0.3f); });
  visit("feature noise", {cube}, {}, [](const auto& in) { return feature_noise(in.x[0], 0.3f); });

  visit("pooling", {cube}, {}, [](const auto& in) {
    return max_pool(in.x[0], {2, 2, 2}, {2, 2, 2});
  });
  visit("pooling, overlapping", {cube}, {}, [](const auto& in) {
    return max_pool(in.x[0], {3, 3, 3}, {1, 1, 1});
  });
  visit("mean over voxels", {cube}, {}, [](const auto& in) { return spatial_mean(in.x[0]); });
  visit("upsampling, linear", {cube}, {}, [](const auto& in) {
    return upsample(in.x[0], {2, 2, 2}, Interpolation::linear);
  });
  visit("upsampling, nearest", {cube}, {}, [](const auto& in) {
    return upsample(in.x[0], {2, 2, 2}, Interpolation::nearest);
  });
  visit("flip and turn", {cube}, {},
        [](const auto& in) { return rot90(flip(in.x[0], 2), 1, 0, 1); });
  visit("crop and pad", {cube}, {}, [](const auto& in) {
    return pad(crop(in.x[0], {1, 1, 1}, {0, 1, 2}), {1, 0, 0}, {0, 0, 1}, 0.5);
  });
  visit("channels", {cube}, {}, [](const auto& in) {
    return concat(channel_range(in.x[0], 1, 2), channel_range(in.x[0], 0, 1));
  });
  visit("warp", {cube}, {},
        [](const auto& in) { return warp(in.x[0], channel_range(detach(in.x[0]), 0, 3), 2.0f); });
  visit("chains of weights", {{2, 3, 3, 3, 8}, {2, 1, 1, 2, 153}}, {},
        [](const auto& in) { return pointwise_chains(in.x[0], in.x[1]); });

  const auto loss_of = [](auto loss, bool partial) {
    return [loss, partial](const auto& in) {
      using F = typename std::remove_cvref_t<decltype(in)>::Map;
      return Criterion<decltype(loss)>{loss}(in.x[0], labels_on<F>(in.x[0].grid(), partial));
    };
  };
  const Grid large{2, 8, 24, 24, 4};  // more than one block of voxels
  visit("Dice and cross-entropy", {large}, {}, loss_of(Sum{Dice{}, CrossEntropy{}}, false));
  visit("marginal", {large}, {}, loss_of(Marginal{Sum{Dice{}, CrossEntropy{}}}, true));
  visit("exclusion", {large}, {}, loss_of(Exclusion{}, true));
  visit("focal", {large}, {}, loss_of(Focal{}, false));
  visit("mean square", {cube, cube}, {},
        [](const auto& in) { return mean_square(in.x[0], in.x[1]); });
  visit("symmetric divergence", {cube, cube}, {}, [](const auto& in) {
    return agreement(SymmetricDivergence{}, std::vector{in.x[0], in.x[1]});
  });
  visit("rectified distance", {cube, cube}, {}, [](const auto& in) {
    return agreement(RectifiedDistance{}, std::vector{in.x[0], in.x[1]});
  });
}

}  // namespace every_op
