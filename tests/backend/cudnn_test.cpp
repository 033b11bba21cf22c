// SPDX-License-Identifier: Apache-2.0
// Convolutions by cuDNN against the plain kernels on the host. Without a GPU only its absence is
// tested.
#include "cudnn_problem.hpp"
#include <segmed/backend/backend.hpp>
#include <segmed/backend/cudnn.hpp>

namespace {
using namespace made_up;

bool gpu() {
  static const bool there = [] {
    int count = 0;
    const bool found = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
    if (!found) MESSAGE("no GPU can be used: skipped");
    return found;
  }();
  return there;
}

// Largest differences relative to the largest number: rounding of inputs and weights to the
// storage type, or to TF32.
template <class T>
double tolerance(bool tf32) {
  return sizeof(T) == 2 ? 2e-2 : tf32 ? 3e-3 : 2e-5;
}

template <class T>
void check_all(const Problem& p, bool tf32) {
  for (const bool to_coarse : {true, false}) {
    CAPTURE(to_coarse);
    const Results plain = written<T, Cpu>(p, to_coarse, [&](const auto&... of) {
      if (to_coarse)
        gather_plainly<Cpu, T>(of...);
      else
        scatter_plainly<Cpu, T>(of...);
    });
    const auto run = [&] {
      return written<T, Cuda>(p, to_coarse, [&](const auto&... of) {
        if (to_coarse)
          gather<Cuda, T>(of...);
        else
          scatter<Cuda, T>(of...);
      });
    };
    const Results made = run();
    CHECK(distance(made.out, plain.out) < tolerance<T>(tf32));
    CHECK(distance(made.moments, plain.moments) < 2 * tolerance<T>(tf32));
    CHECK(run().out == made.out);  // the same bits each time
  }
  const Results plain = weighed<T, Cpu>(p, [](const auto&... of) { weigh_plainly<Cpu, T>(of...); });
  const auto run = [&] {
    return weighed<T, Cuda>(p, [](const auto&... of) { weigh<Cuda, T>(of...); });
  };
  const Results made = run();
  CHECK(distance(made.out, plain.out) < tolerance<T>(tf32));
  CHECK(run().out == made.out);
}

// Extents as networks have them.
std::vector<Window> larger() {
  return {window({1, 24, 24, 24, 32}, 32, 3, 1, 1), window({1, 16, 16, 16, 32}, 64, 3, 2, 1),
          window({1, 12, 12, 12, 64}, 32, 2, 2, 0), window({2, 1, 64, 48, 16}, 32, 3, 1, 1),
          window({1, 24, 24, 24, 1}, 32, 3, 1, 1),  window({1, 24, 24, 24, 32}, 3, 1, 1, 0)};
}

}  // namespace

