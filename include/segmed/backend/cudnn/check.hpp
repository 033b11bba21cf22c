// SPDX-License-Identifier: Apache-2.0
// Is a plan right? It is run once, at its own size, on made-up numbers, and places of what it wrote
// are compared with the sums of the plain kernels.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <segmed/backend/convolution.hpp>
#include <segmed/backend/cudnn/layout.hpp>
#include <segmed/backend/cudnn/problem.hpp>
#include <segmed/backend/device.hpp>
#include <segmed/backend/workspace.hpp>

namespace segmed {

/// The dense tensors of one graph, each as large as its problem says.
template <class T>
struct CudnnOperands {
  T *fine, *filter, *coarse;
  const Wide<T>* bias = nullptr;  // of a graph with one: a number per channel that is written
};

/// A well mixed number of a place.
SEGMED_HD inline std::uint64_t scattered(std::uint64_t i) {  // the finish of SplitMix64
  i = (i + 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u;
  i = (i ^ (i >> 27)) * 0x94D049BB133111EBu;
  return i ^ (i >> 31);
}

/// Halves between -1 and 1. Their products have no error in any storage type, and their sums none
/// in float, so that engines that add in different orders agree.
template <class T>
struct MakeUpNumbers {
  T* to;
  std::uint64_t seed;
  SEGMED_HD void operator()(Index i) const {
    to[i] = T(0.5f * float(int(scattered(seed + std::uint64_t(i)) % 5) - 2));
  }
};
/// What no engine may leave behind.
template <class T>
struct FillWithNan {
  T* to;
  SEGMED_HD void operator()(Index i) const { to[i] = T(NAN); }
};

/// Which of a matrix's places are compared: its corners, and others all over.
struct SampledPlaces {
  Index rows, columns;
  SEGMED_HD Index row(Index i) const {
    return i < 4 ? i / 2 * (rows - 1) : Index(scattered(std::uint64_t(i)) % std::uint64_t(rows));
  }
  SEGMED_HD Index column(Index i) const {
    if (i < 4) return i % 2 * (columns - 1);
    return Index(scattered(~std::uint64_t(i)) % std::uint64_t(columns));
  }
};

/// A difference relative to the larger of one and what was wanted; infinite for what is no number.
SEGMED_HD inline float relative_difference(float got, float wanted) {
  const float size = std::fabs(wanted) > 1 ? std::fabs(wanted) : 1.0f;
  const float d = std::fabs(got - wanted) / size;
  return d >= 0 && d <= 3e38f ? d : 3e38f;
}

/// One item per place of what a gather or a scatter wrote.
template <class T, class Kernel>
struct CompareSums {
  Kernel kernel;
  SampledPlaces places;
  const T* got;
  Wide<T> leak;
  float* differences;
  SEGMED_HD void operator()(Index i) const {
    const Index row = places.row(i), column = places.column(i);
    const Wide<T> sum = kernel.sum(row, column);
    differences[i] = relative_difference(float(got[row * places.columns + column]),
                                         float(sum > 0 ? sum : leak * sum));
  }
};
/// Sums over all voxels are long: one item per (place, block of them).
template <class T>
struct PartialWeights {
  WeighKernel<T> kernel;
  SampledPlaces places;
  Index block, blocks;
  double* partial;
  SEGMED_HD void operator()(Index i) const {
    const Index place = i / blocks, begin = i % blocks * block, rows = kernel.w.coarse.rows();
    partial[i] = kernel.sum(places.row(place), places.column(place), begin,
                            begin + block < rows ? begin + block : rows);
  }
};
template <class T>
struct CompareWeights {
  SampledPlaces places;
  Index blocks, columns, inside;  // of the filter
  const double* partial;
  const T* got;
  float* differences;
  SEGMED_HD void operator()(Index i) const {
    double wanted = 0;
    for (Index b = 0; b < blocks; ++b) wanted += partial[i * blocks + b];
    const Index row = places.row(i);  // (tap, channel in), as the filter's columns
    differences[i] =
        relative_difference(float(got[places.column(i) * columns + row]), float(wanted));
  }
};

/// What a right plan stays below: rounding to the storage type, and what Winograd's and Fourier's
/// transforms lose.
inline float allowed_difference(CudnnStorage storage) {
  return storage == CudnnStorage::bfloat16 ? 1e-2f : 1e-3f;
}

/// Runs `run(operands)` on made-up numbers and returns the largest relative difference from plain
/// sums, at up to `most` places (of gradients of weights, a 32nd of them).
template <Device D, class T, class Run>
float worst_difference(const CudnnProblem& p, const Run& run, Index most = 4096) {
  const Window& w = p.window;
  const Index inside = p.inside(), columns = w.taps() * inside;
  Workspace<D, T> fine(w.fine.size()), filter(w.weights()), coarse(w.coarse.size());
  Workspace<D, Wide<T>> weights(w.weights());
  D::launch(w.fine.size(), MakeUpNumbers<T>{fine.data(), 1});
  D::launch(w.coarse.size(), MakeUpNumbers<T>{coarse.data(), std::uint64_t{1} << 40});
  D::launch(w.weights(), MakeUpNumbers<Wide<T>>{weights.data(), std::uint64_t{1} << 50});
  const FilterLayout layout{w.taps(), inside, w.coarse.channels, inside};
  D::launch_rows(layout.rows(), w.coarse.channels,
                 ToFilter<T>{layout, weights.data(), filter.data()});
  Feed<T> from_fine, from_coarse;
  from_fine.values.lane[0].grid = w.fine, from_fine.values.lane[0].x = fine.data();
  from_coarse.values.lane[0].grid = w.coarse, from_coarse.values.lane[0].x = coarse.data();

  const bool forward = p.pass == CudnnPass::forward, back = p.pass == CudnnPass::backward_data;
  const Grid& to = p.written();
  Workspace<D, Wide<T>> bias(to.channels);
  D::launch(to.channels, MakeUpNumbers<Wide<T>>{bias.data(), std::uint64_t{1} << 60});
  Sink<T> tail;  // what the plain kernels know of it
  tail.bias = p.tail.bias ? bias.data() : nullptr;

  T* written = forward ? coarse.data() : back ? fine.data() : filter.data();
  const Index size = forward ? w.coarse.size() : back ? w.fine.size() : w.weights();
  D::launch(size, FillWithNan<T>{written});
  run(CudnnOperands<T>{fine.data(), filter.data(), coarse.data(), tail.bias});

  const SampledPlaces places = forward || back ? SampledPlaces{to.rows(), to.channels}
                                               : SampledPlaces{columns, w.coarse.channels};
  const Index count = forward || back ? most : std::max<Index>(4, most / 32);
  Workspace<D, float> differences(count);
  if (forward) {
    const GatherKernel<T> kernel{w, from_fine, weights.data(), tail};
    D::launch_blocks(count, CompareSums<T, GatherKernel<T>>{kernel, places, written, p.tail.leak,
                                                            differences.data()});
  } else if (back) {
    const ScatterKernel<T> kernel{w, from_coarse, weights.data(), tail};
    D::launch_blocks(count, CompareSums<T, ScatterKernel<T>>{kernel, places, written, p.tail.leak,
                                                             differences.data()});
  } else {
    const Index block = 4096, blocks = (w.coarse.rows() + block - 1) / block;
    Workspace<D, double> partial(count * blocks);
    const WeighKernel<T> kernel{w, from_fine, from_coarse, nullptr};
    D::launch_blocks(count * blocks,
                     PartialWeights<T>{kernel, places, block, blocks, partial.data()});
    D::launch_blocks(count, CompareWeights<T>{places, blocks, columns, inside, partial.data(),
                                              written, differences.data()});
  }
  std::vector<float> host(static_cast<std::size_t>(count));
  D::copy(host.data(), differences.data(), sizeof(float) * host.size());
  return *std::max_element(host.begin(), host.end());
}

}  // namespace segmed
