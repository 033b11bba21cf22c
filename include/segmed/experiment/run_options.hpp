// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <segmed/backend/communicator.hpp>
#include <segmed/core/schedule.hpp>
#include <segmed/data/loader.hpp>
#include <segmed/train/checkpoint.hpp>

namespace segmed {

/// How a run goes. The budget is `steps` or `minutes` of training; schedules follow the fraction of
/// it that is used.
struct RunOptions {
  std::string name = "run";
  Index steps = 0;
  double minutes = 0;
  std::uint64_t seed = 1;
  Extent3 patch = {32, 32, 32};  // x, y, z in voxels; z = 1 for 2-D networks
  Index batch = 2;  // patches of D_0, and as many of D_1, per step: of all ranks together
  std::optional<Preparation> preparation =
      {};  // none: own spacing, each scan by its mean and deviation
  Augment augment = {};
  float foreground = 2.0f / 3;   // chance that a patch is laid around a class
  bool balance_sources = false;  // draw D_1's cases by 1 / sqrt(those with the same classes)
  std::function<float(float)> schedule = Poly{};
  double max_norm = 12;     // of the gradient
  float average = 0;        // predict with a moving average of the weights; 0: with the last ones
  Index memory_mib = 2048;  // for prepared cases
  bool quiet = false;       // no progress bar
  bool replay = false;      // queue a step's kernels as one, where device and policy can
  bool augment_on_host = false;  // patches, also where the device can; see docs/gpu.md

  std::string out = {};            // folder for checkpoints; empty: nothing is written
  bool resume = false;             // go on from out/last.safetensors if it is there
  double checkpoint_seconds = 30;  // at most so much work is lost
  ModelCard card = {};             // goes into every checkpoint
  std::map<std::string, std::string> metadata = {};  // likewise
  const std::atomic<bool>* stop = nullptr;           // set by a signal: save and return
  Ranks ranks = {};  // who trains with this process: all give the same options, the first writes

  // Which cases train, by number; none: all `full` ones as D_0, `partial` and `unlabelled` as D_1.
  std::optional<std::vector<LoaderCase>> full = {}, partial = {};
};

/// A point of the training curve.
struct CurvePoint {
  Index step = 0;
  double seconds = 0, labelled = 0, total = 0;
};

/// What a run did.
struct RunReport {
  Index steps = 0;
  double seconds = 0;  // of training: no evaluation, no checkpoint
  std::vector<CurvePoint> curve;
  std::vector<std::string> hooks;  // of the policy, as found
  std::vector<CaseFault> faults;
  Index skipped = 0;                      // steps without a finite gradient
  Index replayed = 0;                     // steps whose kernels were queued as one
  std::string replay_refusal = {};        // why none were, though that was asked for
  std::vector<std::string> remarks = {};  // what its user may not have meant
  bool interrupted = false;
};

}  // namespace segmed