TEST_SUITE("backend/cudnn") {
  TEST_CASE_TEMPLATE("convolutions agree with the plain kernels", T, float, Bfloat16) {
    if (!gpu()) return;
    std::uint32_t seed = 1;
    for (const bool tf32 : {true, false}) {
      if (sizeof(T) == 2 && !tf32) continue;
      Cudnn::tf32(tf32);
      std::vector<Window> all = windows();
      for (const Window& w : larger()) all.push_back(w);
      for (const Window& w : all) {
        CAPTURE(w.fine);
        CAPTURE(w.coarse);
        for (int mode = 0; mode < Problem::modes; ++mode) {
          CAPTURE(mode);
          const Problem p = Problem::of_mode(mode, w, seed++);
          check_all<T>(p, tf32);
        }
      }
    }
    Cudnn::tf32(false);
    for (const std::string& line : CudnnContext::current(Cuda::stream()).report()) MESSAGE(line);
  }
  TEST_CASE_TEMPLATE("bias and activation in one graph, or behind it, agree with the plain kernels",
                     T, float, Bfloat16) {
    if (!gpu()) return;
    std::vector<Window> all = larger();
    all.push_back(window({1, 5, 6, 4, 16}, 16, 3, 1, 1));
    for (const bool fused : {true, false}) {
      CAPTURE(fused);
      Cudnn::fused(fused);
      std::uint32_t seed = 1;
      for (const Window& w : all) {
        CAPTURE(w.fine);
        CAPTURE(w.coarse);
        check_all<T>({.w = w, .bias = true, .seed = seed++}, false);
      }
    }
    Cudnn::fused(true);
    for (const double slope : {0.0, 0.01})
      for (const bool bias : {true, false})
        for (const Window& w : all) {
          CAPTURE(slope);
          CAPTURE(bias);
          CAPTURE(w.fine);
          CAPTURE(w.coarse);
          const Problem p{.w = w, .bias = bias, .seed = 5};
          bool done = false;
          const auto run = [&] {
            return written<T, Cuda>(p, true, [&](const auto&... of) {
              done = gather_activated<Cuda, T>(of..., Wide<T>(slope));
            });
          };
          const Results made = run();
          if (!done) continue;  // then the activation is left to readers
          Results plain =
              written<T, Cpu>(p, true, [&](const auto&... of) { gather_plainly<Cpu, T>(of...); });
          for (double& z : plain.out) z = z > 0 ? z : slope * z;
          CHECK(distance(made.out, plain.out) < tolerance<T>(false));
          CHECK(run().out == made.out);
        }
    for (const std::string& line : CudnnContext::current(Cuda::stream()).report())
      if (line.find(" bias") != line.npos || line.find(" leak") != line.npos) MESSAGE(line);
  }
  TEST_CASE("what cuDNN cannot say goes to the plain kernels, and doubles do") {
    if (!gpu()) return;
    Window w = window({2, 6, 4, 8, 5}, 6, 2, 2, 0);
    w.fine.depth += 3;
    check_all<float>({.w = w}, false);
    check_all<double>({.w = windows()[0]}, false);
    set_convolution_mode(ConvolutionMode::direct);
    check_all<float>({.w = windows()[1]}, false);
    set_convolution_mode(ConvolutionMode::precise);
    check_all<float>({.w = windows()[1]}, false);
    set_convolution_mode(ConvolutionMode::automatic);
  }
  TEST_CASE("tuning is written down, and obeyed once read") {
    if (!gpu()) return;
    const Problem p{.w = window({1, 16, 16, 16, 32}, 32, 3, 1, 1)};
    const auto run = [&] {
      return written<Bfloat16, Cuda>(p, true,
                                     [&](const auto&... of) { gather<Cuda, Bfloat16>(of...); });
    };
    Cudnn::tune(8);
    const Results tuned = run();
    const auto said = CudnnContext::current(Cuda::stream()).report();
    REQUIRE(said.size() == 1);
    CHECK(said[0].find(" ms") != std::string::npos);
    Cudnn::tune(0);
    const Json table = Cudnn::tuning();
    CHECK_FALSE(table.at("graphs").as_array().empty());
    Cudnn::use_tuning(table);
    CHECK(run().out == tuned.out);
    Json foreign = table;
    foreign["architecture"] = 1;
    CHECK_THROWS_AS(Cudnn::use_tuning(foreign), ConfigError);
    Cudnn::use_tuning(TuningTable{}.json());
  }
  TEST_CASE("tuning decides whether a bias is added in the graph, and is obeyed") {
    if (!gpu()) return;
    const Problem p{.w = window({1, 16, 16, 16, 32}, 32, 2, 2, 0), .bias = true};
    const auto run = [&] {
      return written<Bfloat16, Cuda>(p, false,
                                     [&](const auto&... of) { scatter<Cuda, Bfloat16>(of...); });
    };
    Cudnn::tune(4);
    const Results tuned = run();
    Cudnn::tune(0);
    const Json table = Cudnn::tuning();
    Index with_bias = 0;
    for (const Json& one : table.at("graphs").as_array())
      with_bias += one.at("graph").as_string().find(" bias") != std::string::npos;
    CHECK(with_bias == 1);
    Cudnn::use_tuning(table);
    CHECK(run().out == tuned.out);
    Cudnn::use_tuning(TuningTable{}.json());
  }
  TEST_CASE("little workspace still convolves") {
    if (!gpu()) return;
    Cudnn::workspace(0);
    check_all<float>({.w = windows()[1]}, false);
    Cudnn::workspace(Index{1} << 30);
  }
  TEST_CASE("a graph without a plan is refused while a CUDA graph is captured") {
    if (!gpu()) return;
    const CudnnProblem p = cudnn_problem(CudnnPass::forward, CudnnStorage::float32,
                                         Cudnn::switches(), window({1, 9, 11, 13, 16}, 16, 3, 1, 1))
                               .value();
    CudnnContext::current(Cuda::stream());  // a handle cannot be made in a capture
    Cuda::check(cudaStreamBeginCapture(Cuda::stream(), cudaStreamCaptureModeThreadLocal),
                "cudaStreamBeginCapture");
    CHECK_THROWS_AS(CudnnDense::plan<float>(p), DeviceError);
    cudaGraph_t graph = nullptr;
    Cuda::check(cudaStreamEndCapture(Cuda::stream(), &graph), "cudaStreamEndCapture");
    Cuda::check(cudaGraphDestroy(graph), "cudaGraphDestroy");
    CHECK(CudnnDense::plan<float>(p) != nullptr);
  }
  TEST_CASE("errors name the call, the status and what it was for") {
    CHECK_NOTHROW(cudnn_check(CUDNN_STATUS_SUCCESS, "a call"));
    try {
      cudnn_check(CUDNN_STATUS_BAD_PARAM, "cudnnBackendFinalize", "; ", windows()[0].fine);
      FAIL("no error");
    } catch (const DeviceError& error) {
      const std::string words = error.what();
      CHECK(words.find("segmed: cudnnBackendFinalize: CUDNN_STATUS_BAD_PARAM (2000)") == 0);
      CHECK(words.find("; (2, 5, 6, 7, 3)") != std::string::npos);
    }
    if (gpu()) return;
    CHECK_THROWS_WITH_AS(CudnnContext::current(Cuda::stream()),
                         doctest::Contains("no GPU can be used here"), DeviceError);
  }
}
