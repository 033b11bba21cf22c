// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <string>
#include <vector>

#include <segmed/autograd/perturb.hpp>
#include <segmed/losses/criterion.hpp>
#include <segmed/nn/network.hpp>
#include <segmed/tensor/clock.hpp>

namespace segmed {

/// What a policy asks the loader to prepare.
struct Needs {
  bool strong_view = false;  // the same voxels under another, stronger change of intensity
  friend constexpr Needs operator|(Needs a, Needs b) { return {a.strong_view || b.strong_view}; }
};

/// A batch of patches. In D_0 every class is annotated; in D_1 the labels say, case by case, which
/// classes they cover.
template <FeatureMap F>
struct Samples {
  F image;
  Labels<typename F::device> labels;
  F strong = {};                        // if needed
  std::vector<std::string> cases = {};  // the id of each item
  bool empty() const { return image.empty(); }
};

/// A loss that is called with outputs at several resolutions.
template <class L, class F>
concept DeepLoss = requires(const L& loss, const std::vector<F>& outputs,
                            const Labels<typename F::device>& labels) {
  loss(outputs, labels);
};

/// Everything a policy sees in one step. The student's outputs are computed once, for whoever asks
/// first, and as the step began: also who asks within `no_grad` or `evaluating` gets what can be
/// trained. Without D_1, `partial` is empty and only `full` may be asked for.
template <Network Net, class Loss>
class SemiStep {
 public:
  using F = typename Net::Features;
  using Value = Scalar<F>;
  using LabelsOf = Labels<typename F::device>;
  Net& student;
  const Loss& loss;  // as the user wrote it
  const Samples<F>&full, &partial;
  const Clock<typename F::device>& clock;

  SemiStep(Net& net, const Loss& user_loss, const Samples<F>& d0, const Samples<F>& d1,
           const Clock<typename F::device>& now)
      : student(net), loss(user_loss), full(d0), partial(d1), clock(now) {}

  const F& logits_full() { return logits(full, full_); }
  const F& logits_partial() { return logits(partial, partial_); }
  /// What the head reads; for networks that show it.
  const F& features_full() requires SplitNetwork<Net> { return features(full, full_); }
  const F& features_partial() requires SplitNetwork<Net> { return features(partial, partial_); }

  /// What the encoder gives, the finest first; for networks that show it.
  const std::vector<F>& levels_full() requires CodedNetwork<Net> { return levels(full, full_); }
  const std::vector<F>& levels_partial() requires CodedNetwork<Net> {
    return levels(partial, partial_);
  }
  /// Logits of D_1 from features of which whole channels are dropped where the decoder reads them,
  /// other ones at every call.
  F spoilt_partial(float dropout) requires CodedNetwork<Net> {
    return student.classify(student.decode(channel_dropout(levels_partial(), dropout)));
  }
  /// Logits at falling resolution, for networks that have them. Who wants the logits too asks for
  /// these first: without a deeply supervised loss, logits asked for before cost another decoding.
  const std::vector<F>& outputs_full() requires DeepNetwork<Net> { return outputs(full, full_); }
  const std::vector<F>& outputs_partial() requires DeepNetwork<Net> {
    return outputs(partial, partial_);
  }

  /// The user's loss of D_0, or of D_1 as it is annotated; deeply supervised if the loss is.
  Value labelled_full() { return labelled(full, full_); }
  Value labelled_partial() { return labelled(partial, partial_); }
  /// The user's loss of any logits and labels.
  Value criterion(const F& z, const LabelsOf& labels) const {
    return criterion_with(voxel_loss(), z, labels);
  }
  /// Another loss of any logits and labels.
  template <class L>
  static Value criterion_with(const L& other, const F& z, const LabelsOf& labels) {
    return Criterion<L>{other}(z, labels);
  }
  /// The user's loss on one map of logits: what is inside of a DeepSupervision.
  const auto& voxel_loss() const {
    if constexpr (DeepLoss<Loss, F> && requires { loss.loss; })
      return loss.loss;
    else
      return loss;
  }

 private:
  const Mode began_ = Mode::current();
  struct Seen {
    std::vector<F> levels, outputs;  // the finest first
    std::optional<F> features, logits;
  } full_, partial_;

  /// The student as the step began, for outputs that are kept.
  Scope as_begun() const {
    return Scope([this](Mode& m) {
      m.record = began_.record, m.training = began_.training, m.weights = began_.weights;
    });
  }
  static void check(const Samples<F>& samples) {
    require<DataError>(!samples.empty(), "SemiStep", "this step has no samples of D_1");
  }
  const std::vector<F>& levels(const Samples<F>& samples, Seen& seen) {
    check(samples);
    const Scope scope = as_begun();
    if (seen.levels.empty()) seen.levels = student.encode(samples.image);
    return seen.levels;
  }
  const F& features(const Samples<F>& samples, Seen& seen) {
    check(samples);
    if (seen.features) return *seen.features;
    const Scope scope = as_begun();
    if constexpr (CodedNetwork<Net>)
      if (codes()) return seen.features.emplace(student.decode(levels(samples, seen)));
    return seen.features.emplace(student.features(samples.image));
  }
  const std::vector<F>& outputs(const Samples<F>& samples, Seen& seen) {
    check(samples);
    if (!seen.outputs.empty()) return seen.outputs;
    const Scope scope = as_begun();
    if constexpr (CodedNetwork<Net> && requires { student.outputs(seen.levels); })
      if (codes()) return seen.outputs = student.outputs(levels(samples, seen));
    return seen.outputs = student.outputs(samples.image);
  }
  const F& logits(const Samples<F>& samples, Seen& seen) {
    check(samples);
    if (!seen.outputs.empty()) return seen.outputs.front();
    if (seen.logits) return *seen.logits;
    const Scope scope = as_begun();
    if constexpr (DeepNetwork<Net> && DeepLoss<Loss, F>) {
      return outputs(samples, seen).front();
    } else if constexpr (SplitNetwork<Net>) {
      // Through the features, because a policy may ask for them as well.
      return seen.logits.emplace(splits() ? student.classify(features(samples, seen))
                                          : student(samples.image));
    } else {
      return seen.logits.emplace(student(samples.image));
    }
  }
  Value labelled(const Samples<F>& samples, Seen& seen) {
    if constexpr (!DeepLoss<Loss, F>)
      return Criterion<Loss>{loss}(logits(samples, seen), samples.labels);
    else if constexpr (DeepNetwork<Net>)
      return Criterion<Loss>{loss}(outputs(samples, seen), samples.labels);
    else
      return Criterion<Loss>{loss}(std::vector<F>{logits(samples, seen)}, samples.labels);
  }
  bool splits() const {
    if constexpr (requires { student.splits(); })
      return student.splits();
    else
      return true;
  }
  bool codes() const {
    if constexpr (requires { student.codes(); })
      return student.codes();
    else
      return true;
  }
};

}  // namespace segmed
