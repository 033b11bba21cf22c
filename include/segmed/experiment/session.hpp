// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>

#include <segmed/experiment/progress.hpp>
#include <segmed/experiment/relabelled.hpp>
#include <segmed/experiment/training_data.hpp>
#include <segmed/semi/open_classes.hpp>
#include <segmed/semi/samples.hpp>
#include <segmed/semi/trainer.hpp>
#include <segmed/train/checkpoint.hpp>
#include <segmed/train/inference.hpp>

namespace segmed {

/// Counts time only while it is on.
class StopWatch {
 public:
  explicit StopWatch(double seconds = 0) : before_(seconds) {}
  void start() { since_ = Clock::now(), on_ = true; }
  void stop() { before_ = seconds(), on_ = false; }
  double seconds() const {
    return before_ + (on_ ? std::chrono::duration<double>(Clock::now() - since_).count() : 0.0);
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point since_{};
  double before_;
  bool on_ = false;
};

/// One run: batches in, steps, checkpoints and a report out.
template <FeatureMap F>
class RunSession {
 public:
  RunSession(const RunOptions& options, TrainingData data, Learner<F>& learner);
  RunReport run();

 private:
  /// The fraction of the budget that is used, at most 1.
  double used() const {
    if (options_.steps > 0) return std::min(1.0, double(learner_.step()) / double(options_.steps));
    return std::min(1.0, watch_.seconds() / (60 * options_.minutes));
  }
  bool stopped() const { return options_.stop && options_.stop->load(); }
  /// What all ranks agree on before a step, for their clocks differ and each has signals of its
  /// own.
  struct Turn {
    double used;
    int stopped;
  };
  Turn turn() const {
    const auto all = options_.ranks.gathered(std::vector<Turn>{{used(), stopped()}});
    return {all[0].used, std::any_of(all.begin(), all.end(), [](Turn t) { return t.stopped; })};
  }
  /// Ranks that do not hold the same weights would go on for hours without a word.
  void check_same(const char* when) const {
    if (options_.ranks.alone()) return;
    const auto all = options_.ranks.gathered(std::vector<std::uint64_t>{learner_.fingerprint()});
    for (std::size_t r = 1; r < all.size(); ++r)
      require<Error>(all[r] == all[0], "run", when, ", rank ", r,
                     " holds other weights than rank 0; "
                     "give all ranks the same program and options, and the same folder");
  }
  /// The faults of all ranks, each case once.
  std::vector<CaseFault> faults() const {
    std::ostringstream mine;
    for (const CaseFault& fault : store_->faults())
      mine << fault.index << ' ' << fault.reason << '\0';
    std::map<Index, CaseFault> all;
    for (const std::string& text : options_.ranks.texts(mine.str()))
      for (std::size_t at = 0, end; at < text.size(); at = end + 1) {
        end = text.find('\0', at);
        const std::size_t space = text.find(' ', at);
        const Index index = std::stoll(text.substr(at, space - at));
        all[index] = {index, text.substr(space + 1, end - space - 1)};
      }
    std::vector<CaseFault> sorted;
    for (const auto& [index, fault] : all) sorted.push_back(fault);
    return sorted;
  }
  LoaderOptions loader_options(std::uint32_t stream) const {
    LoaderOptions o;
    o.sample.patch = options_.patch;
    o.sample.foreground = options_.foreground;
    o.sample.augment = options_.augment;
    o.sample.strong_view = learner_.needs().strong_view;
    o.sample.source = AugmentsThere<typename F::device> && !options_.augment_on_host;
    o.batch = options_.batch;
    o.share = options_.ranks.rank(), o.shares = options_.ranks.size();
    o.seed = options_.seed;
    o.stream = stream;
    return o;
  }
  void open_partial() {
    partial_.reset();
    if (data_.partial.empty()) return;
    auto cases = data_.partial;
    for (auto& c : cases)
      if (relabelled_.all().count(c.index)) c.left = AnnotatedSet::all(255);
    partial_ = std::make_unique<SampleStream<F>>(
        relabelled_.empty() ? store_ : relabelled_.over(store_, budget_), data_.classes, cases,
        loader_options(1));
  }
  void note(const StepResult& result) {
    report_.skipped += result.skipped ? 1 : 0, report_.replayed += result.replayed ? 1 : 0;
    labelled_ += result.labelled, total_ += result.total, ++noted_;
    since_save_ += result.labelled, ++steps_since_save_;
    const Index stride = std::max<Index>(1, report_.curve.empty() ? 1 : learner_.step() / 100);
    if (learner_.step() % stride != 0) return;
    report_.curve.push_back(
        {learner_.step(), watch_.seconds(), labelled_ / double(noted_), total_ / double(noted_)});
    labelled_ = total_ = 0, noted_ = 0;
  }
  std::string line(const StepResult& result) const {
    std::ostringstream text;
    text.precision(3);
    text << std::fixed << "step " << learner_.step() << "  loss " << result.total;
    return text.str();
  }

