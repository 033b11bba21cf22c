// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <bit>
#include <charconv>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>

namespace segmed {

/// The name of a number type in safetensors files, "F32" for float.
template <class T>
constexpr const char* type_name() {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8, "archive: not a number type");
  if constexpr (std::is_same_v<T, bool>) return "BOOL";
  if constexpr (std::is_floating_point_v<T>) return sizeof(T) == 8 ? "F64" : "F32";
  constexpr const char* names[2][4] = {{"U8", "U16", "U32", "U64"}, {"I8", "I16", "I32", "I64"}};
  return names[std::is_signed_v<T>][std::bit_width(sizeof(T)) - 1];
}

/// A tensor outside of the program: numbers of one type, the last axis fastest.
struct StoredTensor {
  std::string type = "F32";
  std::vector<Index> shape;
  std::string bytes;

  template <class T>
  static StoredTensor of(const std::vector<T>& numbers, std::vector<Index> shape) {
    StoredTensor tensor{type_name<T>(), std::move(shape), {}};
    tensor.bytes.assign(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(T));
    return tensor;
  }
  template <class T>
  static StoredTensor of(const std::vector<T>& numbers) {
    return of(numbers, {Index(numbers.size())});
  }
  /// The numbers, if they are of type T.
  ///
  ///   throws   DataError when they are of another
  template <class T>
  std::vector<T> as() const {
    require<DataError>(type == type_name<T>(), "archive", "numbers are of type ", type, ", not ",
                       type_name<T>());
    std::vector<T> numbers(bytes.size() / sizeof(T));
    if (!numbers.empty()) std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(T));
    return numbers;
  }
  friend bool operator==(const StoredTensor&, const StoredTensor&) = default;
};

/// Bytes of one number of a type of that name; 0 for a type that nobody knows.
inline Index type_size(std::string_view type) {
  constexpr std::pair<std::string_view, Index> sizes[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
      {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},
      {"I32", 4},  {"F32", 4}, {"U64", 8}, {"I64", 8},     {"F64", 8}};
  for (const auto& [name, size] : sizes)
    if (name == type) return size;
  return 0;
}

/// Tensors and texts by name: what a part of a program keeps of itself.
class Archive {
 public:
  std::map<std::string, std::string> texts;
  std::map<std::string, StoredTensor> tensors;

  /// Keeps one tensor.
  ///
  ///   throws   Error when the name is taken
  void keep(const std::string& name, StoredTensor tensor) {
    require<Error>(tensors.emplace(name, std::move(tensor)).second, "archive", "tensor ", name,
                   " is kept twice");
  }
  /// A tensor.
  ///
  ///   throws   DataError when there is none
  const StoredTensor& tensor(const std::string& name) const {
    const auto found = tensors.find(name);
    require<DataError>(found != tensors.end(), "archive", "there is no tensor ", name);
    return found->second;
  }
  /// The numbers of a tensor.
  ///
  ///   throws   DataError when there is none, or it is of another type
  template <class T>
  std::vector<T> numbers(const std::string& name) const {
    const StoredTensor& found = tensor(name);
    require<DataError>(found.type == type_name<T>(), "archive", "tensor ", name, " is of type ",
                       found.type, ", not ", type_name<T>());
    return found.as<T>();
  }
  /// A text.
  ///
  ///   throws   DataError when there is none
  const std::string& text(const std::string& name) const {
    const auto found = texts.find(name);
    require<DataError>(found != texts.end(), "archive", "there is no entry ", name);
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
  /// The tensors whose names begin with `prefix` and a point.
  std::vector<std::string> names_under(const std::string& prefix) const {
    std::vector<std::string> names;
    const std::string start = prefix + ".";
    for (auto at = tensors.lower_bound(start);
         at != tensors.end() && at->first.compare(0, start.size(), start) == 0; ++at)
      names.push_back(at->first);
    return names;
  }

 protected:
  template <class T>
  static T number_in(const std::string& name, const std::string& text) {
    T value{};
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    require<DataError>(code == std::errc{} && end == text.data() + text.size(), "archive", "entry ",
                       name, " is \"", text, "\", which is no number of its kind");
    return value;
  }
};

}  // namespace segmed
