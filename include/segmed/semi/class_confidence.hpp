// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/autograd/param.hpp>
#include <segmed/semi/complete.hpp>

namespace segmed {

/// The mean confidence of each class moves towards that of new voxels; the first one is taken over.
struct FollowConfidence {  // one item per class
  const double* sums;
  float keep;
  float* mean;
  SEGMED_HD void operator()(Index c) const {
    if (!(sums[2 * c + 1] > 0)) return;
    const float now = float(sums[2 * c] / sums[2 * c + 1]);
    mean[c] = mean[c] > 0 ? keep * mean[c] + (1 - keep) * now : now;
  }
};
struct SpreadConfidence {  // one item per class
  const float* mean;
  Index classes;
  float confidence;
  float* out;
  SEGMED_HD void operator()(Index i) const {
    float most = 0;
    for (Index c = 0; c < classes; ++c) most = mean[c] > most ? mean[c] : most;
    out[i] = mean[i] > 0 ? confidence * (mean[i] / most) : confidence;
  }
};

/// How sure a network is of each class, followed from step to step, so that a class of which it is
/// never as sure as of others is asked for less. A class that it never answered yet is asked for as
/// much as the surest.
///
///   source   Wang et al., FreeMatch, 2023, arXiv:2205.07246, and Zhang et al., FlexMatch, 2021,
///            arXiv:2110.08263: a class's confidence as a share of the surest's; the mean goes over
///            the voxels that a class is the answer for instead of over all, which would measure an
///            organ's size, and starts with the first of them; `confidence` itself does not move
template <Device D>
struct ClassConfidence {
  Buffer<float, D> mean;  // 0: not seen yet

  explicit ClassConfidence(Index classes) : mean(classes) {}
  /// Takes notice of an answer; `keep`: how much of the means stays.
  template <FeatureMap F>
  void follow(const Labels<D>& labels, const F& logits, float keep) {
    const Index classes = logits.grid().channels;
    require<ConfigError>(mean.size() >= classes, "ClassConfidence", "has room for ", mean.size(),
                         " classes, not ", classes, "; say so when it is made");
    const auto sums = open_confidence(labels, logits);
    D::launch(classes, FollowConfidence{sums.read(), keep, mean.running().write()});
  }
  /// What `complete` shall ask for each class: `confidence` of the surest, less of others.
  Storage<float, D> least(float confidence) const {
    const auto& means = mean.running();
    Storage<float, D> out(means.size(), Uninitialized{});
    D::launch(means.size(), SpreadConfidence{means.read(), means.size(), confidence, out.write()});
    return out;
  }
  static void members(auto& self, auto&& visit) { visit("mean", self.mean); }
};

}  // namespace segmed
