// SPDX-License-Identifier: Apache-2.0
// The plans of this process: how they are chosen, checked, timed and found again.
#pragma once
#include <algorithm>
#include <cstddef>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <segmed/backend/convolution_mode.hpp>
#include <segmed/backend/cuda_runtime.hpp>
#include <segmed/backend/cudnn/check.hpp>
#include <segmed/backend/cudnn/graph.hpp>

namespace segmed {

/// How this process convolves on GPUs. Settings hold for what is planned after them: each has plans
/// of its own.
///
/// ConvolutionMode (SEGMED_CONV) holds here too: `precise` means no TF32, `direct` the plain
/// kernels.
class Cudnn {
 public:
  /// Whether floats may be multiplied with 10 bits of fraction on tensor cores: off at first.
  /// Relative errors are about 3e-4 then.
  static void tf32(bool on) {
    change([&](State& s) { s.switches.tf32 = on; });
  }
  /// Whether engines may add in an order that differs from run to run: off at first.
  static void nondeterministic(bool on) {
    change([&](State& s) { s.switches.nondeterministic = on; });
  }
  /// What an engine may use beside its tensors, in bytes: 1 GiB at first.
  static void workspace(Index bytes) {
    change([&](State& s) { s.switches.workspace = bytes; });
  }
  /// Whether a bias and an activation join their convolution's graph where an engine does all: on
  /// at first.
  static void fused(bool on) {
    change([&](State& s) { s.switches.fused = on; });
  }
  static CudnnSwitches switches() {
    CudnnSwitches now;
    change([&](State& s) { now = s.switches; });
    now.tf32 = now.tf32 && convolution_mode() == ConvolutionMode::automatic;
    return now;
  }

  /// Graphs that are met from now on take the fastest of up to so many engines by the clock, and
  /// the tuning table keeps which it was; 0, as at first: cuDNN's first guess.
  static void tune(int engines) {
    change([&](State& s) { s.tuned = engines, ++s.generation; });
  }
  /// What tuning found, for a run to keep.
  static Json tuning() {
    Json out;
    change([&](State& s) { out = s.table.json(); });
    return out;
  }
  /// From now on the engines of this table, for the graphs that it names.
  ///
  ///   throws   ConfigError for a table of another GPU architecture or version of cuDNN
  static void use_tuning(const Json& table) {
    TuningTable read = TuningTable::of_json(table, machine());
    change([&](State& s) { s.table = std::move(read), ++s.generation; });
  }
  /// The current GPU. Throws DeviceError when there is none.
  static CudnnMachine machine() {
    int device = 0;
    CudaRuntime::stream();  // so that this thread is on the right device
    CudaRuntime::check(cudaGetDevice(&device), "cudaGetDevice");
    cudaDeviceProp about{};
    CudaRuntime::check(cudaGetDeviceProperties(&about, device), "cudaGetDeviceProperties");
    return {about.name, 10 * about.major + about.minor, Index(cudnnGetVersion())};
  }

  struct State {
    CudnnSwitches switches;
    int tuned = 0;
    Index generation = 0;  // of the table: plans of an earlier one are not used again
    TuningTable table;
  };
  /// Calls `on(state)`, one caller at a time.
  template <class On>
  static void change(const On& on) {
    Shared& all = shared();
    const std::lock_guard lock(all.mutex);
    on(all.state);
  }

 private:
  struct Shared {
    std::mutex mutex;
    State state;
  };
  static Shared& shared() {
    static Shared all;
    return all;
  }
};

/// This thread's handle on the current GPU, and the plans that were made with it. Threads that end
/// hand theirs on, and nothing is destroyed before the process ends: CUDA graphs may refer to the
/// programs that plans have compiled.
class CudnnContext {
 public:
  CudnnContext(const CudnnContext&) = delete;
  CudnnContext& operator=(const CudnnContext&) = delete;

  static CudnnContext& current(cudaStream_t stream) {
    thread_local Held held;
    int device = 0;
    CudaRuntime::check(cudaGetDevice(&device), "cudaGetDevice");
    CudnnContext*& mine = held.by_device[device];
    if (!mine) mine = take(device);
    if (mine->stream_ != stream) {
      cudnn_check(cudnnSetStream(mine->handle_, stream), "cudnnSetStream");
      mine->stream_ = stream;
    }
    return *mine;
  }

