// SPDX-License-Identifier: Apache-2.0
// Convolutions of Cuda by cuDNN. backend/cuda.hpp includes this where SEGMED_CUDNN is defined.
#pragma once
#include <segmed/backend/cuda.hpp>
#include <segmed/backend/cudnn/convolve.hpp>
#include <segmed/backend/cudnn/plans.hpp>

namespace segmed {

/// cuDNN, as convolve.hpp asks for dense engines.
struct CudnnDense {
  static CudnnSwitches switches() { return Cudnn::switches(); }
  template <CudnnStored T>
  static const CudnnPlan* plan(const CudnnProblem& p) {
    if (convolution_mode() == ConvolutionMode::direct) return nullptr;
    return CudnnContext::current(Cuda::stream()).plan<Cuda, T>(p);
  }
  template <CudnnStored T>
  static void run(const CudnnPlan& plan, const CudnnOperands<T>& on) {
    cudnn_check(CudnnContext::current(Cuda::stream()).run<Cuda>(plan, on), "cudnnBackendExecute",
                "; ", plan.problem().text());
  }
};

template <class T>
requires CudnnStored<T>
void Cuda::gather(const Window& w, const Feed<T>& in, const Wide<T>* weight, const Sink<T>& out) {
  write_by<CudnnDense, Cuda, T>(CudnnPass::forward, w, in, weight, out);
}
template <class T>
requires CudnnStored<T>
bool Cuda::gather_activated(const Window& w, const Feed<T>& in, const Wide<T>* weight,
                            const Sink<T>& out, Wide<T> leak) {
  return write_by<CudnnDense, Cuda, T>(CudnnPass::forward, w, in, weight, out, leak);
}
template <class T>
requires CudnnStored<T>
void Cuda::scatter(const Window& w, const Feed<T>& in, const Wide<T>* weight, const Sink<T>& out) {
  write_by<CudnnDense, Cuda, T>(CudnnPass::backward_data, w, in, weight, out);
}
template <class T>
requires CudnnStored<T>
void Cuda::weigh(const Window& w, const Feed<T>& fine, const Feed<T>& coarse,
                 Wide<T>* weight_grad) {
  weigh_by<CudnnDense, Cuda, T>(w, fine, coarse, weight_grad);
}
static_assert(ConvolvesDense<Cuda, float> && ConvolvesDense<Cuda, Bfloat16> &&
              !HasConvolutions<Cuda, double>);

}  // namespace segmed
