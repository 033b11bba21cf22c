// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <set>

#include <segmed/autograd/group.hpp>
#include <segmed/train/safetensors.hpp>

namespace segmed {

/// What must be known to build a model again and to bring an image into the form that it reads.
struct ModelCard {
  std::string network;               // the name by which it is built
  std::string options = "{}";        // its options, as JSON text
  std::vector<std::string> classes;  // background first
  std::vector<double> spacing;       // of its voxels in mm; empty: whatever the image has
  std::string normalization;         // as JSON text
  std::string arithmetic;            // what its bits depend on: instruction set, convolutions
  friend bool operator==(const ModelCard&, const ModelCard&) = default;
};

/// Where a run stands. Random numbers and the order of samples follow from seed and step, so
/// nothing else of them is kept.
struct TrainingState {
  std::uint64_t seed = 0;
  Index step = 0;      // steps done
  double seconds = 0;  // of training alone
  friend bool operator==(const TrainingState&, const TrainingState&) = default;
};

/// Everything that a run needs to go on bit for bit, or that `predict` needs to build its network:
/// tensors by path, and texts. Fill it and `write` it, or `read` it and hand it out.
class Checkpoint : public Archive {
 public:
  ModelCard card;
  TrainingState state;

  /// Keeps every parameter (trained or frozen) and buffer of a module, and what its parts save
  /// themselves, under `prefix`.
  template <class M>
  void save(const std::string& prefix, const M& net) {
    save(Inventory(net, prefix));
  }
  void save(const Inventory& inventory) {
    for (const auto& at : inventory.leaves) keep(at.path, at.leaf->stored());
    for (const auto& own : inventory.states) own.save(own.part, *this, own.path);
  }
  /// Gives a module what `save` kept under `prefix`; its Groups stay as they are.
  ///
  ///   throws   DataError that names tensors which are missing, left over, or of another size or
  ///            type; no weight has changed then
  template <class M>
  void load(const std::string& prefix, M& net) const {
    load(Inventory(net, prefix));
  }
  void load(const Inventory& inventory) const {
    Differences differences;
    std::set<std::string> known;
    for (const auto& at : inventory.leaves) {
      known.insert(at.path);
      compare(differences, at.path, at.leaf->type(), at.leaf->size());
    }
    for (const auto& name : names_under(inventory.prefix))
      if (!known.count(name) &&
          std::none_of(inventory.states.begin(), inventory.states.end(), [&](const auto& own) {
            return name.compare(0, own.path.size() + 1, own.path + ".") == 0;
          }))
        differences.extra.push_back(name);
    differences.check(inventory.prefix);
    for (const auto& at : inventory.leaves) at.leaf->restore(tensor(at.path));
    for (const auto& own : inventory.states) own.load(own.part, *this, own.path);
  }

  /// Keeps the optimizer's state of a group, by parameter.
  template <class W, Device D>
  void save_optimizer(const std::string& prefix, Group<W, D>& group) {
    texts[prefix + ".states"] = std::to_string(group.states());
    each_slice(prefix, group, group.states(), [&](const std::string& name, Storage<W, D>& slice) {
      keep(name, StoredTensor::of(slice.host()));
    });
  }
  /// Gives a group the optimizer's state that was kept.
  ///
  ///   throws   DataError as `load` does
  template <class W, Device D>
  void load_optimizer(const std::string& prefix, Group<W, D>& group) const {
    const auto states = std::size_t(number<Index>(prefix + ".states"));
    require<DataError>(states >= group.states() && states <= 16, "checkpoint", prefix, " keeps ",
                       states, " numbers of state per parameter, the optimizer has ",
                       group.states());
    Differences differences;
    std::set<std::string> known;
    each_slice(prefix, group, states, [&](const std::string& name, Storage<W, D>& slice) {
      known.insert(name);
      compare(differences, name, type_name<W>(), slice.size());
    });
    for (const auto& name : names_under(prefix))
      if (!known.count(name)) differences.extra.push_back(name);
    differences.check(prefix);
    each_slice(prefix, group, states, [&](const std::string& name, Storage<W, D>& slice) {
      slice.assign(numbers<W>(name));
    });
  }

