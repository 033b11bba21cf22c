// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <segmed/core/config.hpp>
#include <segmed/core/error.hpp>
#include <segmed/core/json_text.hpp>

namespace segmed {

class Json;
/// A named value of an object. A template only because Json holds it and is held by it.
template <class Value>
struct NamedJson {
  std::string name;
  Value value;
  bool operator==(const NamedJson&) const = default;
};

/// A JSON value. Numbers are doubles, so integers are exact up to 2^53; members of an object keep
/// the order in which they were added.
class Json {
 public:
  using Member = NamedJson<Json>;
  using Array = std::vector<Json>;
  using Object = std::vector<Member>;

  Json() = default;
  Json(std::nullptr_t) {}
  Json(std::same_as<bool> auto value) : value_(value) {}
  /// JSON has no NaN and no infinities: they become null.
  Json(std::floating_point auto value) {
    if (std::isfinite(value)) value_ = double(value);
  }
  /// Throws DataError for an integer that a double would change.
  template <std::integral I>
  requires(!std::same_as<I, bool>) Json(I value) : value_(double(value)) {
    require<DataError>(exact(value), "json", value, " is beyond 2^53; write it as a string");
  }
  Json(std::string value) : value_(std::move(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(Array value);
  Json(Object value);
  /// An array of the items of a range.
  template <class Range>
  static Json list(const Range& range);

  bool is_null() const { return value_.index() == 0; }
  bool is_bool() const { return value_.index() == 1; }
  bool is_number() const { return value_.index() == 2; }
  bool is_string() const { return value_.index() == 3; }
  bool is_array() const { return value_.index() == 4; }
  bool is_object() const { return value_.index() == 5; }
  /// What the value is, as error messages say it.
  const char* kind() const {
    constexpr const char* names[] = {"null",     "a bool",   "a number",
                                     "a string", "an array", "an object"};
    return names[value_.index()];
  }

  // Each throws DataError when the value is of another kind.
  bool as_bool() const { return get<bool>("a bool"); }
  double as_number() const { return get<double>("a number"); }
  /// A whole number below 2^53 in size.
  Index as_index() const {
    const double number = as_number();
    require<DataError>(std::abs(number) < 9007199254740992.0 && number == std::floor(number),
                       "json", number, " is no whole number below 2^53");
    return Index(number);
  }
  const std::string& as_string() const { return get<std::string>("a string"); }
  const Array& as_array() const { return get<Array>("an array"); }
  const Object& as_object() const { return get<Object>("an object"); }
  Array& as_array() { return const_cast<Array&>(std::as_const(*this).as_array()); }
  Object& as_object() { return const_cast<Object&>(std::as_const(*this).as_object()); }

  /// The member of that name, or nullptr; also for a value that is no object.
  const Json* find(std::string_view name) const;
  bool has(std::string_view name) const { return find(name) != nullptr; }
  /// The member of that name.
  ///
  ///   throws   DataError when there is none, or the value is no object
  const Json& at(std::string_view name) const {
    const Json* found = (as_object(), find(name));
    require<DataError>(found != nullptr, "json", "there is no member \"", name, "\"");
    return *found;
  }
  /// The member of that name, appended as null if there is none; a null value becomes an object.
  Json& operator[](std::string_view name);
  /// Appends to an array; a null value becomes an array.
  void push_back(Json item);

  /// The value as text, on one line when `indent` is 0. Doubles have the fewest digits that read
  /// back the same; bytes that are no UTF-8 become U+FFFD.
  std::string dump(int indent = 0) const {
    std::string out;
    write(out, indent, 0);
    return out;
  }

  bool operator==(const Json& other) const;

 private:
  template <class I>
  static bool exact(I value) {
    constexpr auto limit = std::uint64_t{1} << 53;
    return value < I{0} ? std::uint64_t(-(value + 1)) < limit : std::uint64_t(value) <= limit;
  }
  template <class T>
  const T& get(const char* wanted) const {
    const T* held = std::get_if<T>(&value_);
    require<DataError>(held != nullptr, "json", "a value is ", kind(), ", not ", wanted);
    return *held;
  }
  void write(std::string& out, int indent, int level) const;

  std::variant<std::nullptr_t, bool, double, std::string, Array, Object> value_;
};

inline Json::Json(Array value) : value_(std::move(value)) {}
inline Json::Json(Object value) : value_(std::move(value)) {}

template <class Range>
Json Json::list(const Range& range) {
  Array items;
  for (const auto& item : range) items.emplace_back(item);
  return items;
}

inline bool Json::operator==(const Json& other) const { return value_ == other.value_; }

inline const Json* Json::find(std::string_view name) const {
  if (const Object* members = std::get_if<Object>(&value_))
    for (const Member& member : *members)
      if (member.name == name) return &member.value;
  return nullptr;
}

inline Json& Json::operator[](std::string_view name) {
  if (is_null()) value_ = Object{};
  if (const Json* found = find(name)) return const_cast<Json&>(*found);
  return as_object().emplace_back(Member{std::string(name), nullptr}).value;
}

inline void Json::push_back(Json item) {
  if (is_null()) value_ = Array{};
  as_array().push_back(std::move(item));
}

inline void Json::write(std::string& out, int indent, int level) const {
  const auto new_line = [&](int depth) {
    if (indent > 0) out += '\n', out.append(std::size_t(indent * depth), ' ');
  };
  if (is_null()) out += "null";
  if (is_bool()) out += as_bool() ? "true" : "false";
  if (is_number()) out += number_text(as_number());
  if (is_string()) out += json_quoted(as_string());
  if (is_array()) {
    bool nested = false;  // an array of plain values stays on one line
    for (const Json& item : as_array()) nested = nested || item.is_array() || item.is_object();
    const char* separator = "";
    out += '[';
    for (const Json& item : as_array()) {
      out += separator;
      if (nested) new_line(level + 1);
      item.write(out, indent, level + 1);
      separator = indent > 0 && !nested ? ", " : ",";
    }
    if (nested) new_line(level);
    out += ']';
  }
  if (is_object()) {
    const char* separator = "";
    out += '{';
    for (const Member& member : as_object()) {
      out += separator;
      new_line(level + 1);
      (out += json_quoted(member.name)) += indent > 0 ? ": " : ":";
      member.value.write(out, indent, level + 1);
      separator = ",";
    }
    if (!as_object().empty()) new_line(level);
    out += '}';
  }
}

/// Reads one JSON text strictly as RFC 8259 says, and what the RFC leaves open is refused: repeated
/// names, nesting below 64 levels, bytes that are no UTF-8, numbers out of a double's range.
class JsonParser {
 public:
  JsonParser(std::string_view text, std::string_view name) : text_(text), name_(name) {}

  Json parse() {
    Json value = read_value(0);
    skip_space();
    check(at_ == text_.size(), "there is text after the value");
    return value;
  }

 private:
  static constexpr int depth_limit = 64;

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char wanted) {
    const bool found = at_ < text_.size() && text_[at_] == wanted;
    if (found) ++at_;
    return found;
  }
  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) < 4) ++at_;
  }
  template <class... Parts>
  void check(bool ok, const Parts&... what) const {
    if (ok) return;
    std::size_t line = 1, column = 1;
    for (const char c : text_.substr(0, at_)) {
      if (c == '\n') ++line, column = 0;
      if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) ++column;
    }
    fail<FileError>("json", name_, ": line ", line, ", column ", column, ": ", what...);
  }

  Json read_value(int depth) {
    skip_space();
    check(at_ < text_.size(), "the text ends where a value should be");
    check(depth < depth_limit, "values are nested deeper than ", depth_limit, " levels");
    const char first = peek();
    if (first == '{') return read_object(depth);
    if (first == '[') return read_array(depth);
    if (first == '"') return read_string();
    if (first == '-' || digit(first)) return read_number();
    for (const auto& [word, value] :
         {std::pair<std::string_view, Json>{"null", nullptr}, {"true", true}, {"false", false}})
      if (text_.substr(at_, word.size()) == word) {
        at_ += word.size();
        return value;
      }
    check(false, "no value begins like this");
    return {};
  }

  Json read_array(int depth) {
    Json::Array items;
    ++at_;
    skip_space();
    if (take(']')) return items;
    do {
      items.push_back(read_value(depth + 1));
      skip_space();
    } while (take(','));
    check(take(']'), "a comma or ] is missing in an array");
    return items;
  }

  Json read_object(int depth) {
    Json::Object members;
    std::set<std::string> names;
    ++at_;
    skip_space();
    if (take('}')) return members;
    do {
      skip_space();
      check(peek() == '"', "a member's name in quotes is missing");
      const std::size_t begin = at_;
      std::string name = read_string();
      if (!names.insert(name).second) {
        at_ = begin;
        check(false, "the member ", json_quoted(name), " stands twice");
      }
      skip_space();
      check(take(':'), "a colon is missing after a member's name");
      members.push_back({std::move(name), read_value(depth + 1)});
      skip_space();
    } while (take(','));
    check(take('}'), "a comma or } is missing in an object");
    return members;
  }

  static bool digit(char c) { return c >= '0' && c <= '9'; }

  Json read_number() {
    const std::size_t begin = at_;
    const auto digits = [&] {
      check(digit(peek()), "a digit is missing in a number");
      while (digit(peek())) ++at_;
    };
    take('-');
    if (take('0'))
      check(!digit(peek()), "a number begins with a zero");
    else
      digits();
    if (take('.')) digits();
    if (take('e') || take('E')) {
      if (!take('-')) take('+');
      digits();
    }
    double value = 0;
    const auto [end, code] = std::from_chars(text_.data() + begin, text_.data() + at_, value);
    check(code == std::errc{} && end == text_.data() + at_, "a number is out of a double's range");
    return value;
  }

  std::string read_string() {
    std::string out;
    ++at_;
    for (;;) {
      check(at_ < text_.size(), "a string has no end");
      const auto byte = static_cast<unsigned char>(text_[at_]);
      if (take('"')) return out;
      check(byte >= 0x20, "a string holds the bare control character ", int(byte));
      if (take('\\')) {
        read_escape(out);
        continue;
      }
      const std::size_t length = utf8_length(text_.substr(at_));
      check(length > 0, "byte ", int(byte), " does not belong to UTF-8 text");
      out += text_.substr(at_, length);
      at_ += length;
    }
  }

  void read_escape(std::string& out) {
    constexpr std::string_view letters = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
    if (!take('u')) {
      const auto which = at_ < text_.size() ? letters.find(text_[at_]) : letters.npos;
      check(which != letters.npos, "no escape is written like this");
      ++at_;
      out += meant[which];
      return;
    }
    unsigned code = read_hex();
    check(code < 0xDC00 || code > 0xDFFF, "the second half of a surrogate pair stands alone");
    if (code >= 0xD800 && code <= 0xDBFF) {
      const unsigned low = take('\\') && take('u') ? read_hex() : 0;
      check(low >= 0xDC00 && low <= 0xDFFF, "the first half of a surrogate pair stands alone");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    const auto add = [&](unsigned byte) { out += static_cast<char>(byte); };
    if (code < 0x80) return add(code);
    if (code < 0x800) {
      add(0xC0 | code >> 6);
    } else {
      if (code < 0x10000)
        add(0xE0 | code >> 12);
      else
        add(0xF0 | code >> 18), add(0x80 | (code >> 12 & 0x3F));
      add(0x80 | (code >> 6 & 0x3F));
    }
    add(0x80 | (code & 0x3F));
  }

  unsigned read_hex() {
    unsigned code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = peek();
      const bool letter = (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
      check(digit(c) || letter, "a \\u escape needs four hexadecimal digits");
      code = code * 16 + (letter ? (unsigned(c) & 0xDFu) - 'A' + 10u : unsigned(c) - '0');
    }
    return code;
  }

  std::string_view text_, name_;
  std::size_t at_ = 0;
};

/// The value that a JSON text holds; `name` is what errors call the text, usually its path.
///
///   throws   FileError with line and column for anything that is not strict JSON
inline Json parse_json(std::string_view text, std::string_view name = "text") {
  return JsonParser(text, name).parse();
}

}  // namespace segmed
