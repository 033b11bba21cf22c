// SPDX-License-Identifier: Apache-2.0
// Convolutions by cuDNN's graph API, through its plain C interface. Include beside
// segmed/segmed.hpp in units that nvcc compiles, and link segmed::cudnn.
#pragma once
#include <memory>
#include <vector>

#include <cudnn.h>

#include <segmed/backend/cuda.hpp>
#include <segmed/backend/view.hpp>

namespace segmed {

/// A handle of this thread, on its stream.
class Cudnn {
 public:
  static void check(cudnnStatus_t status, const char* call) {
    if (status == CUDNN_STATUS_SUCCESS) return;
    const bool absent = status == CUDNN_STATUS_NOT_INITIALIZED;
    fail<DeviceError>(call, cudnnGetErrorString(status), " (", int(status), ")",
                      absent ? "; no GPU can be used here, choose Cpu as the device" : "");
  }
  static cudnnHandle_t handle() {
    thread_local Cudnn own;
    return own.handle_;
  }
  Cudnn(const Cudnn&) = delete;
  Cudnn& operator=(const Cudnn&) = delete;

 private:
  Cudnn() {
    check(cudnnCreate(&handle_), "cudnnCreate");
    check(cudnnSetStream(handle_, Cuda::stream()), "cudnnSetStream");
  }
  ~Cudnn() {
    if (handle_) static_cast<void>(cudnnDestroy(handle_));
  }
  cudnnHandle_t handle_ = nullptr;
};

/// One node of a cuDNN graph.
class CudnnNode {
 public:
  explicit CudnnNode(cudnnBackendDescriptorType_t type) {
    Cudnn::check(cudnnBackendCreateDescriptor(type, &node_), "cudnnBackendCreateDescriptor");
  }
  ~CudnnNode() {
    if (node_) static_cast<void>(cudnnBackendDestroyDescriptor(node_));
  }
  CudnnNode(const CudnnNode&) = delete;
  CudnnNode& operator=(const CudnnNode&) = delete;

  template <class T>
  CudnnNode& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                 const std::vector<T>& values) {
    Cudnn::check(
        cudnnBackendSetAttribute(node_, name, type, std::int64_t(values.size()), values.data()),
        "cudnnBackendSetAttribute");
    return *this;
  }
  CudnnNode& set(cudnnBackendAttributeName_t name, const CudnnNode& other) {
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, std::vector{other.node_});
  }
  CudnnNode& finalize() {
    Cudnn::check(cudnnBackendFinalize(node_), "cudnnBackendFinalize");
    return *this;
  }
  cudnnBackendDescriptor_t get() const { return node_; }

 private:
  cudnnBackendDescriptor_t node_ = nullptr;
};

