// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <deque>

#include <segmed/autograd/module.hpp>

namespace segmed {

/// The parameters of some modules, moved into one flat buffer of values and one of gradients:
/// optimizer, averaging, clipping and all-reduce are one loop each.
template <class W, Device D>
class Group {
 public:
  using Params = std::vector<std::shared_ptr<ParamState<W, D>>>;
  Role role;
  Storage<W, D> values, grads;

  /// Takes the parameters of that role from `modules`, in the order of their lists.
  template <class... M>
  explicit Group(Role which, M&... modules) : role(which) {
    std::size_t number = 0;
    (take(Inventory(modules, sizeof...(M) > 1 ? std::to_string(number++) : std::string{})), ...);
    gather();
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  void clear_grads() { D::launch(grads.size(), FillKernel<W>{grads.write(), W(0)}); }
  /// The k-th flat buffer of optimizer state, zeros at first. A parameter's slice lies where its
  /// values lie.
  Storage<W, D>& state(std::size_t k) {
    while (states_.size() <= k) states_.emplace_back();
    return states_[k].or_zeros(values.size());
  }
  std::size_t states() const { return states_.size(); }
  const Params& params() const { return params_; }
  static Index padded(Index size) { return (size + 15) / 16 * 16; }

 private:
  void take(const Inventory& inventory) {
    for (const auto& [name, where, leaf] : inventory.leaves) {
      if (where != role || !leaf->trainable()) continue;
      const auto* p = dynamic_cast<Param<W, D>*>(leaf);
      require<Error>(p != nullptr, "Group", name, " has numbers of type ", leaf->type(),
                     ", the others ", type_name<W>(), "; a Group is of one type and device");
      bool known = !p->state()->group.expired();
      for (const auto& other : params_) known |= other == p->state();
      require<Error>(!known, "Group", name, " already belongs to a Group");
      p->state()->name = name;
      params_.push_back(p->state());
    }
  }
  void gather() {
    Index total = 0;
    for (auto& p : params_) total += padded(p->value.size());
    values = Storage<W, D>(total);
    grads = Storage<W, D>(role == Role::trained ? total : 0);
    Index at = 0;
    for (auto& p : params_) {
      const Index size = p->value.size();
      D::copy(values.write() + at, p->value.read(), sizeof(W) * std::size_t(size));
      p->value = values.slice(at, size);
      if (role == Role::trained) {
        p->grad = grads.slice(at, size);
        p->group = token_;
      }
      at += padded(size);
    }
  }

  Params params_;
  std::deque<Storage<W, D>> states_;  // references to its elements stay valid
  std::shared_ptr<int> token_ = std::make_shared<int>();
};
template <class F>
using GroupOf = Group<typename F::Wide, typename F::device>;

template <class W>
struct AverageKernel {
  W* slow;
  const W* fast;
  W keep;
  SEGMED_HD void operator()(Index i) const { slow[i] = keep * slow[i] + (W(1) - keep) * fast[i]; }
};

/// The storages of an inventory: the parameters, or the running statistics.
template <class W, Device D>
std::vector<Storage<W, D>*> storages(const Inventory& of, bool parameters) {
  std::vector<Storage<W, D>*> found;
  for (const auto& [path, role, leaf] : of.leaves) {
    if (leaf->trainable() != parameters) continue;
    if (auto* p = dynamic_cast<Param<W, D>*>(leaf))
      found.push_back(&p->value());
    else if (auto* b = dynamic_cast<Buffer<W, D>*>(leaf))
      found.push_back(&b->running());
    else
      fail<Error>("ema", path, " has numbers of type ", leaf->type(), ", not ", type_name<W>());
  }
  return found;
}

/// The same as `ema` below, of two inventories.
template <class W, Device D>
Index average(const Inventory& slow, const Inventory& fast, double keep) {
  auto to = storages<W, D>(slow, true), from = storages<W, D>(fast, true);
  require(to.size() == from.size(), "ema", to.size(), " parameters cannot follow ", from.size());
  // Parameters first: buffers between them would break the one loop.
  const std::size_t parameters = to.size();
  for (auto* statistic : storages<W, D>(slow, false)) to.push_back(statistic);
  for (auto* statistic : storages<W, D>(fast, false)) from.push_back(statistic);
  require(to.size() == from.size(), "ema", to.size() - parameters,
          " running statistics cannot follow ", from.size() - parameters);
  Index loops = 0;
  for (std::size_t i = 0; i < to.size();) {
    loops += i < parameters;
    Storage<W, D>& first = *to[i];
    const W *s = first.read(), *f = from[i]->read();
    Index size = 0;
    do {
      require(to[i]->size() == from[i]->size(), "ema", "a parameter of ", from[i]->size(),
              " numbers cannot be followed by one of ", to[i]->size());
      size = Group<W, D>::padded(size) + to[i]->size();
      ++i;
    } while (i < to.size() && to[i]->shares(first) && from[i]->shares(*from[i - 1]) &&
             to[i]->read() == s + Group<W, D>::padded(size) &&
             from[i]->read() == f + Group<W, D>::padded(size));
    D::launch(size, AverageKernel<W>{first.write(), f, W(keep)});
  }
  return loops;
}

/// slow = keep * slow + (1 - keep) * fast, running statistics included. Returns the number of loops
/// over parameters: one, once both sit in Groups.
template <class Slow, class Fast>
Index ema(Frozen<Slow>& slow, const Fast& fast, double keep) {
  return average<typename Fast::Features::Wide, typename Fast::Features::device>(
      Inventory(slow.module), Inventory(fast), keep);
}

}  // namespace segmed
