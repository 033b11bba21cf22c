// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <charconv>
#include <set>

#include <segmed/autograd/group.hpp>
#include <segmed/train/safetensors.hpp>

namespace segmed {

class Checkpoint;

/// Something that keeps more than parameters and buffers (a round's number, a threshold) and saves
/// it itself: `void save(Checkpoint&, const std::string& prefix) const` and
/// `void load(const Checkpoint&, const std::string& prefix)`, which name tensors and texts
/// prefix + ".something".
template <class M>
concept SavesItself = requires(const M& from, M& to, Checkpoint& into, const Checkpoint& out,
                               const std::string& prefix) {
  from.save(into, prefix);
  to.load(out, prefix);
};
template <class M>
concept NamesSave = requires {
  &M::save;
};
template <class M>
concept NamesLoad = requires {
  &M::load;
};

/// Calls f(path, part) for the module and every part of it that saves itself.
template <class M, class Visit>
void each_saving_itself(M& net, Visit&& f, const std::string& path) {
  using Plain = std::remove_const_t<M>;
  if constexpr (SavesItself<Plain>)
    f(path, net);
  else
    static_assert(!NamesSave<Plain> && !NamesLoad<Plain>,
                  "a part with `save` or `load` needs both, as SavesItself asks for them; see "
                  "segmed/train/checkpoint.hpp");
  if constexpr (IsParam<M> || IsBuffer<M> || VisitsItself<M>) {
    return;
  } else if constexpr (Module<M>) {
    Plain::members(net, [&](const std::string& name, auto& part) {
      each_saving_itself(part, f, path + "." + name);
    });
  } else if constexpr (requires { net.begin(); }) {
    std::size_t i = 0;
    for (auto& part : net) each_saving_itself(part, f, path + "." + std::to_string(i++));
  }
}

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
class Checkpoint {
 public:
  ModelCard card;
  TrainingState state;
  std::map<std::string, std::string> texts;  // whatever else a run keeps
  std::map<std::string, StoredTensor> tensors;

  /// Keeps every parameter (trained or frozen) and buffer of a module, and what its parts save
  /// themselves, under `prefix`.
  template <class M>
  void save(const std::string& prefix, const M& net) {
    each_leaf(
        net,
        [&](const std::string& name, const auto& leaf, Role) {
          keep(name, StoredTensor::of(storage_of(leaf).host()));
        },
        prefix);
    each_saving_itself(
        net, [&](const std::string& path, const auto& part) { part.save(*this, path); }, prefix);
  }
  /// Gives a module what `save` kept under `prefix`; its Groups stay as they are.
  ///
  ///   throws   DataError that names tensors which are missing, left over, or of another size or
  ///            type; no weight has changed then
  template <class M>
  void load(const std::string& prefix, M& net) const {
    Differences differences;
    std::set<std::string> known;
    std::vector<std::string> own;
    each_leaf(
        net,
        [&](const std::string& name, const auto& leaf, Role) {
          known.insert(name);
          compare(differences, name, storage_of(leaf));
        },
        prefix);
    each_saving_itself(
        net, [&](const std::string& path, const auto&) { own.push_back(path + "."); }, prefix);
    for (const auto& name : names_under(prefix))
      if (!known.count(name) && std::none_of(own.begin(), own.end(), [&](const std::string& path) {
            return name.compare(0, path.size(), path) == 0;
          }))
        differences.extra.push_back(name);
    differences.check(prefix);
    each_leaf(
        net,
        [&](const std::string& name, auto& leaf, Role) {
          auto& storage = storage_of(leaf);
          storage.assign(numbers<value_of<decltype(storage)>>(name));
        },
        prefix);
    each_saving_itself(
        net, [&](const std::string& path, auto& part) { part.load(*this, path); }, prefix);
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
      compare(differences, name, slice);
    });
    for (const auto& name : names_under(prefix))
      if (!known.count(name)) differences.extra.push_back(name);
    differences.check(prefix);
    each_slice(prefix, group, states, [&](const std::string& name, Storage<W, D>& slice) {
      slice.assign(numbers<W>(name));
    });
  }

  /// Keeps one tensor.
  ///
  ///   throws   Error when the name is taken
  void keep(const std::string& name, StoredTensor tensor) {
    require<Error>(tensors.emplace(name, std::move(tensor)).second, "checkpoint", "tensor ", name,
                   " is kept twice");
  }
  /// The numbers of a tensor.
  ///
  ///   throws   DataError when there is none, or it is of another type
  template <class T>
  std::vector<T> numbers(const std::string& name) const {
    const auto found = tensors.find(name);
    require<DataError>(found != tensors.end(), "checkpoint", "there is no tensor ", name);
    require<DataError>(found->second.type == type_name<T>(), "checkpoint", "tensor ", name,
                       " is of type ", found->second.type, ", not ", type_name<T>());
    return found->second.as<T>();
  }
  /// A text.
  ///
  ///   throws   DataError when there is none
  const std::string& text(const std::string& name) const {
    const auto found = texts.find(name);
    require<DataError>(found != texts.end(), "checkpoint", "there is no entry ", name);
    return found->second;
  }
  /// A number that a text holds.
  ///
  ///   throws   DataError when there is none, or the text is no such number
  template <class T>
  T number(const std::string& name) const {
    return number_in<T>(name, text(name));
  }
  /// Whether anything is kept under `prefix`.
  bool has(const std::string& prefix) const { return !names_under(prefix).empty(); }

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

  template <class S>
  using value_of =
      std::remove_cvref_t<decltype(*std::declval<std::remove_reference_t<S>&>().read())>;
  template <class Leaf>
  static auto& storage_of(Leaf& leaf) {
    if constexpr (IsParam<Leaf>)
      return leaf.value();
    else
      return leaf.running();
  }
  template <class W, Device D>
  void compare(Differences& differences, const std::string& name,
               const Storage<W, D>& storage) const {
    const auto found = tensors.find(name);
    if (found == tensors.end()) return differences.missing.push_back(name);
    const StoredTensor& tensor = found->second;
    if (tensor.type == type_name<W>() && tensor.shape == std::vector<Index>{storage.size()}) return;
    std::string shape;
    for (const Index extent : tensor.shape)
      shape += (shape.empty() ? "" : "x") + std::to_string(extent);
    differences.other.push_back(name + " (" + shape + ' ' + tensor.type + " instead of " +
                                std::to_string(storage.size()) + ' ' + type_name<W>() + ')');
  }
  std::vector<std::string> names_under(const std::string& prefix) const {
    std::vector<std::string> names;
    const std::string start = prefix + ".";
    for (auto at = tensors.lower_bound(start);
         at != tensors.end() && at->first.compare(0, start.size(), start) == 0; ++at)
      names.push_back(at->first);
    return names;
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
  template <class T>
  static T number_in(const std::string& name, const std::string& text) {
    T value{};
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    require<DataError>(code == std::errc{} && end == text.data() + text.size(), "checkpoint",
                       "entry ", name, " is \"", text, "\", which is no number of its kind");
    return value;
  }
};

}  // namespace segmed
