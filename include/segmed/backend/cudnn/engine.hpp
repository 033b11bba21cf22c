// SPDX-License-Identifier: Apache-2.0
// Which of cuDNN's engines is taken for a graph: what it may do, what is known of its time.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <segmed/backend/cudnn/problem.hpp>
#include <segmed/core/error.hpp>
#include <segmed/core/json.hpp>

namespace segmed {

/// What cuDNN says of an engine's numbers; the values are cuDNN's.
enum class CudnnNote {
  tensor_core = 0,
  down_convert_inputs = 1,
  reduced_precision_reduction = 2,
  fft = 3,
  nondeterministic = 4,
  winograd = 5,
  winograd_4x4 = 6,
  winograd_6x6 = 7,
  winograd_13x13 = 8,
};

/// An engine of one graph with the choices of its knobs.
struct CudnnEngine {
  Index index = -1;
  std::vector<std::pair<Index, Index>> knobs = {};  // kind and choice
  std::vector<Index> notes = {};

  /// Of a tail that tuning keeps out of the graph.
  static CudnnEngine apart() { return {}; }
  bool is_apart() const { return index < 0; }
  bool notes_any(std::initializer_list<CudnnNote> wanted) const {
    for (const CudnnNote note : wanted)
      for (const Index mine : notes)
        if (mine == Index(note)) return true;
    return false;
  }
  /// Whether it is the same program: notes are no part of its name.
  bool same(const CudnnEngine& other) const { return index == other.index && knobs == other.knobs; }
  std::string text() const {
    if (is_apart()) return "no engine";
    std::string out = "engine " + std::to_string(index);
    for (const auto& [kind, choice] : knobs)
      out += " " + std::to_string(kind) + "=" + std::to_string(choice);
    return out;
  }
};

/// Whether an engine keeps to what is asked of all: sums in float of what is stored, the same bits
/// in each run unless told otherwise; and without TF32, floats multiplied as floats.
inline bool admitted(const CudnnProblem& p, const CudnnEngine& engine) {
  using enum CudnnNote;
  if (engine.notes_any({down_convert_inputs, reduced_precision_reduction})) return false;
  if (!p.switches.nondeterministic && engine.notes_any({nondeterministic})) return false;
  if (p.storage == CudnnStorage::float32 && !p.switches.tf32)
    return !engine.notes_any(
        {tensor_core, fft, winograd, winograd_4x4, winograd_6x6, winograd_13x13});
  return true;
}

/// What times and engine numbers belong to.
struct CudnnMachine {
  std::string gpu;       // its name, to read; it decides nothing
  int architecture = 0;  // 90: compute capability 9.0
  Index cudnn = 0;       // 91900: 9.19.0

  bool fits(const CudnnMachine& other) const {
    return architecture == other.architecture && cudnn == other.cudnn;
  }
  std::string text() const {
    return gpu + " (architecture " + std::to_string(architecture) + ") with cuDNN " +
           std::to_string(cudnn / 10000) + "." + std::to_string(cudnn / 100 % 100) + "." +
           std::to_string(cudnn % 100);
  }
};

/// The engine that was fastest for each graph, on one kind of machine; of a graph with a tail, none
/// where the convolution and a pass behind it were faster. Kept with a run, for which engine runs
/// decides the bits.
class TuningTable {
 public:
  static constexpr Index version = 2;  // 1 had no tails

  std::optional<CudnnEngine> find(const CudnnProblem& p) const {
    if (p.tail.any() && !tails_) return CudnnEngine::apart();
    const auto found = fastest_.find(p.text());
    if (found == fastest_.end()) return {};
    return found->second.engine;
  }
  void record(const CudnnMachine& machine, const CudnnProblem& p, const CudnnEngine& engine,
              double milliseconds) {
    belong_to(machine);
    fastest_.insert_or_assign(p.text(), Entry{engine, milliseconds});
  }
  Index size() const { return Index(fastest_.size()); }

  Json json() const {
    Json graphs = Json::Array{};
    for (const auto& [graph, entry] : fastest_) {
      Json knobs = Json::Array{};
      for (const auto& [kind, choice] : entry.engine.knobs)
        knobs.push_back(Json::Array{kind, choice});
      Json one;
      one["graph"] = graph, one["engine"] = entry.engine.index, one["knobs"] = knobs;
      one["milliseconds"] = entry.milliseconds;
      graphs.push_back(std::move(one));
    }
    Json out;
    out["version"] = tails_ ? version : 1;
    out["gpu"] = machine_.gpu, out["architecture"] = machine_.architecture;
    out["cudnn"] = machine_.cudnn, out["graphs"] = std::move(graphs);
    return out;
  }
  /// A table as `json` wrote it, for this machine. With one of version 1 every bias is added behind
  /// its convolution, as when it was made.
  ///
  ///   throws   ConfigError for a table of another architecture or version of cuDNN: its engines
  ///            are others there; and for one of a later version; DataError for what is no table
  static TuningTable of_json(const Json& json, const CudnnMachine& machine) {
    const CudnnMachine from{json.at("gpu").as_string(), int(json.at("architecture").as_index()),
                            json.at("cudnn").as_index()};
    TuningTable table;
    const auto& graphs = json.at("graphs").as_array();
    if (graphs.empty()) return table;
    const Json* const written = json.find("version");
    const Index its_version = written ? written->as_index() : 1;
    require<ConfigError>(its_version >= 1 && its_version <= version, "tuning table",
                         "it is of version ", its_version, ", this program knows up to ", version,
                         "; tune again");
    table.tails_ = its_version >= 2;
    require<ConfigError>(from.fits(machine), "tuning table", "it was made on ", from.text(),
                         ", this is ", machine.text(), "; tune again");
    table.machine_ = from;
    for (const Json& one : graphs) {
      Entry entry{{.index = one.at("engine").as_index()}, one.at("milliseconds").as_number()};
      for (const Json& knob : one.at("knobs").as_array()) {
        require<DataError>(knob.as_array().size() == 2, "tuning table", "a knob has ",
                           knob.as_array().size(), " numbers, not a kind and a choice");
        entry.engine.knobs.emplace_back(knob.as_array()[0].as_index(),
                                        knob.as_array()[1].as_index());
      }
      table.fastest_.insert_or_assign(one.at("graph").as_string(), std::move(entry));
    }
    return table;
  }

