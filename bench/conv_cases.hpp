// SPDX-License-Identifier: Apache-2.0
// Which convolutions are measured, and the numbers that go through them.
#pragma once
#include <string>
#include <vector>

#include <segmed/backend/convolution_mode.hpp>
#include <segmed/backend/cpu.hpp>

namespace bench {
using segmed::Index;

struct ConvShape {
  const char* name;
  Index inputs, outputs, extent[3], kernel, stride, padding;
  bool transposed;

  Index coarse(int a) const {
    return transposed ? extent[a] : (extent[a] + 2 * padding - kernel) / stride + 1;
  }
  Index fine(int a) const { return transposed ? extent[a] * stride : extent[a]; }
  // Of the direct algorithm, whichever is used.
  double flops() const {
    return 2.0 * double(inputs * outputs * kernel * kernel * kernel) *
           double(coarse(0) * coarse(1) * coarse(2));
  }
  // The least that any algorithm reads and writes: both maps and the weights.
  double bytes() const {
    const double read = double(inputs * extent[0] * extent[1] * extent[2]);
    const double written = double(
        outputs * (transposed ? fine(0) * fine(1) * fine(2) : coarse(0) * coarse(1) * coarse(2)));
    return 4 * (read + written + double(inputs * outputs * kernel * kernel * kernel));
  }
};

enum Pass { forward_pass, data_pass, weights_pass };

/// A row of the comparison.
struct ConvCase {
  ConvShape shape;
  Pass pass;
  segmed::ConvolutionMode mode = segmed::ConvolutionMode::automatic;
  bool inference = false;  // through conv() without recording: weights that stay are prepared once

  std::string name() const {
    const char* const kinds[] = {"BM_Conv3d", "BM_Conv3dStride2", "BM_ConvT3d", "BM_Conv3d1x1"};
    const char* const passes[] = {"Fwd", "BwdData", "BwdWeights"};
    const ConvShape& s = shape;
    std::string text = kinds[s.transposed ? 2 : s.kernel == 1 ? 3 : s.stride == 2 ? 1 : 0];
    text += passes[pass];
    if (mode == segmed::ConvolutionMode::direct) text += "Direct";
    if (mode == segmed::ConvolutionMode::precise) text += "Precise";
    if (inference) text += "Infer";
    text += "/" + std::to_string(s.inputs) + "x" + std::to_string(s.outputs) + "/" +
            std::to_string(s.extent[0]);
    for (int a = 1; a < 3; ++a)
      if (s.extent[1] != s.extent[0]) text += "x" + std::to_string(s.extent[a]);
    if (s.transposed) return text + "/k2s2";
    return s.kernel == 3 && s.stride == 1 ? text + "/k3" : text;
  }
};

inline std::vector<ConvCase> conv_cases() {
  using segmed::ConvolutionMode;
  const auto same = [](const char* name, Index inputs, Index outputs, Index d, Index h, Index w) {
    return ConvShape{name, inputs, outputs, {d, h, w}, 3, 1, 1, false};
  };
  std::vector<ConvCase> cases;
  const auto add = [&](const ConvShape& s, ConvolutionMode mode) {
    for (const Pass pass : {forward_pass, data_pass, weights_pass})
      cases.push_back({s, pass, mode});
  };
  // Those with gates of their own, which the direct algorithm computes as well.
  const std::vector<ConvShape> gated = {
      same("32->32@96", 32, 32, 96, 96, 96),       same("64->64@48", 64, 64, 48, 48, 48),
      same("128->128@24", 128, 128, 24, 24, 24),   same("256->256@12", 256, 256, 12, 12, 12),
      same("320->320@6", 320, 320, 6, 6, 6),       same("32->32@35x50x36", 32, 32, 35, 50, 36),
      same("64->64@20x28x20", 64, 64, 20, 28, 20), same("128->128@12", 128, 128, 12, 12, 12)};
  for (const ConvShape& s : gated) add(s, ConvolutionMode::automatic);
  for (const ConvShape& s :
       {same("64->32@96", 64, 32, 96, 96, 96),
        ConvShape{"1->32@96", 1, 32, {96, 96, 96}, 3, 1, 1, false},
        ConvShape{"32->64@96s2", 32, 64, {96, 96, 96}, 3, 2, 1, false},
        ConvShape{"64->32@48Tk2s2", 64, 32, {48, 48, 48}, 2, 2, 0, true},
        ConvShape{"32->11@96k1", 32, 11, {96, 96, 96}, 1, 1, 0, false},
        same("16->16@64", 16, 16, 64, 64, 64), same("8->8@48", 8, 8, 48, 48, 48),
        same("48->16@64", 48, 16, 64, 64, 64), same("64->64@8", 64, 64, 8, 8, 8)})
    add(s, ConvolutionMode::automatic);
  cases.push_back({gated[3], forward_pass, ConvolutionMode::automatic, true});
  for (std::size_t k = 0; k < 3; ++k)
    cases.push_back({gated[k], forward_pass, ConvolutionMode::precise});
  for (const ConvShape& s : gated) add(s, ConvolutionMode::direct);
  return cases;
}

// Memory as tensors have it.
template <class T>
struct Pooled {
  using value_type = T;
  T* allocate(std::size_t n) {
    return static_cast<T*>(segmed::Memory::current().allocate(n * sizeof(T)));
  }
  void deallocate(T* p, std::size_t n) { segmed::Memory::current().release(p, n * sizeof(T)); }
  friend bool operator==(const Pooled&, const Pooled&) { return true; }
};
using Numbers = std::vector<float, Pooled<float>>;

inline Numbers numbers(Index n) {
  Numbers x(static_cast<std::size_t>(n));
  unsigned r = 1;
  for (float& v : x) r = r * 1664525u + 1013904223u, v = float(r >> 9) / 8388608.f - 0.5f;
  return x;
}

}  // namespace bench
