// SPDX-License-Identifier: Apache-2.0
// What cuDNN is asked for a window, in plain numbers: nothing of cuDNN is needed to read it.
#pragma once
#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <segmed/backend/view.hpp>
#include <segmed/core/bfloat16.hpp>
#include <segmed/core/json_text.hpp>

namespace segmed {

/// The three graphs, as cuDNN calls them: `gather`, `scatter` and `weigh` of
/// backend/convolution.hpp.
enum class CudnnPass { forward, backward_data, backward_weights };
inline const char* name_of(CudnnPass pass) {
  return pass == CudnnPass::forward         ? "forward"
         : pass == CudnnPass::backward_data ? "backward_data"
                                            : "backward_weights";
}

/// How feature maps and weights lie there; sums are in float.
enum class CudnnStorage { float32, bfloat16 };
inline const char* name_of(CudnnStorage storage) {
  return storage == CudnnStorage::float32 ? "float32" : "bfloat16";
}
template <class T>
struct CudnnStorageOf {};
template <>
struct CudnnStorageOf<float> {
  static constexpr CudnnStorage value = CudnnStorage::float32;
};
template <>
struct CudnnStorageOf<Bfloat16> {
  static constexpr CudnnStorage value = CudnnStorage::bfloat16;
};
/// A storage type that cuDNN convolves; others (double) use the plain kernels.
template <class T>
concept CudnnStored = requires {
  CudnnStorageOf<T>::value;
};

/// What an engine may do.
struct CudnnSwitches {
  bool tf32 = false;                 // multiply floats with 10 bits of fraction, on tensor cores
  bool nondeterministic = false;     // add in an order that differs from run to run
  Index workspace = Index{1} << 30;  // bytes at most
  bool fused = true;                 // bias and activation in one graph with their convolution
  friend bool operator==(const CudnnSwitches&, const CudnnSwitches&) = default;
};

/// What a graph does to its convolution's sums before they are stored: leak(sum + bias).
struct CudnnTail {
  bool bias = false;
  float leak = 1;  // slope below zero; 1: no activation

  bool any() const { return bias || leak != 1; }
  friend bool operator==(const CudnnTail&, const CudnnTail&) = default;
};

/// A dense tensor in cuDNN's order of axes (cases, channels, spatial...), channels last in memory;
/// of weights, (channels out, channels in of a group, spatial...).
struct CudnnTensor {
  std::vector<Index> extent, stride;

  static CudnnTensor channels_last(std::vector<Index> extent) {
    std::vector<Index> stride(extent.size());
    Index step = extent[1];
    stride[1] = 1;
    for (std::size_t a = extent.size(); a-- > 2; step *= extent[a]) stride[a] = step;
    stride[0] = step;
    return {std::move(extent), std::move(stride)};
  }
  Index size() const { return extent[0] * stride[0]; }
};

/// The numbers that a plan is found by.
using CudnnKey = std::array<Index, 33>;

/// One graph: a window whose channels are filled up to what fast engines read, and whose depth has
/// become cases where no tap leaves its plane.
struct CudnnProblem {
  CudnnPass pass = CudnnPass::forward;
  CudnnStorage storage = CudnnStorage::float32;
  CudnnSwitches switches = {};
  Window window = {};
  Index after[3] = {0, 0, 0};  // padding behind the last voxel; before the first, window.padding
  int axes = 3;                // spatial ones: 2 leaves out the depth
  CudnnTail tail = {};         // none of a gradient of weights

  CudnnTensor fine() const { return map_of(window.fine); }
  CudnnTensor coarse() const { return map_of(window.coarse); }
  CudnnTensor filter() const {
    return CudnnTensor::channels_last(spatial(window.kernel, window.coarse.channels, inside()));
  }
  /// What is written by a forward graph or a gradient of data, and the bias that is added to it.
  const Grid& written() const { return pass == CudnnPass::forward ? window.coarse : window.fine; }
  CudnnTensor bias() const {
    return CudnnTensor::channels_last(spatial({1, 1, 1}, 1, written().channels));
  }
  /// The same convolution with another tail, or none.
  CudnnProblem with_tail(const CudnnTail& other) const {
    CudnnProblem p = *this;
    p.tail = other;
    return p;
  }
  Index inside() const { return window.fine.channels / window.groups; }
  /// The last `axes` of three numbers.
  std::vector<Index> spatial(const Index (&of)[3]) const { return {of + 3 - axes, of + 3}; }