/// Forward convolution in float with channels last, planned once for one window.
class CudnnConvolution {
 public:
  explicit CudnnConvolution(const Window& w)
      : window_(w), x_(tensor('x', w.fine)), weight_(filter('w', w)), y_(tensor('y', w.coarse)) {
    const std::vector<std::int64_t> stride(w.stride, w.stride + 3),
        padding(w.padding, w.padding + 3), dilation(w.dilation, w.dilation + 3);
    CudnnNode convolution(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    convolution
        .set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, std::vector{CUDNN_DATA_FLOAT})
        .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE,
             std::vector{CUDNN_CROSS_CORRELATION})
        .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, std::vector<std::int64_t>{3})
        .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, padding)
        .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, padding)
        .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, stride)
        .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, dilation)
        .finalize();
    CudnnNode forward(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    forward.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, *x_)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, *weight_)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, *y_)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, convolution)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, std::vector{1.0f})
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, std::vector{0.0f})
        .finalize();
    CudnnNode graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, forward)
        .set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, std::vector{Cudnn::handle()})
        .finalize();
    choose(graph);
  }
  /// y = weight * x; weights are (taps, channels in, channels out), as everywhere in segmed.
  void operator()(const float* x, const float* weight, float* y) const {
    const Index taps = window_.taps(), in = window_.fine.channels, out = window_.coarse.channels;
    Scratch filter(std::size_t(window_.weights()) * sizeof(float)), workspace(workspace_);
    Cuda::launch(window_.weights(), ToFilter{weight, static_cast<float*>(filter.data),
                                             taps * in / window_.groups, out});
    CudnnNode pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR,
             std::vector<void*>{const_cast<float*>(x), filter.data, y})
        .set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64,
             std::vector<std::int64_t>{'x', 'w', 'y'})
        .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, std::vector{workspace.data})
        .finalize();
    Cudnn::check(cudnnBackendExecute(Cudnn::handle(), plan_->get(), pack.get()),
                 "cudnnBackendExecute");
  }

  /// (taps and channels in, out) to cuDNN's (out, taps, in).
  struct ToFilter {
    const float* from;
    float* to;
    Index rows, out;
    SEGMED_HD void operator()(Index i) const { to[i % out * rows + i / out] = from[i]; }
  };

 private:
  using Node = std::unique_ptr<CudnnNode>;
  struct Scratch {
    void* data;
    std::size_t bytes;
    explicit Scratch(std::size_t size) : data(Cuda::allocate(size)), bytes(size) {}
    ~Scratch() { Cuda::release(data, bytes); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
  };

  static Node described(char id, const std::vector<std::int64_t>& extents) {
    std::vector<std::int64_t> strides(5);  // of (N, C, D, H, W) with channels last
    strides[1] = 1, strides[4] = extents[1];
    strides[3] = strides[4] * extents[4], strides[2] = strides[3] * extents[3];
    strides[0] = strides[2] * extents[2];
    auto node = std::make_unique<CudnnNode>(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    node->set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, std::vector<std::int64_t>{id})
        .set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, std::vector{CUDNN_DATA_FLOAT})
        .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, std::vector<std::int64_t>{16})
        .set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, extents)
        .set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, strides)
        .finalize();
    return node;
  }
  static Node tensor(char id, const Grid& g) {
    return described(id, {g.cases, g.channels, g.depth, g.height, g.width});
  }
  static Node filter(char id, const Window& w) {
    return described(
        id, {w.coarse.channels, w.fine.channels / w.groups, w.kernel[0], w.kernel[1], w.kernel[2]});
  }
  /// Takes the first engine of cuDNN's own ranking that can be built.
  void choose(const CudnnNode& graph) {
    CudnnNode heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)
        .set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, std::vector{CUDNN_HEUR_MODE_A})
        .finalize();
    constexpr std::int64_t most = 8;
    std::vector<std::unique_ptr<CudnnNode>> configs;
    std::vector<cudnnBackendDescriptor_t> raw;
    for (std::int64_t i = 0; i < most; ++i) {
      configs.push_back(std::make_unique<CudnnNode>(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
      raw.push_back(configs.back()->get());
    }
    std::int64_t found = 0;
    Cudnn::check(cudnnBackendGetAttribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                          CUDNN_TYPE_BACKEND_DESCRIPTOR, most, &found, raw.data()),
                 "cudnnBackendGetAttribute");
    for (std::int64_t i = 0; i < found && i < most; ++i) {
      auto plan = std::make_unique<CudnnNode>(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
      plan->set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, std::vector{Cudnn::handle()})
          .set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, *configs[std::size_t(i)]);
      if (cudnnBackendFinalize(plan->get()) != CUDNN_STATUS_SUCCESS) continue;
      std::int64_t bytes = 0, one = 0;
      Cudnn::check(cudnnBackendGetAttribute(plan->get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                            CUDNN_TYPE_INT64, 1, &one, &bytes),
                   "cudnnBackendGetAttribute");
      workspace_ = std::size_t(bytes);
      plan_ = std::move(plan);
      return;
    }
    fail<DeviceError>("cudnn", "no engine convolves ", window_.fine, " to ", window_.coarse);
  }

  Window window_;
  Node x_, weight_, y_, plan_;
  std::size_t workspace_ = 0;
};

}  // namespace segmed
