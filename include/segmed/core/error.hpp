// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace segmed {

/// Everything segmed throws: "segmed: <who>: <the fact with its numbers>[; <what to do>]".
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// Extents, channels or counts that do not fit each other.
struct ShapeError : Error {
  using Error::Error;
};
/// A file that cannot be read or written.
struct FileError : Error {
  using Error::Error;
};
/// A file that cannot be written because the disk is full or sets a limit.
struct DiskError : FileError {
  using FileError::FileError;
};
/// Data that was read well but means something else than was asked for.
struct DataError : Error {
  using Error::Error;
};
/// A device that is absent or failed.
struct DeviceError : Error {
  using Error::Error;
};
/// A device whose memory is full.
struct MemoryError : DeviceError {
  using DeviceError::DeviceError;
};
/// An option out of its range, or options that exclude each other.
struct ConfigError : Error {
  using Error::Error;
};

/// A word of a message: anything that can be streamed, not copied.
class Word {
 public:
  Word(const char* text) : what_(text), put_(put_text) {}
  template <class T>
  requires(!std::is_array_v<T>) Word(const T& value) : what_(&value), put_(put_value<T>) {}
  friend std::ostream& operator<<(std::ostream& out, const Word& word) {
    word.put_(out, word.what_);
    return out;
  }

 private:
  static void put_text(std::ostream& out, const void* text) {
    out << static_cast<const char*>(text);
  }
  template <class T>
  static void put_value(std::ostream& out, const void* value) {
    out << *static_cast<const T*>(value);
  }
  const void* what_;
  void (*put_)(std::ostream&, const void*);
};
/// "segmed: who: words..."
inline std::string error_text(const char* who, std::initializer_list<Word> words) {
  std::ostringstream text;
  text << "segmed: " << who << ": ";
  for (const Word& word : words) text << word;
  return text.str();
}

/// Throws E("segmed: who: words...").
template <class E>
[[noreturn, gnu::cold, gnu::noinline]] void throw_words(const char* who,
                                                        std::initializer_list<Word> words) {
  throw E(error_text(who, words));
}

/// Throws E("segmed: who: parts...").
template <class E = ShapeError, class... Parts>
[[noreturn, gnu::always_inline]] inline void fail(const char* who, const Parts&... parts) {
  throw_words<E>(who, {Word(parts)...});
}

/// Throws E("segmed: who: parts...") unless `ok`.
template <class E = ShapeError, class... Parts>
[[gnu::always_inline]] inline void require(bool ok, const char* who, const Parts&... parts) {
  if (!ok) [[unlikely]]
    fail<E>(who, parts...);
}

}  // namespace segmed
