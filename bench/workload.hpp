// SPDX-License-Identifier: Apache-2.0
// What the benchmark programs have in common: workloads by name, timed by Google Benchmark or one
// at a time on request, and checks of their results, which come first.
//
//   bench_X [--threads 1,2] [options of Google Benchmark]
//   bench_X --list                      the names
//   bench_X --check                     compares results with plain ones, times nothing
//   bench_X --serve                     reads lines "NAME THREADS", answers "MS SHARE" to each:
//                                       milliseconds, and the share of the roofline (0: not
//                                       counted). "BM_Roofline THREADS" is answered by the roofline
//                                       itself: GFLOP/s and GB/s
//   bench_X --peak-rss NAME THREADS     MiB that two runs need above what the program had before
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>

#include "roofline.hpp"
#include <segmed/core/error.hpp>
#include <segmed/core/random.hpp>

namespace bench {

/// An error that was found, and what is allowed.
struct Check {
  std::string what;
  double error, allowed;
};
/// One run, which returns the seconds that count: what only prepares it is left out.
using Run = std::function<double()>;
struct Workload {
  std::string name;
  std::function<Run()> prepare;
  double flops = 0;  // of the direct algorithm
  double bytes = 0;  // that any implementation has to read and write
  /// What else the runs found out, by name.
  std::function<std::map<std::string, double>()> found = {};
  /// Looks at the result on the shape that is timed.
  std::function<std::vector<Check>()> check = {};
};
/// What nobody should time. Prints the first check that fails and ends the program.
inline void refuse_wrong(const std::vector<Check>& checks) {
  for (const Check& check : checks)
    if (!(check.error <= check.allowed)) {
      std::fprintf(stderr, "%s is wrong by %g, at most %g is allowed\n", check.what.c_str(),
                   check.error, check.allowed);
      std::exit(1);
    }
}
/// A positive number that the command line gives; else says so and ends the program.
inline int count_of(const char* program, const char* what, const std::string& given) {
  char* end = nullptr;
  const long count = std::strtol(given.c_str(), &end, 10);
  if (given.empty() || *end != 0 || count < 1 || count > 4096) {
    std::fprintf(stderr, "%s: %s is '%s'; give a number from 1 to 4096\n", program, what,
                 given.c_str());
    std::exit(2);
  }
  return int(count);
}
/// A line "NAME THREADS".
struct Request {
  std::string name;
  int threads = 1;
  explicit Request(const std::string& line) {
    std::istringstream words(line);
    words >> name >> threads;
  }
};

/// Normal numbers, the same on every machine.
inline std::vector<float> normal_numbers(Index n, std::uint32_t stream = 0) {
  std::vector<float> x(static_cast<std::size_t>(n));
  const segmed::Philox random{2026, segmed::Purpose::statistics, stream};
  segmed::parallel_for(n, 1 << 14, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) x[std::size_t(i)] = random.normal(i);
  });
  return x;
}
/// Labels 0 to classes - 1.
inline std::vector<std::uint8_t> random_labels(Index n, Index classes) {
  std::vector<std::uint8_t> x(static_cast<std::size_t>(n));
  const segmed::Philox random{2027, segmed::Purpose::statistics};
  for (Index i = 0; i < n; ++i) x[std::size_t(i)] = std::uint8_t(random.below(i, classes));
  return x;
}
/// The distance of `made` from `truth` in the square mean, relative to the size of `truth`.
template <class A, class B>
double relative_error(const A& made, const B& truth) {
  if (made.size() != truth.size()) return INFINITY;
  double off = 0, size = 0;
  for (std::size_t i = 0; i < made.size(); ++i) {
    const double d = double(made[i]) - double(truth[i]);
    off += d * d, size += double(truth[i]) * double(truth[i]);
  }
  return std::sqrt(off / size);
}

/// The most memory that this process has had at once, in MiB.
inline double peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "VmHWM:") {
      double kib = 0;
      status >> kib;
      return kib / 1024;
    }
  return 0;
}

/// The workloads of a program, of which one at a time is ready to run.
class Bench {
 public:
  explicit Bench(std::vector<Workload> workloads) : workloads_(std::move(workloads)) {}

  const std::vector<Workload>& workloads() const { return workloads_; }
  const Workload* find(const std::string& name) const {
    for (const Workload& w : workloads_)
      if (w.name == name) return &w;
    return nullptr;
  }
  /// Checked and warmed up, with that many threads.
  const Run& ready(const Workload& w, int threads) {
    if (ready_ == &w && threads_ == threads) return run_;
    run_ = {}, ready_ = nullptr;
    segmed::set_threads(threads);
    roofline();
    if (w.check && checked_.insert(&w).second) refuse_wrong(w.check());
    run_ = w.prepare();
    run_();
    ready_ = &w, threads_ = threads;
    return run_;
  }
  /// The median of the runs that fit into a tenth of a second, at least one.
  static double seconds(const Run& run) {
    std::vector<double> all;
    for (double total = 0; total < 0.1 && all.size() < 1000; total += all.back())
      all.push_back(run());
    std::nth_element(all.begin(), all.begin() + std::ptrdiff_t(all.size() / 2), all.end());
    return all[all.size() / 2];
  }

