// SPDX-License-Identifier: Apache-2.0
// Tensors by name in one file, as the safetensors format lays them out: eight bytes with the length
// of a JSON header, the header, the data.
#pragma once
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <segmed/core/archive.hpp>
#include <segmed/core/file.hpp>
#include <segmed/core/json.hpp>

namespace segmed {

static_assert(std::endian::native == std::endian::little, "safetensors: data is little-endian");

/// A number that differs whenever one 8-byte word differs, and otherwise with all but certainty.
inline std::uint64_t checksum(const void* data, std::size_t size, std::uint64_t start = 0) {
  std::uint64_t hash = start ^ (std::uint64_t(size) * 0x9E3779B97F4A7C15u);
  const char* at = static_cast<const char*>(data);
  for (std::size_t i = 0; i < size; i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, at + i, std::min<std::size_t>(8, size - i));
    // Each step is a bijection of the word and of what came before.
    hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
    hash ^= hash >> 32;
  }
  return hash;
}

/// What a safetensors file holds.
struct TensorFile {
  std::map<std::string, std::string> metadata;
  std::map<std::string, StoredTensor> tensors;
  bool verified = false;  // it was read from a file with a checksum, and the checksum was right
};

/// Reads and writes the format strictly: a header of at most 100 MiB, known types,
/// sizes that are the product of the shape, data without holes, overlaps or a rest.
/// Files written here carry a checksum of header and data in their metadata, which
/// reading verifies.
///
///   source   github.com/huggingface/safetensors, README, section Format
class SafeTensors {
 public:
  /// The metadata key of the checksum; other programs see one entry more, and files
  /// without it are read unverified.
  static constexpr const char* checksum_key = "segmed.checksum";
  static constexpr std::uint64_t header_limit = std::uint64_t{100} << 20;

  /// Replaces the file at `path` as a whole.
  ///
  ///   throws   FileError naming path, bytes and reason; the old file is then
  ///   intact
  static void write(const std::string& path, const TensorFile& content) {
    const Order order = order_of(content);
    std::string header = header_of(path, content, order);
    const std::size_t digits = checksum_at(header);
    std::vector<std::string_view> parts;
    for (const auto& [name, tensor] : order) parts.push_back(tensor->bytes);
    header.replace(digits, 16, hex(checksum_of(header, parts)));
    const std::uint64_t length = header.size();
    AtomicFile file(path);
    file.write(&length, sizeof length);
    file.write(header);
    for (const std::string_view part : parts) file.write(part);
    file.commit();
  }

  /// What the file at `path` holds.
  ///
  ///   throws   FileError for a file that cannot be read, breaks the format, or was
  ///   damaged
  static TensorFile read(const std::string& path) { return parse(read_bytes(path), path); }

  /// The same for bytes in memory; `name` is what errors call them.
  static TensorFile parse(std::string_view bytes, const std::string& name) {
    std::uint64_t length = 0;
    check(bytes.size() >= sizeof length, name, "a file of ", bytes.size(), " bytes has no header");
    std::memcpy(&length, bytes.data(), sizeof length);
    bytes.remove_prefix(sizeof length);
    check(length <= header_limit, name, "a header of ", length, " bytes exceeds the limit of ",
          header_limit);
    check(length <= bytes.size(), name, "the header has ", length, " bytes, but only ",
          bytes.size(), " follow");
    const std::string_view header = bytes.substr(0, length), data = bytes.substr(length);
    check(!header.empty() && header[0] == '{', name, "the header does not begin with {");
    try {
      return read_header(parse_json(header, name), header, data, name);
    } catch (const DataError& error) {
      throw FileError(std::string(error.what()) + " in " + name);
    }
  }

 private:
  using Order = std::vector<std::pair<std::string_view, const StoredTensor*>>;

  template <class... Parts>
  static void check(bool ok, const std::string& name, const Parts&... what) {
    require<FileError>(ok, "safetensors", name, ": ", what...);
  }