  /// Null: no engine does it, and the plain kernels have to; or of a graph with a tail, another
  /// pass behind the graph without one. Choosing takes up to seconds and waits for the GPU, so a
  /// graph is planned on the first call of its kind.
  template <class D, class T>
  const CudnnPlan* plan(const CudnnProblem& p) {
    Index generation = 0;
    int tuned = 0;
    Cudnn::change([&](Cudnn::State& s) { generation = s.generation, tuned = s.tuned; });
    const std::pair key{generation, p.key()};
    if (const auto found = plans_.find(key); found != plans_.end())
      return found->second.choice.plan.get();

    cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
    CudaRuntime::check(cudaStreamIsCapturing(D::stream(), &capturing), "cudaStreamIsCapturing");
    require<DeviceError>(capturing == cudaStreamCaptureStatusNone, "cudnn",
                         "a CUDA graph is being captured, and there is no plan yet for ", p.text(),
                         "; run the same step once before");
    std::optional<CudnnEngine> wanted;
    Cudnn::change([&](Cudnn::State& s) { wanted = s.table.find(p); });
    const bool has_tail = p.tail.any();
    std::unique_ptr<Maker<D, T>> maker;
    Choice choice;
    if (has_tail && wanted && wanted->is_apart()) {
      choice.refused.push_back({"the graph", "left so by the tuning table"});
      return keep(key, p, std::move(choice));
    }
    try {
      maker = std::make_unique<Maker<D, T>>(*this, p);
    } catch (const DeviceError& unknown) {  // such a graph is none to this cuDNN
      choice.refused.push_back({"the graph", unknown.what()});
    }
    if (maker)
      choice = choose_plan<CudnnPlan>(p, *maker, allowed_difference(p.storage), tuned,
                                      wanted ? &*wanted : nullptr);
    if (wanted && !choice.plan)
      fail<DeviceError>(
          "cudnn", "the tuning table names ", wanted->text(), " for ", p.text(), ": ",
          choice.refused.empty() ? "cuDNN offers no such engine" : choice.refused.back().why,
          "; tune again");
    choice.checked = !maker || maker->checked;
    if (tuned > 0 && !wanted) {
      if (has_tail && choice.plan) keep_if_faster(choice, apart<D, T>(generation, p));
      const CudnnMachine here = Cudnn::machine();
      if (choice.plan || has_tail)
        Cudnn::change(
            [&](Cudnn::State& s) { s.table.record(here, p, choice.engine, choice.milliseconds); });
    }
    return keep(key, p, std::move(choice));
  }

  template <class D, class T>
  cudnnStatus_t run(const CudnnPlan& plan, const CudnnOperands<T>& on) const {
    const Workspace<D, std::byte> workspace(plan.workspace());
    return plan.run(handle_, on, workspace.data());
  }

  /// A line per graph that this thread has planned by the table in use: what does it, and what was
  /// refused before it. `plain`: only of convolutions that no engine does.
  std::vector<std::string> report(bool plain = false) const {
    Index generation = 0;
    Cudnn::change([&](Cudnn::State& s) { generation = s.generation; });
    std::vector<std::string> lines;
    for (const auto& [key, kept] : plans_)
      if (const bool has_tail = kept.problem.tail.any();
          key.first == generation && !(plain && (kept.choice.plan || has_tail)))
        lines.push_back(kept.problem.text() + ": " + kept.choice.text(has_tail));
    return lines;
  }

 private:
  using Choice = CudnnChoice<CudnnPlan>;
  struct Kept {
    CudnnProblem problem;
    Choice choice;
  };