  CudnnKey key() const {
    const Window& w = window;
    CudnnKey key{Index(pass), Index(storage), switches.tf32, switches.nondeterministic,
                 switches.workspace};
    std::size_t at = 5;
    for (const Grid* g : {&w.fine, &w.coarse})
      for (const Index n : {g->cases, g->depth, g->height, g->width, g->channels}) key[at++] = n;
    for (const auto* of : {&w.kernel, &w.stride, &w.padding, &after, &w.dilation})
      for (const Index n : *of) key[at++] = n;
    key[at++] = w.groups;
    key[at++] = tail.bias;
    key[at] = std::bit_cast<std::int32_t>(tail.leak);
    return key;
  }
  /// One line, the same for the same key: what messages and tuning tables name a graph by.
  std::string text() const {
    const Window& w = window;
    std::ostringstream out;
    const auto each = [&](const char* name, const Index(&of)[3]) {
      out << ' ' << name << ' ' << of[0] << 'x' << of[1] << 'x' << of[2];
    };
    out << name_of(pass) << ' ' << name_of(storage) << " fine " << w.fine << " coarse " << w.coarse;
    each("kernel", w.kernel), each("stride", w.stride), each("padding", w.padding);
    each("after", after), each("dilation", w.dilation);
    out << " groups " << w.groups << (switches.tf32 ? " tf32" : "")
        << (switches.nondeterministic ? " nondeterministic" : "") << " workspace "
        << switches.workspace << (tail.bias ? " bias" : "");
    if (tail.leak != 1) out << " leak " << number_text(double(tail.leak));
    return out.str();
  }

 private:
  std::vector<Index> spatial(const Index (&of)[3], Index first, Index second) const {
    std::vector<Index> extent{first, second};
    for (const Index n : spatial(of)) extent.push_back(n);
    return extent;
  }
  CudnnTensor map_of(const Grid& g) const {
    return CudnnTensor::channels_last(spatial({g.depth, g.height, g.width}, g.cases, g.channels));
  }
};

/// Fast engines read 16 bytes of channels at once.
inline Index channel_unit(CudnnStorage storage) {
  return storage == CudnnStorage::bfloat16 ? 8 : 4;
}
inline Index filled_up(Index channels, Index unit) { return (channels + unit - 1) / unit * unit; }

/// The padding behind the last of `fine` voxels with which a convolution has `coarse` voxels: that
/// before the first if it can be, else the nearest; -1 when there is none.
inline Index padding_after(Index fine, Index coarse, Index reach, Index stride, Index before) {
  const Index least = (coarse - 1) * stride + reach - fine - before, most = least + stride - 1;
  if (most < 0) return -1;
  return before < least ? least : before > most ? most : before;
}

/// The graph of a window; none for windows that leave out voxels behind the last one, or hold
/// nothing. Channels of groups are not filled up.
inline std::optional<CudnnProblem> cudnn_problem(CudnnPass pass, CudnnStorage storage,
                                                 const CudnnSwitches& switches,
                                                 const Window& window) {
  CudnnProblem p{.pass = pass, .storage = storage, .switches = switches, .window = window};
  if (storage != CudnnStorage::float32) p.switches.tf32 = false;  // one key, whatever it says
  Window& w = p.window;
  if (w.fine.size() <= 0 || w.coarse.size() <= 0) return {};
  if (w.groups == 1) {
    const Index unit = channel_unit(storage);
    w.fine.channels = filled_up(w.fine.channels, unit);
    w.coarse.channels = filled_up(w.coarse.channels, unit);
  }
  if (w.kernel[0] == 1 && w.stride[0] == 1 && w.padding[0] == 0 && w.fine.depth == w.coarse.depth) {
    for (Grid* g : {&w.fine, &w.coarse}) g->cases *= g->depth, g->depth = 1;
    w.dilation[0] = 1;
    p.axes = 2;
  }
  const Index fine[3] = {w.fine.depth, w.fine.height, w.fine.width};
  const Index coarse[3] = {w.coarse.depth, w.coarse.height, w.coarse.width};
  for (int a = 0; a < 3; ++a) {
    const Index reach = (w.kernel[a] - 1) * w.dilation[a] + 1;
    p.after[a] = padding_after(fine[a], coarse[a], reach, w.stride[a], w.padding[a]);
    if (p.after[a] < 0) return {};
  }
  return p;
}

}  // namespace segmed