  /// Wide types first, so that every number lies aligned; then by name.
  static Order order_of(const TensorFile& content) {
    Order order;
    for (const auto& [name, tensor] : content.tensors) order.emplace_back(name, &tensor);
    std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
      return type_size(a.second->type) > type_size(b.second->type);
    });
    return order;
  }

  static std::string header_of(const std::string& path, const TensorFile& content,
                               const Order& order) {
    std::string text = "{\"__metadata__\":{" + json_quoted(checksum_key) + ":\"0000000000000000\"";
    for (const auto& [key, value] : content.metadata) {
      if (key == checksum_key) continue;
      check(is_utf8(key) && is_utf8(value), path, "metadata ", json_quoted(key), " is not UTF-8");
      text += ',' + json_quoted(key) + ':' + json_quoted(value);
    }
    text += '}';
    std::uint64_t at = 0;
    for (const auto& [name, tensor] : order) {
      check(is_utf8(name) && name != "__metadata__", path, "a tensor cannot be called ",
            json_quoted(name));
      const std::uint64_t size = tensor->bytes.size();
      check(size_of(*tensor) == Index(size), path, "tensor ", name, " holds ", size,
            " bytes, but its shape asks for ", size_of(*tensor));
      text += ',' + json_quoted(name) + ":{\"dtype\":\"" + tensor->type + "\",\"shape\":[";
      for (std::size_t a = 0; a < tensor->shape.size(); ++a)
        text += (a ? "," : "") + std::to_string(tensor->shape[a]);
      text += "],\"data_offsets\":[" + std::to_string(at) + ',' + std::to_string(at + size) + "]}";
      at += size;
    }
    text += '}';
    text.append((8 - text.size() % 8) % 8, ' ');
    check(text.size() <= header_limit, path, "a header of ", text.size(),
          " bytes exceeds the limit of ", header_limit);
    return text;
  }
  static bool is_utf8(std::string_view text) {
    while (!text.empty()) {
      const std::size_t length = utf8_length(text);
      if (length == 0) return false;
      text.remove_prefix(length);
    }
    return true;
  }

  /// Bytes that type and shape ask for; -1 where they ask for nothing sensible.
  static Index size_of(const StoredTensor& tensor) {
    Index size = type_size(tensor.type);
    if (size == 0) return -1;
    for (const Index extent : tensor.shape) {
      if (extent < 0) return -1;
      if (extent > 0 && size > std::numeric_limits<Index>::max() / extent) return -1;
      size *= extent;
    }
    return size;
  }

  static TensorFile read_header(const Json& header, std::string_view text, std::string_view data,
                                const std::string& name) {
    TensorFile content;
    std::vector<std::tuple<Index, Index, StoredTensor*>> places;
    for (const auto& [key, entry] : header.as_object()) {
      if (key == "__metadata__") {
        for (const auto& [title, value] : entry.as_object())
          content.metadata[title] = value.as_string();
        continue;
      }
      StoredTensor& tensor = content.tensors[key];
      check(entry.is_object() && entry.as_object().size() == 3, name, "tensor ", json_quoted(key),
            " is not described by dtype, shape and data_offsets alone");
      tensor.type = entry.at("dtype").as_string();
      for (const Json& extent : entry.at("shape").as_array())
        tensor.shape.push_back(extent.as_index());
      const auto& offsets = entry.at("data_offsets").as_array();
      check(offsets.size() == 2, name, "tensor ", json_quoted(key), " has ", offsets.size(),
            " data_offsets, not 2");
      const Index begin = offsets[0].as_index(), end = offsets[1].as_index();
      check(type_size(tensor.type) > 0, name, "tensor ", json_quoted(key), " has the unknown type ",
            json_quoted(tensor.type));
      check(0 <= begin && begin <= end && end <= Index(data.size()), name, "tensor ",
            json_quoted(key), " lies at ", begin, " to ", end, " of ", data.size(), " bytes");
      check(size_of(tensor) == end - begin, name, "tensor ", json_quoted(key), " has ", end - begin,
            " bytes, but its shape asks for ", size_of(tensor));
      places.emplace_back(begin, end, &tensor);
    }
    std::sort(places.begin(), places.end());
    Index at = 0;
    std::vector<std::string_view> parts;
    for (const auto& [begin, end, tensor] : places) {
      check(begin == at, name, "the data has a hole or an overlap at byte ", std::min(at, begin));
      parts.push_back(data.substr(std::size_t(begin), std::size_t(end - begin)));
      at = end;
    }
    check(at == Index(data.size()), name, "after the tensors ", Index(data.size()) - at,
          " bytes are left");
    verify(content, text, parts, name);
    for (std::size_t i = 0; i < places.size(); ++i) std::get<2>(places[i])->bytes = parts[i];
    return content;
  }

  /// Where the 16 digits of the checksum stand in a header; 0 where there are none.
  static std::size_t checksum_at(std::string_view header) {
    const std::string start = json_quoted(checksum_key) + ":\"";
    const std::size_t at = header.find(start);
    return at == header.npos || at + start.size() + 16 > header.size() ? 0 : at + start.size();
  }
  static std::uint64_t checksum_of(std::string header, const std::vector<std::string_view>& parts) {
    header.replace(checksum_at(header), 16, 16, '0');
    std::uint64_t hash = checksum(header.data(), header.size());
    for (const std::string_view part : parts) hash = checksum(part.data(), part.size(), hash);
    return hash;
  }
  static std::string hex(std::uint64_t number) {
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(number));
    return digits;
  }
  static void verify(TensorFile& content, std::string_view header,
                     const std::vector<std::string_view>& parts, const std::string& name) {
    const auto found = content.metadata.find(checksum_key);
    if (found == content.metadata.end()) return;
    const bool intact =
        checksum_at(header) > 0 && hex(checksum_of(std::string(header), parts)) == found->second;
    check(intact, name, "the checksum is wrong; the file was damaged, or changed without removing ",
          checksum_key);
    content.metadata.erase(found);
    content.verified = true;
  }
};

}  // namespace segmed