  bool partly_annotated() const {
    return std::any_of(data_.partial.begin(), data_.partial.end(),
                       [](const LoaderCase& one) { return !one.left.none(); });
  }
  /// Round k starts when k / rounds of the budget are used. Each rank shows the policy its share of
  /// D_1, and what it makes of that reaches all.
  void start_round_if_due(double used) {
    if (!learner_.hooks().start_round) return;
    const Index due = std::min(rounds_ - 1, Index(used * double(rounds_)));
    if (round_ >= due) return;
    round_ = due;
    Round<F> round;
    round.number = due, round.classes = data_.classes.size(), round.ranks = options_.ranks;
    std::vector<Index> all;
    for (const LoaderCase& c : data_.partial) {
      const auto rank = Index(all.size()) % round.ranks.size();
      all.push_back(c.index);
      if (rank != round.ranks.rank()) continue;
      // One that cannot be loaded is among the faults.
      if (const auto held = store_->get(c.index)) round.cases.push_back(case_of(c, held));
    }
    learner_.start_round(round);
    relabelled_.exchange(round.ranks, all);
    if (!relabelled_.empty()) open_partial();
  }
  typename Round<F>::Case case_of(const LoaderCase& c, const CaseStore::Held& held) {
    typename Round<F>::Case view;
    view.id = held->example.id;
    view.annotated = AnnotatedSet::both(held->example.annotated, c.left);
    // Only the store decides how many cases are in memory.
    const auto again = [this, index = c.index, id = view.id] {
      const auto found = store_->get(index);
      require<DataError>(found != nullptr, "round", "case ", id, " cannot be loaded any more");
      return found;
    };
    view.labels = [again, left = view.annotated] {
      const auto found = again();
      const auto& image = found->example.image;
      const std::size_t voxels = image.voxels.size() / std::size_t(image.channels);
      if (left.none()) return std::vector<std::uint8_t>(voxels, 0);
      auto labels = found->example.labels.voxels;
      for (auto& label : labels)
        if (!left.settles(label)) label = 0;
      return labels;
    };
    const SlidingWindow how{.patch = options_.patch, .outside = held->outside.at(0)};
    view.predict = [this, again, how] {
      const auto predict = [this](const F& x) { return learner_.predict(x); };
      return segment<F>(predict, again()->example.image, how).labels.voxels;
    };
    view.complete = [this, again, how, known = view.annotated, drawn = view.labels](float sure) {
      const auto predict = [&](const F& x) { return open_logits(learner_.predict(x), known); };
      SlidingWindow asked = how;
      asked.confidence = true;
      const Segmentation guess = segment<F>(predict, again()->example.image, asked);
      auto labels = drawn();
      for (std::size_t i = 0; i < labels.size(); ++i)
        if (!known.settles(labels[i]))
          labels[i] = guess.confidence.voxels[i] < sure ? ignored : guess.labels.voxels[i];
      return labels;
    };
    view.relabel = [this, index = c.index](std::vector<std::uint8_t> labels, AnnotatedSet set) {
      relabelled_.set(index, {std::move(labels), set});
    };
    return view;
  }

