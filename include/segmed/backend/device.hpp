// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstddef>

#include <segmed/core/config.hpp>

namespace segmed {

/// The smallest kernels: what the Device concept is asked with.
struct ProbeKernel {
  SEGMED_HD void operator()(Index) const {}
};
struct ProbeCells {
  SEGMED_HD void operator()(Index, Index) const {}
};

/// A place where tensors live and kernels run. A kernel is a named functor: `launch` calls it once
/// per item, in any order, and items never write the same place; `launch_rows` calls it for each
/// (row, column), where neighbouring columns are neighbours in memory; `launch_blocks` is for items
/// that are worth a thread each.
template <class D>
concept Device = requires(std::size_t bytes, void* to, const void* from, Index n, ProbeKernel items,
                          ProbeCells cells) {
  { D::allocate(bytes) } -> std::same_as<void*>;
  D::release(to, bytes);
  D::copy(to, from, bytes);
  D::launch(n, items);
  D::launch_blocks(n, items);
  D::launch_rows(n, n, cells);
  D::synchronize();
};

/// A device that fetches from the host's memory while it computes. `D::Transfers` copies from
/// memory that `allocate_host` gave: `join` before what was fetched is used, `finish` before the
/// host's memory is written again. Its destructor waits for its copies.
template <class D>
concept CopiesAhead = Device<D> &&
    requires(std::size_t bytes, void* to, const void* from, typename D::Transfers& by) {
  { D::allocate_host(bytes) } -> std::same_as<void*>;
  D::release_host(to);
  by.copy(to, from, bytes);
  by.join();
  by.finish();
};

}  // namespace segmed