 private:
  std::vector<Workload> workloads_;
  const Workload* ready_ = nullptr;
  std::set<const Workload*> checked_;
  int threads_ = 0;
  Run run_;
};

inline void serve(Bench& bench) {
  for (std::string line; std::getline(std::cin, line);) {
    const Request request(line);
    const Workload* w = bench.find(request.name);
    if (request.name == "BM_Roofline") {
      segmed::set_threads(request.threads);
      std::printf("%.4g %.4g\n", roofline().flops * 1e-9, roofline().bytes * 1e-9);
    } else if (!w) {
      std::printf("- no such workload\n");
    } else {
      const double seconds = Bench::seconds(bench.ready(*w, request.threads));
      std::printf("%.6g %.4g\n", 1e3 * seconds, roofline().share(w->flops, w->bytes, seconds));
    }
    std::fflush(stdout);
  }
}

inline void add_to_google_benchmark(Bench& bench, const std::vector<int>& threads) {
  for (const int count : threads) {
    const auto threads_are = "/T" + std::to_string(count);
    benchmark::RegisterBenchmark(("BM_Roofline" + threads_are).c_str(),
                                 [count](benchmark::State& state) {
                                   segmed::set_threads(count);
                                   for (auto _ : state) state.SetIterationTime(1e-3);
                                   state.counters["GFLOPs"] = roofline().flops * 1e-9;
                                   state.counters["GBps"] = roofline().bytes * 1e-9;
                                 })
        ->UseManualTime()
        ->Iterations(1);
    for (const Workload& w : bench.workloads())
      benchmark::RegisterBenchmark(
          (w.name + threads_are).c_str(),
          [&bench, &w, count](benchmark::State& state) {
            const Run& run = bench.ready(w, count);
            double total = 0;
            for (auto _ : state) {
              const double seconds = run();
              state.SetIterationTime(seconds);
              total += seconds;
            }
            const double mean = total / double(state.iterations());
            if (w.flops > 0) {
              state.counters["GFLOPs"] = w.flops / mean * 1e-9;
              state.counters["pct_peak"] = 100 * w.flops / mean / roofline().flops;
            }
            if (w.bytes > 0) {
              state.counters["GBps"] = w.bytes / mean * 1e-9;
              state.counters["pct_bw"] = 100 * w.bytes / mean / roofline().bytes;
            }
            if (w.found)
              for (const auto& [name, value] : w.found()) state.counters[name] = value;
          })
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
  }
}

/// What a program's main returns; 1 when a result is wrong.
inline int run_program(int argc, char** argv, const std::function<std::vector<Check>()>& checks,
                       std::vector<Workload> workloads) {
  const double before = peak_memory();
  Bench bench(std::move(workloads));
  std::vector<int> threads{1};
  if (const int all = int(std::thread::hardware_concurrency()); all > 1) threads.push_back(all);
  std::vector<char*> rest{argv[0]};
  bool serves = false, only_checks = false;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "--list") {
      for (const Workload& w : bench.workloads()) std::printf("%s\n", w.name.c_str());
      return 0;
    }
    if (option == "--peak-rss") {
      if (i + 2 >= argc)
        return std::fprintf(stderr, "%s: --peak-rss wants NAME THREADS\n", argv[0]), 2;
      const Workload* w = bench.find(argv[i + 1]);
      if (!w)
        return std::fprintf(stderr, "%s: no workload %s; see --list\n", argv[0], argv[i + 1]), 2;
      segmed::set_threads(count_of(argv[0], "THREADS", argv[i + 2]));
      const Run run = w->prepare();
      run(), run();
      std::printf("%.1f\n", peak_memory() - before);
      return 0;
    }
    if (option == "--serve") {
      serves = true;
    } else if (option == "--check") {
      only_checks = true;
    } else if (option == "--threads") {
      threads.clear();
      std::istringstream list(++i < argc ? argv[i] : "");
      for (std::string one; std::getline(list, one, ',') || threads.empty();)
        threads.push_back(count_of(argv[0], "--threads", one));
    } else {
      rest.push_back(argv[i]);
    }
  }
  refuse_wrong(checks());
  if (only_checks) {
    for (const Workload& w : bench.workloads())
      if (w.check) refuse_wrong(w.check());
    return 0;
  }
  if (serves) return serve(bench), 0;
  int count = int(rest.size());
  benchmark::Initialize(&count, rest.data());
  if (benchmark::ReportUnrecognizedArguments(count, rest.data())) return 2;
  add_to_google_benchmark(bench, threads);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace bench