  /// What a checkpoint holds of a number: JSON has none but finite ones.
  static double number(const Json& kept) {
    return kept.is_null() ? std::numeric_limits<double>::quiet_NaN() : kept.as_number();
  }
  std::string path() const { return options_.out + "/last.safetensors"; }
  /// Writes the last checkpoint, and the best one if it is that: by the labels' loss since the
  /// checkpoint before, because D_val has no say in training.
  void save() {
    std::filesystem::create_directories(options_.out);
    Checkpoint point;
    point.state = {options_.seed, learner_.step(), watch_.seconds()};
    point.texts = options_.metadata;
    point.card = options_.card;
    learner_.save(point);
    Json curve;
    for (const CurvePoint& at : report_.curve)
      curve.push_back(
          Json::list(std::vector<double>{double(at.step), at.seconds, at.labelled, at.total}));
    point.texts["run.curve"] = curve.dump();
    point.texts["run.round"] = std::to_string(round_);
    point.texts["run.counts"] =
        Json::list(std::vector<double>{double(report_.skipped), double(report_.replayed)}).dump();
    point.texts["run.pending"] =
        Json::list(std::vector<double>{labelled_, total_, double(noted_)}).dump();
    const double loss = steps_since_save_ > 0 ? since_save_ / double(steps_since_save_) : best_;
    const bool best = loss < best_;
    if (best) best_ = loss;
    since_save_ = 0, steps_since_save_ = 0;
    if (std::isfinite(best_))
      point.texts["run.best"] = Json::list(std::vector<double>{best_}).dump();
    for (const auto& [index, labels] : relabelled_.all()) {
      const auto name = "relabelled." + std::to_string(index);
      point.keep(name + ".voxels", StoredTensor::of(labels.voxels));
      point.keep(name + ".annotated", StoredTensor::of(std::vector<std::uint64_t>(
                                          labels.annotated.words, labels.annotated.words + 4)));
    }
    point.write(path());
    if (best) point.write(options_.out + "/best.safetensors");
  }
  void load() {
    if (!std::filesystem::exists(path())) return;  // stopped before its first checkpoint
    const Checkpoint point = Checkpoint::read(path());
    require<ConfigError>(point.state.seed == options_.seed, "run", path(), ": was made with seed ",
                         point.state.seed, ", not ", options_.seed);
    require<ConfigError>(
        point.card.arithmetic == options_.card.arithmetic, "run", path(), ": was made with ",
        point.card.arithmetic, ", this run uses ", options_.card.arithmetic,
        ", so its bits would differ; go on where it was made, with SEGMED_ISA and SEGMED_CONV as "
        "they were, or start anew");
    learner_.load(point);
    report_.seconds = point.state.seconds;
    const Json curve = parse_json(point.text("run.curve"), path());
    for (const Json& at : curve.as_array()) {
      const auto& p = at.as_array();
      report_.curve.push_back(
          {Index(p.at(0).as_number()), p.at(1).as_number(), number(p.at(2)), number(p.at(3))});
    }
    round_ = point.number<Index>("run.round");
    const Json pending = parse_json(point.text("run.pending"), path());
    labelled_ = number(pending.as_array().at(0));
    total_ = number(pending.as_array().at(1));
    noted_ = Index(pending.as_array().at(2).as_number());
    if (const auto kept = point.texts.find("run.counts"); kept != point.texts.end()) {
      const Json counts = parse_json(kept->second, path());
      report_.skipped = Index(counts.as_array().at(0).as_number());
      report_.replayed = Index(counts.as_array().at(1).as_number());
    }
    if (const auto kept = point.texts.find("run.best"); kept != point.texts.end())
      best_ = parse_json(kept->second, path()).as_array().at(0).as_number();
    for (const LoaderCase& c : data_.partial) {
      const auto name = "relabelled." + std::to_string(c.index);
      if (!point.has(name)) continue;
      Relabelled::Labels labels;
      labels.voxels = point.numbers<std::uint8_t>(name + ".voxels");
      const auto words = point.numbers<std::uint64_t>(name + ".annotated");
      for (std::size_t k = 0; k < 4; ++k) labels.annotated.words[k] = words.at(k);
      relabelled_.set(c.index, std::move(labels));
    }
  }

  const RunOptions& options_;
  TrainingData data_;
  Learner<F>& learner_;
  Index rounds_;
  Index budget_;
  std::shared_ptr<CaseStore> store_;
  std::unique_ptr<SampleStream<F>> partial_;
  Relabelled relabelled_;
  StopWatch watch_;
  RunReport report_;
  Index round_ = -1, noted_ = 0;
  double labelled_ = 0, total_ = 0;
  double since_save_ = 0, best_ = std::numeric_limits<double>::infinity();
  Index steps_since_save_ = 0;
};

// Outside of the class, so that a program which links segmed::kernels leaves them, and all that
// they call, to that library.

template <FeatureMap F>
RunSession<F>::RunSession(const RunOptions& options, TrainingData data, Learner<F>& learner)
    : options_(options),
      data_(std::move(data)),
      learner_(learner),
      rounds_(learner.rounds()),
      budget_(options.memory_mib << 20),
      store_(make_store(data_.load, options.preparation.value_or(Preparation{}), budget_)) {
  report_.hooks = learner.hooks().names();
}

template <FeatureMap F>
RunReport RunSession<F>::run() {
  if (options_.resume) load();
  SampleStream<F> full(store_, data_.classes, data_.full, loader_options(0));
  open_partial();
  check_same("at the start");
  const bool writes = options_.ranks.first() && !options_.out.empty();
  Progress progress(options_.name, options_.quiet || !options_.ranks.first());
  if (!learner_.takes_partial_labels() && partly_annotated()) {
    report_.remarks.push_back(
        "what D_1 annotates is not learnt: the loss takes whole annotations only; wrap it in "
        "Marginal");
    progress.say(report_.remarks.back());
  }
  watch_ = StopWatch(report_.seconds);
  watch_.start();
  double saved = watch_.seconds();
  Turn now = turn();
  for (; now.used < 1 && !now.stopped; now = turn()) {
    start_round_if_due(now.used);
    const auto samples = full.at(learner_.step());
    const auto others = partial_ ? partial_->at(learner_.step()) : Samples<F>{};
    const StepResult result =
        learner_.step(samples, others, now.used, options_.schedule(float(now.used)));
    note(result);
    progress.at(used(), line(result));
    if (writes && watch_.seconds() - saved >= options_.checkpoint_seconds) {
      watch_.stop();
      save();
      watch_.start();
      saved = watch_.seconds();
    }
  }
  watch_.stop();
  report_.interrupted = now.used < 1;
  report_.steps = learner_.step();
  report_.seconds = watch_.seconds();
  report_.replay_refusal = learner_.replay_refusal();
  report_.faults = options_.ranks.alone() ? store_->faults() : faults();
  check_same("at the end");
  if (writes) save();
  progress.done(report_.interrupted ? "interrupted" : "done");
  return report_;
}

}  // namespace segmed
