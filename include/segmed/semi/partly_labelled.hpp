// SPDX-License-Identifier: Apache-2.0
// Terms of the labels for policies that say themselves how D_1's labels are read.
#pragma once
#include <segmed/losses/composition.hpp>
#include <segmed/losses/partial.hpp>
#include <segmed/semi/policy.hpp>

namespace segmed {

/// Whether the user's loss of one map of logits takes partial labels by itself.
template <class Now>
constexpr bool user_takes_partial_labels() {
  return takes_partial_labels<std::remove_cvref_t<decltype(std::declval<Now&>().voxel_loss())>>;
}

/// D_0 by the user's loss, D_1 as it is annotated by another loss of its finest logits.
template <class L, class Now>
typename Now::Value labelled_with(const L& loss_of_partial, Now& now) {
  static_assert(takes_partial_labels<L>,
                "labelled_with: D_1 needs a loss that takes partial labels; wrap it in Marginal; "
                "see losses/partial.hpp");
  const auto term = now.labelled_full();
  if (!any_annotated(now.partial)) return term;
  return term + now.criterion_with(loss_of_partial, now.logits_partial(), now.partial.labels);
}

/// D_0 by the user's loss, D_1 by its marginal loss; by the user's loss itself, deeply supervised
/// if it is, where that takes partial labels.
template <class Now>
typename Now::Value labelled_marginally(Now& now) {
  if constexpr (!user_takes_partial_labels<Now>())
    return labelled_with(Marginal{now.voxel_loss()}, now);
  else
    return any_annotated(now.partial) ? now.labelled_full() + now.labelled_partial()
                                      : now.labelled_full();
}

/// The same with D_1's term times a weight, and with another times the exclusion loss of D_1: in
/// the same pass over the logits, or in one more where the user's loss takes partial labels.
template <class Now>
typename Now::Value labelled_marginally(Now& now, float exclusion, float weight = 1) {
  const Weighted excluded{exclusion, Exclusion{}};
  if constexpr (!user_takes_partial_labels<Now>()) {
    return labelled_with(Sum{Weighted{weight, Marginal{now.voxel_loss()}}, excluded}, now);
  } else {
    const auto term = now.labelled_full();
    if (!any_annotated(now.partial)) return term;
    return term + weight * now.labelled_partial() +
           now.criterion_with(excluded, now.logits_partial(), now.partial.labels);
  }
}

/// The part of all organs that the patches of D_1 annotate, over all ranks; 0 without any patch.
template <class Now>
float annotated_part(Now& now) {
  double part = 0, patches = 0;
  std::vector<double> mine(2);
  for (const AnnotatedSet& set : now.partial.labels.annotated) mine[0] += double(set.count());
  mine[1] = double(now.partial.labels.annotated.size());
  const std::vector<double> all = Ranks::current().gathered(mine);
  for (std::size_t i = 0; i < all.size(); i += 2) part += all[i], patches += all[i + 1];
  const Index classes = now.logits_partial().grid().channels;
  return patches > 0 ? float(part / (patches * double(AnnotatedSet::all(classes).count()))) : 0;
}

}  // namespace segmed