  /// Replaces the file at `path`; after a failure the old one is intact.
  ///
  ///   throws   FileError naming path, bytes and reason
  void write(const std::string& path) const {
    TensorFile file{texts, tensors};
    auto& to = file.metadata;
    to["segmed.format"] = format;
    to["segmed.network"] = card.network;
    to["segmed.options"] = card.options;
    to["segmed.classes"] = Json::list(card.classes).dump();
    to["segmed.spacing"] = Json::list(card.spacing).dump();
    to["segmed.normalization"] = card.normalization;
    to["segmed.arithmetic"] = card.arithmetic;
    to["segmed.seed"] = std::to_string(state.seed);
    to["segmed.step"] = std::to_string(state.step);
    to["segmed.seconds"] = number_text(state.seconds);
    SafeTensors::write(path, file);
  }
  /// What `write` wrote.
  ///
  ///   throws   FileError for a file that is damaged or no checkpoint
  static Checkpoint read(const std::string& path) {
    TensorFile file = SafeTensors::read(path);
    require<FileError>(file.verified && file.metadata.count("segmed.format"), "checkpoint", path,
                       ": is a safetensors file, but no checkpoint of segmed");
    Checkpoint made;
    made.texts = std::move(file.metadata);
    made.tensors = std::move(file.tensors);
    const auto take = [&](const std::string& name) {
      const std::string value = made.text("segmed." + name);
      made.texts.erase("segmed." + name);
      return value;
    };
    try {
      const std::string version = take("format");
      require<FileError>(version == format, "checkpoint", path, ": has format ", version,
                         ", this program reads ", format);
      made.card.network = take("network");
      made.card.options = take("options");
      const Json classes = parse_json(take("classes"), path);
      for (const Json& name : classes.as_array()) made.card.classes.push_back(name.as_string());
      const Json spacing = parse_json(take("spacing"), path);
      for (const Json& size : spacing.as_array()) made.card.spacing.push_back(size.as_number());
      made.card.normalization = take("normalization");
      made.card.arithmetic = take("arithmetic");
      made.state.seed = number_in<std::uint64_t>("seed", take("seed"));
      made.state.step = number_in<Index>("step", take("step"));
      made.state.seconds = number_in<double>("seconds", take("seconds"));
    } catch (const DataError& error) {
      throw FileError(std::string(error.what()) + " in " + path);
    }
    return made;
  }

 private:
  static constexpr const char* format = "2";

  struct Differences {
    std::vector<std::string> missing, extra, other;

    void check(const std::string& prefix) const {
      if (missing.empty() && extra.empty() && other.empty()) return;
      std::string text;
      for (const auto& [names, what] : {std::pair{&missing, " not there: "},
                                        {&extra, " left over: "},
                                        {&other, " different: "}})
        if (!names->empty()) text += "; " + std::to_string(names->size()) + what + first_of(*names);
      fail<DataError>("checkpoint", "what was kept does not fit ", prefix, text,
                      "; build it with the options it was saved with");
    }
    static std::string first_of(const std::vector<std::string>& names) {
      std::string text;
      for (std::size_t i = 0; i < std::min<std::size_t>(4, names.size()); ++i)
        text += (i ? ", " : "") + names[i];
      return names.size() > 4 ? text + ", ..." : text;
    }
  };

  void compare(Differences& differences, const std::string& name, const std::string& type,
               Index size) const {
    const auto found = tensors.find(name);
    if (found == tensors.end()) return differences.missing.push_back(name);
    const StoredTensor& kept = found->second;
    if (kept.type == type && kept.shape == std::vector<Index>{size}) return;
    std::string shape;
    for (const Index extent : kept.shape)
      shape += (shape.empty() ? "" : "x") + std::to_string(extent);
    differences.other.push_back(name + " (" + shape + ' ' + kept.type + " instead of " +
                                std::to_string(size) + ' ' + type + ')');
  }
  template <class W, Device D, class Visit>
  static void each_slice(const std::string& prefix, Group<W, D>& group, std::size_t states,
                         Visit visit) {
    for (std::size_t k = 0; k < states; ++k)
      for (const auto& p : group.params()) {
        // State lies where the values lie.
        Storage<W, D> slice =
            group.state(k).slice(p->value.read() - group.values.read(), p->value.size());
        visit(prefix + "." + std::to_string(k) + "." + p->name, slice);
      }
  }
};

}  // namespace segmed
