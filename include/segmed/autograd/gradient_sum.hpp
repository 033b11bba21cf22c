// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <type_traits>
#include <unordered_map>

#include <segmed/autograd/group.hpp>
#include <segmed/backend/communicator.hpp>
#include <segmed/backend/cpu.hpp>

namespace segmed {

/// Adds the gradients of all ranks, bucket by bucket, while backward still works on earlier layers:
/// the last parameters' gradients are complete first. Every rank starts the same buckets in the
/// same order, whatever becomes ready when. On a device other than the processor, ranks that do not
/// `add_on_device` add through the host's memory, after backward.
///
///   source   Li et al., PyTorch distributed, VLDB 2020, arXiv:2006.15704, section 3.2.3
template <class W, Device D>
class GradientSum {
 public:
  /// `smallest`: numbers that are worth a message of their own.
  GradientSum(Group<W, D>& group, const Ranks& ranks, Index smallest = Index{1} << 20)
      : group_(group), ranks_(ranks) {
    if (ranks.alone()) return;
    const auto& params = group.params();
    Index end = group.grads.size(), from = end;
    Bucket bucket;
    for (std::size_t i = params.size(); i-- > 0;) {
      from -= Group<W, D>::padded(params[i]->value.size());
      of_[params[i].get()] = {buckets_.size(), false};
      ++bucket.params;
      if (end - from < smallest && i > 0) continue;
      bucket.from = from, bucket.size = end - from;
      buckets_.push_back(bucket);
      bucket = {}, end = from;
    }
  }
  GradientSum(const GradientSum&) = delete;
  GradientSum& operator=(const GradientSum&) = delete;

  /// For `backward`: what it does when a gradient is complete.
  OnReady begin() {
    if (ranks_.alone()) return {};
    for (auto& [param, place] : of_) place.ready = false;
    for (Bucket& bucket : buckets_) bucket.open = bucket.params;
    next_ = 0;
    return [this](const ParamUse& param) { ready(param); };
  }
  /// Starts what was not ready, as parameters that took no part, and waits for the sums.
  void finish() {
    if (ranks_.alone()) return;
    if (by_buckets()) {
      while (next_ < buckets_.size()) start();
      ranks_.finish_sums();
    } else {
      std::vector<W> host = group_.grads.host();
      ranks_.start_sum(host.data(), Index(host.size()));
      ranks_.finish_sums();
      group_.grads.assign(host);
    }
  }
  std::size_t buckets() const { return buckets_.size(); }

 private:
  struct Bucket {
    Index from = 0, size = 0;
    Index params = 0, open = 0;
  };
  struct Place {
    std::size_t bucket = 0;
    bool ready = false;
  };
  void ready(const ParamUse& param) {
    const auto found = of_.find(&param);
    if (found == of_.end() || std::exchange(found->second.ready, true)) return;
    --buckets_[found->second.bucket].open;
    if (!by_buckets()) return;
    while (next_ < buckets_.size() && buckets_[next_].open == 0) start();
    ranks_.progress();
  }
  static constexpr bool on_host = std::is_same_v<D, Cpu>;
  bool by_buckets() const { return on_host || ranks_.add_on_device(); }
  void start() {
    const Bucket& bucket = buckets_[next_++];
    W* const gradients = group_.grads.write() + bucket.from;
    if constexpr (on_host)
      ranks_.start_sum(gradients, bucket.size);
    else
      ranks_.start_device_sum(gradients, bucket.size);
  }

  Group<W, D>& group_;
  Ranks ranks_;
  std::vector<Bucket> buckets_;  // the last parameters first
  std::unordered_map<const ParamUse*, Place> of_;
  std::size_t next_ = 0;
};

}  // namespace segmed
