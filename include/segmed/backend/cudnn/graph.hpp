// SPDX-License-Identifier: Apache-2.0
// A convolution as a graph of cuDNN's, the engines for it and their plans.
#pragma once
#include <deque>
#include <memory>
#include <vector>

#include <segmed/backend/cudnn/check.hpp>
#include <segmed/backend/cudnn/descriptor.hpp>

namespace segmed {

/// The graph of one problem: its convolution, and behind it what its tail asks for. Between them
/// stand tensors in float that are never stored, as the engines want it that compile them together.
///
///   source   NVIDIA, cuDNN: Graph API example with operation fusion
class CudnnGraph {
 public:
  CudnnGraph(cudnnHandle_t handle, const CudnnProblem& p)
      : problem_(p),
        fine_(tensor('x', p.fine())),
        filter_(tensor('w', p.filter())),
        coarse_(tensor('y', p.coarse())),
        convolution_(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR),
        operation_(operation_type(p.pass)),
        graph_(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) {
    const Window& w = p.window;
    const std::string about = "; " + p.text();
    const CudnnNode& stored = p.pass == CudnnPass::forward         ? coarse_
                              : p.pass == CudnnPass::backward_data ? fine_
                                                                   : filter_;
    const CudnnNode& sums = p.tail.any() ? between('s') : stored;
    convolution_
        .set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, std::vector{CUDNN_DATA_FLOAT})
        .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE,
             std::vector{CUDNN_CROSS_CORRELATION})
        .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, {Index(p.axes)})
        .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, p.spatial(w.padding))
        .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, p.spatial(p.after))
        .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, p.spatial(w.stride))
        .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, p.spatial(w.dilation))
        .finalize(about);
    const Attributes a = attributes(p.pass);
    const auto or_sums = [&](const CudnnNode& one) -> const CudnnNode& {
      return &one == &stored ? sums : one;
    };
    operation_.set(a.fine, or_sums(fine_))
        .set(a.filter, or_sums(filter_))
        .set(a.coarse, or_sums(coarse_))
        .set(a.convolution, convolution_)
        .set(a.alpha, CUDNN_TYPE_FLOAT, std::vector{1.0f})
        .set(a.beta, CUDNN_TYPE_FLOAT, std::vector{0.0f})
        .finalize(about);
    std::vector<cudnnBackendDescriptor_t> operations{operation_.get()};
    const CudnnNode* at = &sums;
    if (p.tail.bias) {
      const CudnnNode& sum = p.tail.leak != 1 ? between('t') : stored;
      const CudnnNode& bias = keep(tensor('b', p.bias(), CUDNN_DATA_FLOAT));
      operations.push_back(pointwise(CUDNN_POINTWISE_ADD, *at, &bias, sum).get());
      at = &sum;
    }
    if (p.tail.leak != 1)
      operations.push_back(pointwise(CUDNN_POINTWISE_RELU_FWD, *at, nullptr, stored).get());
    graph_.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, operations)
        .set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, std::vector{handle})
        .finalize(about);
  }
  const CudnnProblem& problem() const { return problem_; }
  const CudnnNode& node() const { return graph_; }

 private:
  struct Attributes {
    cudnnBackendAttributeName_t fine, filter, coarse, convolution, alpha, beta;
  };
  static Attributes attributes(CudnnPass pass) {
    switch (pass) {
      case CudnnPass::backward_data:
        return {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
      case CudnnPass::backward_weights:
        return {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
      default:
        return {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    }
  }
  static cudnnBackendDescriptorType_t operation_type(CudnnPass pass) {
    return pass == CudnnPass::forward ? CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR
           : pass == CudnnPass::backward_data
               ? CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR
               : CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR;
  }
  CudnnNode tensor(char id, const CudnnTensor& like) const {
    return tensor(id, like, cudnn_type_of(problem_.storage));
  }
  CudnnNode tensor(char id, const CudnnTensor& like, cudnnDataType_t type,
                   bool is_stored = true) const {
    CudnnNode node(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    node.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, {Index(id)})
        .set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, std::vector{type})
        .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, {Index(cudnn_alignment)})
        .set(CUDNN_ATTR_TENSOR_DIMENSIONS, like.extent)
        .set(CUDNN_ATTR_TENSOR_STRIDES, like.stride);
    // A byte as large as a bool: vectors of bool have no array.
    static_assert(sizeof(bool) == 1);
    if (!is_stored)
      node.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, std::vector<std::uint8_t>{1});
    node.finalize("; tensor ", id, " of ", problem_.text());
    return node;
  }
  // As what is written, between two operations.
  const CudnnNode& between(char id) {
    const CudnnTensor like =
        problem_.pass == CudnnPass::forward ? problem_.coarse() : problem_.fine();
    return keep(tensor(id, like, CUDNN_DATA_FLOAT, false));
  }
  const CudnnNode& pointwise(cudnnPointwiseMode_t mode, const CudnnNode& x, const CudnnNode* b,
                             const CudnnNode& y) {
    const std::string about = "; pointwise operation of " + problem_.text();
    CudnnNode how(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    how.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, std::vector{mode})
        .set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, std::vector{CUDNN_DATA_FLOAT});
    if (mode == CUDNN_POINTWISE_RELU_FWD)
      how.set(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP, CUDNN_TYPE_DOUBLE, std::vector{0.0})
          .set(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE, CUDNN_TYPE_DOUBLE,
               std::vector{double(problem_.tail.leak)});
    how.finalize(about);
    CudnnNode operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, keep(std::move(how)))
        .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x)
        .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y)
        .set(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, CUDNN_TYPE_FLOAT, std::vector{1.0f})
        .set(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, CUDNN_TYPE_FLOAT, std::vector{1.0f});
    if (b) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *b);
    operation.finalize(about);
    return keep(std::move(operation));
  }
  const CudnnNode& keep(CudnnNode node) { return tail_.emplace_back(std::move(node)); }

  CudnnProblem problem_;
  std::deque<CudnnNode> tail_;  // what is behind the convolution; references stay valid
  CudnnNode fine_, filter_, coarse_, convolution_, operation_, graph_;
};

