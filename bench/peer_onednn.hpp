// SPDX-License-Identifier: Apache-2.0
// The convolutions of the benchmarks in oneDNN, with its own layouts of weights.
#pragma once
#include <cstring>
#include <dnnl.hpp>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "conv_cases.hpp"
#include "roofline.hpp"

namespace bench {

/// One of oneDNN's three passes in one layout.
struct OneDnn {
  using Dims = dnnl::memory::dims;
  using Tag = dnnl::memory::format_tag;

  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::vector<dnnl::primitive> primitives;
  std::vector<std::unordered_map<int, dnnl::memory>> arguments;

  void fill(dnnl::memory& m) {
    const std::size_t n = m.get_desc().get_size() / sizeof(float);
    const Numbers x = numbers(Index(n));
    std::memcpy(m.get_data_handle(), x.data(), n * sizeof(float));
  }
  template <class P, class D>
  void add(const D& description, std::vector<std::pair<int, dnnl::memory::desc>> list) {
    std::unordered_map<int, dnnl::memory> given;
    for (auto& [id, desc] : list) {
      dnnl::memory m(desc, engine);
      fill(m);
      given.emplace(id, m);
    }
    primitives.push_back(P(description));
    arguments.push_back(std::move(given));
  }
  /// Throws dnnl::error where it has none.
  OneDnn(const ConvShape& s, Pass pass, Tag tag) {
    using namespace dnnl;
    const auto f32 = memory::data_type::f32;
    Dims in{1, s.inputs}, out{1, s.outputs};
    for (int a = 0; a < 3; ++a) {
      in.push_back(s.extent[a]);
      out.push_back(s.transposed ? s.fine(a) : s.coarse(a));
    }
    const memory::desc x(in, f32, s.inputs == 1 && tag == Tag::any ? Tag::ncdhw : tag);
    const memory::desc y(out, f32, tag);
    const memory::desc w(Dims{s.outputs, s.inputs, s.kernel, s.kernel, s.kernel}, f32, Tag::any);
    const memory::desc b(Dims{s.outputs}, f32, Tag::any);
    const Dims stride{s.stride, s.stride, s.stride}, pad{s.padding, s.padding, s.padding};
    const auto make = [&](auto forward, auto data, auto weights, auto algorithm) {
      using F = decltype(forward);
      using D = decltype(data);
      using W = decltype(weights);
      const typename F::primitive_desc fd(
          {prop_kind::forward_training, algorithm, x, w, b, y, stride, pad, pad}, engine);
      if (pass == forward_pass) {
        add<F>(fd, {{DNNL_ARG_SRC, fd.src_desc()},
                    {DNNL_ARG_WEIGHTS, fd.weights_desc()},
                    {DNNL_ARG_BIAS, fd.bias_desc()},
                    {DNNL_ARG_DST, fd.dst_desc()}});
      } else if (pass == data_pass) {
        const typename D::primitive_desc dd({algorithm, x, w, y, stride, pad, pad}, engine, fd);
        add<D>(dd, {{DNNL_ARG_DIFF_SRC, dd.diff_src_desc()},
                    {DNNL_ARG_WEIGHTS, dd.weights_desc()},
                    {DNNL_ARG_DIFF_DST, dd.diff_dst_desc()}});
      } else {
        const typename W::primitive_desc wd({algorithm, x, w, b, y, stride, pad, pad}, engine, fd);
        add<W>(wd, {{DNNL_ARG_SRC, wd.src_desc()},
                    {DNNL_ARG_DIFF_WEIGHTS, wd.diff_weights_desc()},
                    {DNNL_ARG_DIFF_BIAS, wd.diff_bias_desc()},
                    {DNNL_ARG_DIFF_DST, wd.diff_dst_desc()}});
      }
    };
    if (s.transposed)
      make(deconvolution_forward{}, deconvolution_backward_data{}, deconvolution_backward_weights{},
           algorithm::deconvolution_direct);
    else
      make(convolution_forward{}, convolution_backward_data{}, convolution_backward_weights{},
           algorithm::convolution_direct);
  }
  void run() {
    for (std::size_t i = 0; i < primitives.size(); ++i) primitives[i].execute(stream, arguments[i]);
    stream.wait();
  }
};

/// A pass in each layout that may be the best one: oneDNN's own choice and channels last.
class OneDnnLayouts {
 public:
  OneDnnLayouts(const ConvShape& s, Pass pass) {
    for (const OneDnn::Tag tag : {OneDnn::Tag::any, OneDnn::Tag::ndhwc}) try {
        layouts_.emplace_back(s, pass, tag);
        layouts_.back().run();
      } catch (const dnnl::error&) {
      }
  }
  /// Of so many runs of the faster layout.
  double seconds(int runs) {
    double best = 1e30;
    for (OneDnn& layout : layouts_)
      best = std::min(best, seconds_of([&] {
                        for (int i = 0; i < runs; ++i) layout.run();
                      }));
    return best;
  }

 private:
  std::vector<OneDnn> layouts_;
};

inline std::string onednn_version() {
  const dnnl_version_t* v = dnnl_version();
  return "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." +
         std::to_string(v->patch);
}

}  // namespace bench
