// SPDX-License-Identifier: Apache-2.0
// cuDNN's descriptors and errors, as the rest of segmed wants them. The one header that includes
// cuDNN's.
#pragma once
#if !defined(SEGMED_CUDNN)
#error \
    "cuDNN needs SEGMED_CUDNN in all units of a program; the CMake target segmed::cuda defines it"
#endif
#include <cstdint>
#include <utility>
#include <vector>

#include <cudnn.h>

#include <segmed/backend/cudnn/engine.hpp>
#include <segmed/backend/cudnn/problem.hpp>
#include <segmed/core/error.hpp>

namespace segmed {

/// Throws DeviceError with the call, the status by name, cuDNN's own words and what it was for.
template <class... Parts>
void cudnn_check(cudnnStatus_t status, const char* call, const Parts&... about) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char words[1024] = "";
  cudnnGetLastErrorString(words, sizeof words);
  const bool absent = status == CUDNN_STATUS_NOT_INITIALIZED;
  fail<DeviceError>(call, cudnnGetErrorString(status), " (", int(status), ")",
                    words[0] != '\0' ? ": " : "", words, about...,
                    absent ? "; no GPU can be used here, choose Cpu as the device" : "");
}

template <class T>
struct CudnnTypeOf {};
template <>
struct CudnnTypeOf<float> {
  static constexpr cudnnDataType_t value = CUDNN_DATA_FLOAT;
};
template <>
struct CudnnTypeOf<Bfloat16> {
  static constexpr cudnnDataType_t value = CUDNN_DATA_BFLOAT16;
};
/// cuDNN's name of a storage type.
template <CudnnStored T>
inline constexpr cudnnDataType_t cudnn_type = CudnnTypeOf<T>::value;

inline cudnnDataType_t cudnn_type_of(CudnnStorage storage) {
  return storage == CudnnStorage::bfloat16 ? cudnn_type<Bfloat16> : cudnn_type<float>;
}
static_assert(int(CudnnNote::tensor_core) == CUDNN_NUMERICAL_NOTE_TENSOR_CORE &&
              int(CudnnNote::down_convert_inputs) == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS &&
              int(CudnnNote::reduced_precision_reduction) ==
                  CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION &&
              int(CudnnNote::fft) == CUDNN_NUMERICAL_NOTE_FFT &&
              int(CudnnNote::nondeterministic) == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC &&
              int(CudnnNote::winograd) == CUDNN_NUMERICAL_NOTE_WINOGRAD &&
              int(CudnnNote::winograd_4x4) == CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4 &&
              int(CudnnNote::winograd_6x6) == CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6 &&
              int(CudnnNote::winograd_13x13) == CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13);

/// One descriptor: made, filled by `set`, closed by `finalize`; then others may refer to it, for as
/// long as it lives.
class CudnnNode {
 public:
  explicit CudnnNode(cudnnBackendDescriptorType_t type) {
    cudnn_check(cudnnBackendCreateDescriptor(type, &node_), "cudnnBackendCreateDescriptor",
                "; type ", int(type));
  }
  CudnnNode(CudnnNode&& other) noexcept : node_(std::exchange(other.node_, nullptr)) {}
  CudnnNode& operator=(CudnnNode&& other) noexcept {
    std::swap(node_, other.node_);
    return *this;
  }
  ~CudnnNode() {
    if (node_) static_cast<void>(cudnnBackendDestroyDescriptor(node_));
  }

  template <class T>
  CudnnNode& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                 const std::vector<T>& values) {
    cudnn_check(
        cudnnBackendSetAttribute(node_, name, type, std::int64_t(values.size()), values.data()),
        "cudnnBackendSetAttribute", "; attribute ", int(name));
    return *this;
  }
  CudnnNode& set(cudnnBackendAttributeName_t name, const std::vector<Index>& values) {
    return set(name, CUDNN_TYPE_INT64, values);
  }
  CudnnNode& set(cudnnBackendAttributeName_t name, const CudnnNode& other) {
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, std::vector{other.node_});
  }
  template <class... Parts>
  CudnnNode& finalize(const Parts&... about) {
    cudnn_check(cudnnBackendFinalize(node_), "cudnnBackendFinalize", about...);
    return *this;
  }
  /// Whether cuDNN can do what is asked for: for plans and heuristics, of which some cannot.
  bool finalizes() { return cudnnBackendFinalize(node_) == CUDNN_STATUS_SUCCESS; }

  /// Up to `most` values of an attribute.
  template <class T>
  std::vector<T> get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                     Index most = 1) const {
    std::vector<T> values(static_cast<std::size_t>(most));
    values.resize(read(name, type, most, values.data()));
    return values;
  }
  /// Up to `most` descriptors of an attribute: cuDNN fills those that it is handed.
  std::vector<CudnnNode> get_nodes(cudnnBackendAttributeName_t name,
                                   cudnnBackendDescriptorType_t of, Index most) const {
    std::vector<CudnnNode> nodes;
    std::vector<cudnnBackendDescriptor_t> raw;
    for (Index i = 0; i < most; ++i) raw.push_back(nodes.emplace_back(of).node_);
    const std::size_t found = read(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, most, raw.data());
    nodes.erase(nodes.begin() + std::ptrdiff_t(found), nodes.end());
    return nodes;
  }
  /// How many values an attribute has.
  Index count(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type) const {
    std::int64_t found = 0;
    cudnn_check(cudnnBackendGetAttribute(node_, name, type, 0, &found, nullptr),
                "cudnnBackendGetAttribute", "; attribute ", int(name));
    return found;
  }
  cudnnBackendDescriptor_t get() const { return node_; }

 private:
  std::size_t read(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, Index most,
                   void* values) const {
    std::int64_t found = 0;
    cudnn_check(cudnnBackendGetAttribute(node_, name, type, most, &found, values),
                "cudnnBackendGetAttribute", "; attribute ", int(name));
    return std::size_t(found < most ? found : most);
  }
  cudnnBackendDescriptor_t node_ = nullptr;
};

}  // namespace segmed