  const CudnnPlan* keep(const std::pair<Index, CudnnKey>& key, const CudnnProblem& p, Choice made) {
    return plans_.insert_or_assign(key, Kept{p, std::move(made)}).first->second.choice.plan.get();
  }
  // The milliseconds of a graph with a tail when it is done in steps: its convolution, a pass for
  // the bias, and at least one reader for which the activation is pending.
  template <class D, class T>
  double apart(Index generation, const CudnnProblem& p) {
    const CudnnProblem bare = p.with_tail({});
    plan<D, T>(bare);
    const Choice& convolution = plans_.at({generation, bare.key()}).choice;
    if (!convolution.plan) return std::numeric_limits<double>::infinity();
    const Grid& grid = p.written();
    Workspace<D, T> written(grid.size());
    Workspace<D, Wide<T>> bias(grid.channels);
    D::launch(grid.size(), MakeUpNumbers<T>{written.data(), 1});
    D::launch(grid.channels, MakeUpNumbers<Wide<T>>{bias.data(), 2});
    Sink<T> sink;
    sink.out[0] = written.data(), sink.grid[0] = grid, sink.bias = bias.data();
    const Drain<T> pass{written.data(), grid, grid.channels, sink,
                        drains_together(sink, grid.channels)};
    const double one =
        timed<D>([&] { D::launch_rows(grid.rows(), channel_blocks(grid.channels), pass); });
    return convolution.milliseconds + one * (int(p.tail.bias) + int(p.tail.leak != 1));
  }
  // The milliseconds of one call: the best of some batches.
  template <class D, class Run>
  static double timed(const Run& run) {
    const int batch = 5;
    double best = 1e30;
    for (int i = 0; i < 4; ++i) {  // the first warms up
      cudaEvent_t begin = nullptr, end = nullptr;
      CudaRuntime::check(cudaEventCreate(&begin), "cudaEventCreate");
      CudaRuntime::check(cudaEventCreate(&end), "cudaEventCreate");
      run();  // before the clock, so that the host is ahead of the GPU when it starts
      CudaRuntime::check(cudaEventRecord(begin, D::stream()), "cudaEventRecord");
      for (int k = 0; k < batch; ++k) run();
      CudaRuntime::check(cudaEventRecord(end, D::stream()), "cudaEventRecord");
      CudaRuntime::check(cudaEventSynchronize(end), "cudaEventSynchronize");
      float milliseconds = 0;
      CudaRuntime::check(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
      if (i > 0) best = std::min(best, double(milliseconds) / batch);
      CudaRuntime::check(cudaEventDestroy(begin), "cudaEventDestroy");
      CudaRuntime::check(cudaEventDestroy(end), "cudaEventDestroy");
    }
    return best;
  }

  // What choose_plan asks for; see there.
  template <class D, class T>
  struct Maker {
    CudnnContext& context;
    CudnnProblem problem;
    std::shared_ptr<const CudnnGraph> graph;
    std::vector<CudnnProposal> all;
    mutable bool checked = true;

    Maker(CudnnContext& c, const CudnnProblem& p)
        : context(c),
          problem(p),
          graph(std::make_shared<CudnnGraph>(c.handle_, p)),
          all(proposals(*graph)) {}
    std::vector<CudnnEngine> engines() const {
      std::vector<CudnnEngine> out;
      for (const CudnnProposal& one : all) out.push_back(one.engine);
      return out;
    }
    std::unique_ptr<CudnnPlan> build(std::size_t i) const {
      return CudnnPlan::build(context.handle_, graph, all[i]);
    }
    Index workspace(const CudnnPlan& plan) const { return plan.workspace(); }
    // Where a second set of tensors does not fit beside the first, a plan goes unchecked.
    float difference(const CudnnPlan& plan) const {
      cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
      checked = true;
      try {
        const float off = worst_difference<D, T>(
            problem, [&](const CudnnOperands<T>& on) { status = context.run<D>(plan, on); });
        return status == CUDNN_STATUS_SUCCESS ? off : 3e38f;
      } catch (const MemoryError&) {
        checked = false;
        return 0;
      }
    }
    double milliseconds(const CudnnPlan& plan) const {
      const Window& w = problem.window;
      Workspace<D, T> fine(w.fine.size()), filter(w.weights()), coarse(w.coarse.size());
      D::launch(w.fine.size(), MakeUpNumbers<T>{fine.data(), 1});
      D::launch(w.weights(), MakeUpNumbers<T>{filter.data(), 2});
      D::launch(w.coarse.size(), MakeUpNumbers<T>{coarse.data(), 3});
      Workspace<D, Wide<T>> bias(problem.written().channels);
      D::launch(problem.written().channels, MakeUpNumbers<Wide<T>>{bias.data(), 4});
      const CudnnOperands<T> on{fine.data(), filter.data(), coarse.data(), bias.data()};
      return timed<D>([&] {
        cudnn_check(context.run<D>(plan, on), "cudnnBackendExecute", "; ", problem.text());
      });
    }
  };

  struct Idle {
    std::mutex mutex;
    std::multimap<int, CudnnContext*> by_device;
  };
  static Idle& idle() {
    static Idle& all = *new Idle;  // outlives every thread
    return all;
  }
  struct Held {
    std::map<int, CudnnContext*> by_device;
    ~Held() {
      const std::lock_guard lock(idle().mutex);
      for (const auto& [device, context] : by_device)
        if (context) idle().by_device.emplace(device, context);
    }
  };
  static CudnnContext* take(int device) {
    const std::lock_guard lock(idle().mutex);
    const auto found = idle().by_device.find(device);
    if (found == idle().by_device.end()) return new CudnnContext;
    CudnnContext* context = found->second;
    idle().by_device.erase(found);
    return context;
  }
  CudnnContext() { cudnn_check(cudnnCreate(&handle_), "cudnnCreate"); }

  cudnnHandle_t handle_ = nullptr;
  cudaStream_t stream_ = nullptr;  // cuDNN begins with the default stream
  std::map<std::pair<Index, CudnnKey>, Kept> plans_;
};

}  // namespace segmed
