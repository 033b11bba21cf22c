// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <segmed/backend/communicator.hpp>
#include <segmed/tensor/storage.hpp>

namespace segmed {

/// The numbers of all ranks that train with this thread, one rank after the other, as the cases of
/// a batch lie; its own, where there are no others.
template <class T, Device D>
Storage<T, D> gathered(const Storage<T, D>& mine) {
  const Ranks& ranks = Ranks::current();
  return ranks.alone() ? mine : Storage<T, D>(ranks.gathered(mine.host()));
}

/// Sums over all ranks, added in their order: the same bits on each.
template <Device D>
Storage<double, D> over_ranks(const Storage<double, D>& mine) {
  const Ranks& ranks = Ranks::current();
  if (ranks.alone()) return mine;
  const std::vector<double> all = ranks.gathered(mine.host());
  std::vector<double> sums(std::size_t(mine.size()), 0.0);
  for (std::size_t i = 0; i < all.size(); ++i) sums[i % sums.size()] += all[i];
  return Storage<double, D>(sums);
}

}  // namespace segmed