/// An engine with its knobs as the heuristics propose it.
struct CudnnProposal {
  CudnnEngine engine;
  CudnnNode config;
};

inline CudnnEngine described(const CudnnNode& config) {
  CudnnEngine out;
  const auto engines =
      config.get_nodes(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR, 1);
  require<DeviceError>(engines.size() == 1, "cudnn", "a configuration names no engine");
  out.index = engines[0].get<Index>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64).at(0);
  for (const auto note : engines[0].get<cudnnBackendNumericalNote_t>(
           CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
           CUDNN_NUMERICAL_NOTE_TYPE_COUNT))
    out.notes.push_back(Index(note));
  for (const CudnnNode& knob :
       config.get_nodes(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
                        CUDNN_KNOB_TYPE_COUNTS)) {
    const auto kind =
        knob.get<cudnnBackendKnobType_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE);
    const auto choice = knob.get<Index>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64);
    out.knobs.emplace_back(Index(kind.at(0)), choice.at(0));
  }
  return out;
}

/// Best guess first: what cuDNN's heuristics say, then its slower engines that take nearly all.
inline std::vector<CudnnProposal> proposals(const CudnnGraph& graph) {
  std::vector<CudnnProposal> all;
  for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    CudnnNode heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph.node())
        .set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, std::vector{mode});
    if (!heuristics.finalizes()) continue;  // it knows nothing of such a graph
    const Index count =
        heuristics.count(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR);
    for (CudnnNode& config : heuristics.get_nodes(CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                  CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, count)) {
      CudnnEngine engine = described(config);
      all.push_back({std::move(engine), std::move(config)});
    }
  }
  return all;
}

/// An engine made ready for a graph.
class CudnnPlan {
 public:
  /// Null when cuDNN cannot make it.
  static std::unique_ptr<CudnnPlan> build(cudnnHandle_t handle,
                                          std::shared_ptr<const CudnnGraph> graph,
                                          const CudnnProposal& proposal) {
    auto made = std::unique_ptr<CudnnPlan>(new CudnnPlan(std::move(graph)));
    made->node_.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, std::vector{handle})
        .set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, proposal.config);
    if (!made->node_.finalizes()) return nullptr;
    made->workspace_ =
        made->node_.get<Index>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64).at(0);
    return made;
  }
  const CudnnProblem& problem() const { return graph_->problem(); }
  /// Bytes.
  Index workspace() const { return workspace_; }

  template <class T>
  cudnnStatus_t run(cudnnHandle_t handle, const CudnnOperands<T>& on, void* workspace) const {
    CudnnNode pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    std::vector<void*> tensors{on.fine, on.filter, on.coarse};
    std::vector<Index> ids{Index('x'), Index('w'), Index('y')};
    if (problem().tail.bias) {  // which is only read
      tensors.push_back(const_cast<void*>(static_cast<const void*>(on.bias)));
      ids.push_back(Index('b'));
    }
    pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, tensors)
        .set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, ids)
        .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, std::vector{workspace})
        .finalize("; ", problem().text());
    return cudnnBackendExecute(handle, node_.get(), pack.get());
  }

 private:
  explicit CudnnPlan(std::shared_ptr<const CudnnGraph> graph)
      : graph_(std::move(graph)), node_(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {}
  std::shared_ptr<const CudnnGraph> graph_;  // cuDNN may refer to it
  CudnnNode node_;
  Index workspace_ = 0;
};

}  // namespace segmed