 private:
  struct Entry {
    CudnnEngine engine;
    double milliseconds;
  };
  void belong_to(const CudnnMachine& machine) {
    if (fastest_.empty()) machine_ = machine, tails_ = true;
    require<ConfigError>(machine_.fits(machine), "tuning table", "it was made on ", machine_.text(),
                         ", this is ", machine.text(), "; use a table for each");
  }
  CudnnMachine machine_;
  bool tails_ = true;  // whether it knows of them
  std::map<std::string, Entry> fastest_;
};

/// An engine that was not taken.
struct CudnnRefusal {
  std::string engine, why;
};
/// A plan that was chosen, or none, and what was wrong with the engines before it.
template <class Plan>
struct CudnnChoice {
  std::unique_ptr<Plan> plan;
  CudnnEngine engine;
  double milliseconds = 0;  // when it was timed
  bool checked = true;      // against plain sums; false where there was no memory for that
  std::vector<CudnnRefusal> refused;

  /// What became of a graph, for people: "engine 40, 0.125 ms; before it 3 not admitted".
  std::string text(bool has_tail = false) const {
    std::string out = plan ? engine.text() : has_tail ? "in two steps" : "plain kernels";
    if (!checked) out += ", unchecked for want of memory";
    if (milliseconds > 0) out += ", " + number_text(milliseconds) + " ms";
    std::map<std::string, int> reasons;
    for (const CudnnRefusal& one : refused) ++reasons[one.why];
    const char* before = plan       ? "; before it "
                         : has_tail ? ", since no engine does all; "
                                    : ", since no engine does it; ";
    for (const auto& [why, count] : reasons) {
      out += before + std::to_string(count) + " " + why;
      before = ", ";
    }
    if (!plan && refused.empty()) out += ", since cuDNN offers no engine";
    return out;
  }
};

/// Takes the first engine that is admitted, can be built within the workspace and gives right
/// numbers. With `timed` the fastest of up to that many; with `wanted`, that one or none.
///
///   maker   engines(): std::vector<CudnnEngine>, best guess first; build(i): std::unique_ptr<Plan>
///           or null; workspace(plan): bytes; difference(plan): from plain sums, relative;
///           milliseconds(plan)
template <class Plan, class Maker>
CudnnChoice<Plan> choose_plan(const CudnnProblem& p, Maker& maker, float allowed, int timed = 0,
                              const CudnnEngine* wanted = nullptr) {
  CudnnChoice<Plan> best;
  const std::vector<CudnnEngine> engines = maker.engines();
  const auto seen_before = [&](std::size_t i) {
    for (std::size_t j = 0; j < i; ++j)
      if (engines[j].same(engines[i])) return true;
    return false;
  };
  for (std::size_t i = 0, right = 0; i < engines.size(); ++i) {
    const CudnnEngine& engine = engines[i];
    if ((wanted && !engine.same(*wanted)) || seen_before(i)) continue;
    const auto refuse = [&](const std::string& why) {
      best.refused.push_back({engine.text(), why});
    };
    if (!admitted(p, engine)) {
      refuse("not admitted");
      continue;
    }
    std::unique_ptr<Plan> plan = maker.build(i);
    if (!plan) {
      refuse("cannot be built");
      continue;
    }
    if (maker.workspace(*plan) > p.switches.workspace) {
      refuse("wants " + std::to_string(maker.workspace(*plan)) + " bytes");
      continue;
    }
    if (const float off = maker.difference(*plan); !(off <= allowed)) {
      refuse("wrong by " + std::to_string(off));
      continue;
    }
    const double time = timed > 0 ? maker.milliseconds(*plan) : 0;
    if (!best.plan || time < best.milliseconds)
      best.plan = std::move(plan), best.engine = engine, best.milliseconds = time;
    if (int(++right) >= timed) break;
  }
  return best;
}

/// Of a graph with a tail whose plan was timed: gives the plan up where the convolution and the
/// passes behind it, `apart` milliseconds together, are not slower.
template <class Plan>
void keep_if_faster(CudnnChoice<Plan>& choice, double apart) {
  if (!choice.plan || choice.milliseconds < apart) return;
  choice.refused.push_back({choice.engine.text(), "not faster (" +
                                                      number_text(choice.milliseconds) + " ms, " +
                                                      number_text(apart) + " ms apart)"});
  choice.plan = nullptr, choice.engine = CudnnEngine::apart(), choice.milliseconds = apart;
}

}  // namespace segmed
