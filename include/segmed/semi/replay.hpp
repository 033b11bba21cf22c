// SPDX-License-Identifier: Apache-2.0
// A step's kernels captured once and queued again as one: what launching them costs the host, which
// for small networks is more than they take.
#pragma once
#include <concepts>
#include <optional>
#include <string>

#include <segmed/autograd/tape.hpp>
#include <segmed/semi/step.hpp>

namespace segmed {

/// A device that can write work down instead of doing it: `D::Graph::captured(body)`, `launch()`.
template <class D>
concept HasGraphs = requires(const typename D::Graph& graph, void (*body)()) {
  { D::Graph::captured(body) } -> std::same_as<typename D::Graph>;
  graph.launch();
};

/// Forward and backward of one step, replayed as long as batches have the shapes and the annotated
/// sets of the first one. The optimizer stays outside, since whether a step counts at all is
/// decided by the host, and so does all that follows it.
///
/// A graph holds the addresses that it was captured with, so batches are copied to where the first
/// one lies. It holds numbers that the host gave its kernels as well: a step that draws random
/// numbers, or asks for the host's memory, is never replayed. Who does other things on the host
/// says so by not having `replays`.
template <FeatureMap F, class Terms>
class StepReplay {
 public:
  using D = typename F::device;
  static constexpr Index warm_up = 2;  // steps in which kernels are chosen, and plans made

  /// Why steps are not replayed; empty: they are, or will be.
  const std::string& refusal() const { return refusal_; }

  /// What body(full, partial) returns, or what stands where it returned it. `stale` is called
  /// before a capture: what was derived from weights must be derived in the graph.
  template <class Body, class Stale>
  Terms step(const Samples<F>& full, const Samples<F>& partial, Body body, Stale stale,
             bool& replayed) {
    replayed = false;
    if (!refusal_.empty()) return body(full, partial);
    if (!graph_ && steps_++ < warm_up) {
      const Terms terms = body(full, partial);
      if (Draws::current().stream > 0) refusal_ = "the step draws random numbers";
      return terms;
    }
    if (!graph_) {
      const Draws before = Draws::current();
      full_.keep(full), partial_.keep(partial);
      try {
        stale();
        graph_.emplace(D::Graph::captured([&] { terms_ = body(full_.held, partial_.held); }));
        if (Draws::current().stream > before.stream) refusal_ = "the step draws random numbers";
      } catch (const DeviceError& why) {
        refusal_ = why.what();
      }
      if (!refusal_.empty()) {  // the device has done nothing
        terms_ = {}, graph_.reset(), full_ = {}, partial_ = {};
        Tape::current()->clear();
        Draws::current() = before;
        return body(full, partial);
      }
    } else if (!full_.fits(full) || !partial_.fits(partial)) {
      return body(full, partial);
    }
    full_.take(full), partial_.take(partial);
    graph_->launch();
    replayed = true;
    return terms_;
  }

 private:
  /// Samples whose addresses stay.
  struct Held {
    Samples<F> held;

    void keep(const Samples<F>& first) {
      held = first;
      if (first.empty()) return;
      held.image = copied(first.image);
      if (!first.strong.empty()) held.strong = copied(first.strong);
      held.labels.classes = first.labels.classes.clone();
      held.labels.on_device = first.labels.sets().clone();
    }
    bool fits(const Samples<F>& next) const {
      if (held.empty() || next.empty()) return held.empty() == next.empty();
      return next.image.plain() && next.image.grid() == held.image.grid() &&
             next.strong.empty() == held.strong.empty() &&
             next.labels.annotated == held.labels.annotated;
    }
    void take(const Samples<F>& next) {
      if (held.empty()) return;
      put(next.image, held.image);
      if (!held.strong.empty()) put(next.strong, held.strong);
      D::copy(held.labels.classes.write(), next.labels.classes.read(),
              std::size_t(next.labels.classes.size()));
      held.cases = next.cases;
    }
    static F copied(const F& x) { return F(x.grid(), value(x).dense().value.clone()); }
    static void put(const F& from, F& to) {
      D::copy(to.mutable_data(), from.data(),
              sizeof(typename F::value_type) * std::size_t(to.grid().size()));
    }
  };

  Held full_, partial_;
  Terms terms_;
  std::optional<typename D::Graph> graph_;
  Index steps_ = 0;
  std::string refusal_;
};

}  // namespace segmed
