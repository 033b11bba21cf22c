// SPDX-License-Identifier: Apache-2.0
// What is the same in every program that works with maps of float on the processor. The library
// segmed::kernels holds it, and whoever links that does not compile it again.
#pragma once
#include <segmed/autograd/perturb.hpp>
#include <segmed/experiment/session.hpp>
#include <segmed/losses/composition.hpp>
#include <segmed/losses/criterion.hpp>
#include <segmed/losses/entropy.hpp>
#include <segmed/losses/region.hpp>
#include <segmed/nn/layer.hpp>
#include <segmed/train/optimizer.hpp>

#if defined(SEGMED_KERNELS_LINKED) && !defined(SEGMED_TEMPLATE)  // the library sets it itself
#define SEGMED_TEMPLATE extern template
#endif
#if defined(SEGMED_TEMPLATE)
namespace segmed {

SEGMED_TEMPLATE class Storage<float, Cpu>;
SEGMED_TEMPLATE class Param<float, Cpu>;
SEGMED_TEMPLATE class Buffer<float, Cpu>;
SEGMED_TEMPLATE class Group<float, Cpu>;
SEGMED_TEMPLATE class GradientSum<float, Cpu>;
SEGMED_TEMPLATE Storage<double, Cpu> over_ranks(const Storage<double, Cpu>&);
SEGMED_TEMPLATE Storage<double, Cpu> gathered(const Storage<double, Cpu>&);
SEGMED_TEMPLATE Storage<AnnotatedSet, Cpu> gathered(const Storage<AnnotatedSet, Cpu>&);
SEGMED_TEMPLATE Index average<float, Cpu>(const Inventory&, const Inventory&, double);
SEGMED_TEMPLATE double clip_gradients(Group<float, Cpu>&, double);
SEGMED_TEMPLATE void Sgd::step(Group<float, Cpu>&, const Clock<Cpu>&) const;
SEGMED_TEMPLATE void AdamW::step(Group<float, Cpu>&, const Clock<Cpu>&) const;

#define SEGMED_OPS(F)                                                                      \
  SEGMED_TEMPLATE class Features<F::dim, float, Cpu>;                                      \
  SEGMED_TEMPLATE F value(const F&);                                                       \
  SEGMED_TEMPLATE F pending(F);                                                            \
  SEGMED_TEMPLATE F detach(const F&);                                                      \
  SEGMED_TEMPLATE F concat(const F&, const F&);                                            \
  SEGMED_TEMPLATE F operator+(const F&, const F&);                                         \
  SEGMED_TEMPLATE F operator-(const F&, const F&);                                         \
  SEGMED_TEMPLATE F operator*(const F&, const F&);                                         \
  SEGMED_TEMPLATE F operator/(const F&, const F&);                                         \
  SEGMED_TEMPLATE F scaled(const F&, double, double);                                      \
  SEGMED_TEMPLATE F where(const F&, const F&, const F&);                                   \
  SEGMED_TEMPLATE F conv(const F&, const F::P&, const F::P&, const ConvGeometry<F::dim>&); \
  SEGMED_TEMPLATE F transposed_conv(const F&, const F::P&, const F::P&,                    \
                                    const ConvGeometry<F::dim>&);                          \
  SEGMED_TEMPLATE F normalize(const F&, NormSets, const F::P&, const F::P&, double,        \
                              const Running<float, Cpu>&);                                 \
  SEGMED_TEMPLATE F leaky_relu(const F&, double);                                          \
  SEGMED_TEMPLATE F prelu(const F&, const F::P&);                                          \
  SEGMED_TEMPLATE F map(math::Gelu, const F&);                                             \
  SEGMED_TEMPLATE F map(math::Silu, const F&);                                             \
  SEGMED_TEMPLATE F map(math::Drop, const F&);                                             \
  SEGMED_TEMPLATE F map(math::Noise, const F&);                                            \
  SEGMED_TEMPLATE F softmax(const F&);                                                     \
  SEGMED_TEMPLATE F dropout(const F&, float);                                              \
  SEGMED_TEMPLATE F channel_dropout(const F&, float);                                      \
  SEGMED_TEMPLATE F add_noise(const F&, float);                                            \
  SEGMED_TEMPLATE F rearranged(const F&, Rearrange, double);                               \
  SEGMED_TEMPLATE F crop(const F&, const std::array<Index, F::dim>&,                       \
                         const std::array<Index, F::dim>&);                                \
  SEGMED_TEMPLATE F pad(const F&, const std::array<Index, F::dim>&,                        \
                        const std::array<Index, F::dim>&, double);                         \
  SEGMED_TEMPLATE F flip(const F&, std::size_t);                                           \
  SEGMED_TEMPLATE F stretch(const F&, const std::array<Index, F::dim>&, Interpolation);    \
  SEGMED_TEMPLATE F upsample(const F&, const std::array<Index, F::dim>&, Interpolation);   \
  SEGMED_TEMPLATE F max_pool(const F&, const std::array<Index, F::dim>&,                   \
                             const std::array<Index, F::dim>&);                            \
  SEGMED_TEMPLATE class Scalar<F>;                                                         \
  SEGMED_TEMPLATE void backward(const Scalar<F>&, const OnReady&);                         \
  SEGMED_TEMPLATE Scalar<F> operator*(float, const Scalar<F>&);                            \
  SEGMED_TEMPLATE Scalar<F> operator*(Ramp, const Scalar<F>&);                             \
  SEGMED_TEMPLATE Scalar<F> operator+(const Scalar<F>&, const Scalar<F>&);                 \
  SEGMED_TEMPLATE Scalar<F> mean(const F&);                                                \
  SEGMED_TEMPLATE Scalar<F> mean_square(const F&, const F&);                               \
  SEGMED_TEMPLATE Scalar<F> mean_square(const F&, double);                                 \
  SEGMED_TEMPLATE Scalar<F> voxel_loss(const Sum<Dice, CrossEntropy>&, const F&,           \
                                       const Labels<Cpu>&);                                \
  SEGMED_TEMPLATE Scalar<F> voxel_loss(const Sum<Dice, Weighted<CrossEntropy>>&, const F&, \
                                       const Labels<Cpu>&);                                \
  SEGMED_TEMPLATE class Learner<F>;                                                        \
  SEGMED_TEMPLATE class RunSession<F>

using Features2 = Features<2, float, Cpu>;
using Features3 = Features<3, float, Cpu>;
SEGMED_OPS(Features2);
SEGMED_OPS(Features3);
#undef SEGMED_OPS
#undef SEGMED_TEMPLATE

}  // namespace segmed
#endif
