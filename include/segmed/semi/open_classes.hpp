// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/pointwise.hpp>
#include <segmed/core/annotated_set.hpp>

namespace segmed {

/// Keeps the logits of classes that are open and takes every other class out of the softmax.
struct OpenClasses {
  AnnotatedSet annotated;
  Index classes;
  SEGMED_HD bool open(Index i) const { return annotated.open(i % classes); }
  template <class W>
  SEGMED_HD W operator()(W z, Index i) const {
    return open(i) ? z : W(-1e9);
  }
  template <class W>
  SEGMED_HD W slope(W, Index i) const {
    return W(open(i) ? 1 : 0);
  }
};
/// Logits whose softmax is over the classes that `complete` may choose from.
template <FeatureMap F>
F open_logits(const F& logits, const AnnotatedSet& annotated) {
  return map(OpenClasses{annotated, logits.grid().channels}, logits);
}

}  // namespace segmed
